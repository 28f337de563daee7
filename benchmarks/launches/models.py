"""What is trained and judged: the embedded models, or random weights in other models' shapes."""

from pathlib import Path
from typing import Any

import torch
from scoring.workload import SHAPES, make_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


ROOT = Path(__file__).resolve().parents[2]

POLICIES: dict[str, dict[str, Any]] = {
    "tinyllama": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
    },
    "tiny": {
        "vocab_size": 2048,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    },
}

SPECIAL = ["<|start|>", "<|end|>", "<|pad|>"]
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}:{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:{% endif %}"
)
PROMPT_TOKENS = 100
SYSTEM_PROMPT = r"Please reason step by step, and check your final answer within \boxed{}."


def embedded() -> dict[str, Any]:
    """Return the embedded models and their additions."""
    from trl_hybrid.data import load_tasks

    return {
        "policy": str(ROOT / "data" / "embedded_policy"),
        "reward_model": str(ROOT / "data" / "embedded_reward_model"),
        "system_prompt": SYSTEM_PROMPT,
        "tasks": load_tasks(str(ROOT / "data" / "addition"), max_rows=256).to_list(),  # pyright: ignore[reportAttributeAccessIssue]
    }


def random_models(policy: str, reward_model: str, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Save random models of two shapes that share a tokenizer, and make problems of `PROMPT_TOKENS` tokens.

    A random policy hardly ever ends a completion, so that all have the length limit's tokens, and each of them is one
    of the reward model's tokens too.
    """
    paths = {"policy": folder / "policy", "reward_model": folder / "reward_model"}
    make_model(reward_model, str(paths["reward_model"]), "cuda" if torch.cuda.is_available() else "cpu", dtype)
    torch.manual_seed(0)
    config = LlamaConfig(**POLICIES[policy], bos_token_id=0, eos_token_id=1, pad_token_id=2)
    LlamaForCausalLM._from_config(config, dtype=dtype).save_pretrained(paths["policy"])
    vocab_size = min(POLICIES[policy]["vocab_size"], SHAPES[reward_model]["vocab_size"])
    for path in paths.values():
        make_tokenizer(vocab_size).save_pretrained(path)
    tasks = [
        {"prompt": [{"role": "user", "content": "\u4e00" * (PROMPT_TOKENS - 1) + chr(0x4E00 + row)}], "solution": "42"}
        for row in range(256)
    ]
    return {**{name: str(path) for name, path in paths.items()}, "system_prompt": SYSTEM_PROMPT, "tasks": tasks}


def make_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Build a byte-level BPE tokenizer whose tokens are single Chinese and Korean characters, no digits among them.

    Nearly every id is decoded to one character, which is encoded to that id again; bytes and halves of a character
    make up a fortieth of 32000 ids. It is byte-level since transformers loads any Qwen2 model's tokenizer as such.
    """
    characters = map(chr, (*range(0x4E00, 0xA000), *range(0xAC00, 0xD7A4)))
    vocab = dict.fromkeys(SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet()))
    merges: dict[tuple[str, str], None] = {}
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    while len(vocab) < vocab_size - 1:  # a character brings at most two tokens
        one, two, three = byte_level.pre_tokenize_str(next(characters))[0][0]
        vocab |= dict.fromkeys((one + two, one + two + three))
        merges |= dict.fromkeys(((one, two), (one + two, three)))
    core = Tokenizer(models.BPE({token: index for index, token in enumerate(vocab)}, list(merges)))
    core.pre_tokenizer, core.decoder = byte_level, decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=SPECIAL[0], eos_token=SPECIAL[1], pad_token=SPECIAL[2]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer
