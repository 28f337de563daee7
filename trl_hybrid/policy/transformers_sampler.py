"""Answers sampled by transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_hybrid.errors import InputError
from trl_hybrid.policy.generation import Completion, Decoding, generate_completions
from trl_hybrid.policy.source import PolicySource, default_dtype, tokenizer_home
from trl_hybrid.reward_model.placement import local_device


class TransformersSampler:
    """Answers by transformers' `generate`.

    Args:
        source: The policy.
        dtype: Number type of the weights; by default bfloat16 on a GPU that has it, float32 elsewhere.

    Raises:
        InputError: The tokenizer has no chat template.
    """

    def __init__(self, source: PolicySource, dtype: str | None = None) -> None:
        self.tokenizer = policy_tokenizer(source)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.base, revision=source.revision, dtype=dtype or default_dtype(), use_safetensors=True
        )
        if source.adapter is not None:
            model = PeftModel.from_pretrained(
                model, source.adapter, revision=source.adapter_revision, use_safetensors=True
            )
        self.model: Any = model.to(local_device()).eval()

    def answer(
        self, prompts: Sequence[list[dict[str, str]]], numbers: Sequence[int], decoding: Decoding
    ) -> list[list[Completion]]:
        """Answer a batch of prompts; see [`generate_completions`].

        Raises:
            InputError: The GPU's memory does not suffice.
        """
        try:
            return generate_completions(self.model, self.tokenizer, prompts, numbers, decoding)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"The GPU's memory does not suffice for {len(prompts)} problems with {decoding.answers} answers each "
                f"at once ({error}). Lower the batch size; what is done is kept, and the answers stay the same."
            ) from error


def policy_tokenizer(source: PolicySource) -> Any:
    """Load the policy's tokenizer, with a padding token.

    Raises:
        InputError: It has no chat template.
    """
    name = tokenizer_home(source)
    tokenizer: Any = AutoTokenizer.from_pretrained(name, revision=source.revision if name == source.base else None)
    if tokenizer.chat_template is None:
        raise InputError(f"Problems are put as chat messages, and the tokenizer of {name!r} has no chat template.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
