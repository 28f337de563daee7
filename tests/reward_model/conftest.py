"""Tiny reward models with random weights and tokenizers of their own, and an oracle that scores one row at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)


TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    # Llama 3 trims contents and begins with a token of its own.
    "trimming": (
        "{{ '<|begin|>' }}{% for m in messages %}<|head|>{{ m['role'] }}<|/head|>\n\n{{ m['content'] | trim }}<|eot|>"
        "{% endfor %}"
    ),
    # Zephyr's spirit: the turn ends in the end-of-sequence token and nothing else.
    "bare": "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}",
    "without_system": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ m['content'] }}<|im_end|>{% endfor %}"
    ),
    "forgetful": "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
    "none": None,
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|begin|>", "<|head|>", "<|/head|>", "<|eot|>", "<|pad|>"]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
FAMILIES = {
    "qwen2": (Qwen2Config, Qwen2ForSequenceClassification),
    "qwen3": (Qwen3Config, Qwen3ForSequenceClassification),
    "llama": (LlamaConfig, LlamaForSequenceClassification),
}


def make_tokenizer(
    template: str = "chatml",
    pad: str = "<|pad|>",
    eos: str = "<|im_end|>",
    padding_side: str = "right",
    adds_bos: bool = False,
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token a byte, and the control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=eos,
        pad_token=pad,
        padding_side=padding_side,
        extra_special_tokens=SPECIAL,
    )
    tokenizer.chat_template = TEMPLATES[template]
    if adds_bos:  # as Llama's does, beside the one that its template writes
        begin = ("<|begin|>", tokenizer.convert_tokens_to_ids("<|begin|>"))
        core = tokenizer.backend_tokenizer
        core.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[begin])
    return tokenizer


def make_model(family: str, tokenizer: PreTrainedTokenizerFast, num_labels: int = 1) -> PreTrainedModel:
    """Random weights, spread enough for scores that differ clearly from row to row."""
    torch.manual_seed(0)
    config_class, model_class = FAMILIES[family]
    config = config_class(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        num_labels=num_labels,
        initializer_range=0.2,
        **SHAPE,
    )
    model = model_class(config)
    torch.nn.init.normal_(model.score.weight)
    return model


@dataclass(frozen=True)
class SavedModel:
    """A reward model in a folder, and the plain transformers way to score with it."""

    path: str
    tokenizer: PreTrainedTokenizerFast
    model: PreTrainedModel

    def ids(self, messages: list[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def score_ids(self, ids: list[int]) -> float:
        """Score one row alone. The head's position is the row's last, as `pad_token_id=None` says."""
        self.model.config.pad_token_id = None
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0, 0].item()

    def score(self, prompt: str, completion: str, system_prompt: str | None = None) -> float:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        if system_prompt is not None:
            messages.insert(0, {"role": "system", "content": system_prompt})
        return self.score_ids(self.ids(messages))


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[..., PreTrainedTokenizerFast]:
    """Return the function that makes tokenizers, by the name of a template."""
    return make_tokenizer


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SavedModel]:
    """Return a function that saves a tiny reward model and loads it back as the oracle."""

    def save(family: str = "qwen2", num_labels: int = 1, **tokenizer_arguments) -> SavedModel:
        path = tmp_path_factory.mktemp(family)
        tokenizer = make_tokenizer(**tokenizer_arguments)
        tokenizer.save_pretrained(path)
        make_model(family, tokenizer, num_labels).save_pretrained(path)
        oracle = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
        return SavedModel(str(path), tokenizer, oracle)

    return save


@pytest.fixture(scope="session")
def qwen2(save_model: Callable[..., SavedModel]) -> SavedModel:
    return save_model("qwen2")


@pytest.fixture(scope="session")
def causal_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model with its tokenizer: no score head in its checkpoint."""
    path = tmp_path_factory.mktemp("causal")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(path)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE)).save_pretrained(path)
    return path
