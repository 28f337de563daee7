"""What is scored: a random reward model of a given shape, and rows of token ids."""

import math
import random
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification


Row = tuple[int, ...]

SHAPES: dict[str, dict[str, Any]] = {
    "small": {  # 39M parameters, 1M of them in the embedding
        "vocab_size": 2048,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "initializer_range": 0.05,
    },
    "acemath-7b": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
FIRST_ROW_ID = 300
"""Ids below are the tokenizer's letters and control tokens: no row holds padding by accident."""
PAD_ID = FIRST_ROW_ID - 1
GROUP = 8


def make_model(shape: str, folder: str, device: str, dtype: torch.dtype) -> None:
    """Save a random reward model and its tokenizer."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_labels": 1, "max_position_embeddings": 4096, "pad_token_id": PAD_ID}
    config = Qwen2Config(**settings, **SHAPES[shape])
    with torch.device(device):
        model = Qwen2ForSequenceClassification._from_config(config, dtype=dtype)
    # The final norm's output has entries of about 1: scores spread by about 3, as a trained model's do.
    nn.init.normal_(model.score.weight, std=3 * config.hidden_size**-0.5)
    model.save_pretrained(folder, max_shard_size="4GB")
    make_tokenizer().save_pretrained(folder)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>", extra_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def maths_rows(completions: int, scale: float, vocab_size: int, seed: int = 0) -> list[Row]:
    """Make rows as a maths policy does: prompts of 60 to 130 tokens, log-normal completions of mean 550, at most 2048.

    Lengths are spread evenly over their distribution, each drawn within its own share of it, and shuffled: any number
    of rows has about the same mean, and other seeds have other lengths. Every `GROUP` rows share a prompt; `scale` is
    a factor on all lengths, and ids are below `vocab_size`.
    """
    generator = random.Random(seed)
    normal = statistics.NormalDist(math.log(550) - 0.5**2 / 2, 0.5)
    lengths = [min(2048.0, math.exp(normal.inv_cdf(share))) for share in shares(completions, generator)]
    prompt_lengths = [60 + 70 * share for share in shares(completions // GROUP, generator)]
    generator.shuffle(lengths)
    generator.shuffle(prompt_lengths)
    return rows_of(prompt_lengths, lengths, scale, vocab_size, generator)


def long_prompt_rows(completions: int, scale: float, vocab_size: int, seed: int = 0) -> list[Row]:
    """Make rows of 300 prompt tokens and 200 completion tokens."""
    generator = random.Random(seed)
    return rows_of([300] * (completions // GROUP), [200] * completions, scale, vocab_size, generator)


def shares(count: int, generator: random.Random) -> list[float]:
    """Draw numbers above 0 and below 1, one in each of `count` parts of equal size."""
    return [(part + 0.05 + 0.9 * generator.random()) / count for part in range(count)]


def rows_of(
    prompt_lengths: Sequence[float], lengths: Sequence[float], scale: float, vocab_size: int, generator: random.Random
) -> list[Row]:
    """Draw ids for every prompt, and for every completion after its group's prompt."""
    ids = range(FIRST_ROW_ID, vocab_size)
    prompts = [generator.choices(ids, k=round(scale * length)) for length in prompt_lengths]
    return [
        (*prompts[index // GROUP], *generator.choices(ids, k=max(1, round(scale * length))))
        for index, length in enumerate(lengths)
    ]
