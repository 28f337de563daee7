"""Answers by vLLM, where it is installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from trl_hybrid.errors import InputError
from trl_hybrid.policy.generation import Completion, Decoding
from trl_hybrid.policy.source import PolicySource, default_dtype, tokenizer_home


LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `max_lora_rank`."""


class VllmSampler:
    """Answers by vLLM's `LLM.chat`. A problem's samples depend on its number and the seed, as far as vLLM's seeds do.

    Args:
        source: The policy; an adapter is loaded as a LoRA request and must be a LoRA.
        dtype: Number type of the weights; by default bfloat16.
        gpu_memory_utilization: Share of the GPU's memory that vLLM takes; leave room for a reward model.

    Raises:
        InputError: vLLM is not installed.
    """

    def __init__(self, source: PolicySource, dtype: str | None = None, gpu_memory_utilization: float = 0.9) -> None:
        try:
            from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports] - an extra
            from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError(
                "The backend 'vllm' needs vLLM, which is not installed: pip install 'trl-hybrid[vllm]' (on Linux with "
                "a GPU), or use the backend 'transformers'."
            ) from error
        adapter: dict[str, Any] = {}
        self.lora_request = None
        if source.adapter is not None:
            folder = source.adapter
            if not Path(folder).is_dir():  # by an id alone vLLM would take its main branch
                folder = snapshot_download(folder, revision=source.adapter_revision)
            adapter = {"enable_lora": True, "max_lora_rank": _lora_rank(folder)}
            self.lora_request = LoRARequest("adapter", 1, folder)
        self.sampling_params: Any = SamplingParams
        self.llm: Any = LLM(
            model=source.base,
            revision=source.revision,
            tokenizer=tokenizer_home(source),
            dtype=dtype or default_dtype(),
            gpu_memory_utilization=gpu_memory_utilization,
            **adapter,
        )

    def answer(
        self, prompts: Sequence[list[dict[str, str]]], numbers: Sequence[int], decoding: Decoding
    ) -> list[list[Completion]]:
        """Answer a batch of prompts, the greedy answer first; as [`generate_completions`]."""
        shared = {"max_tokens": decoding.max_completion_length, "repetition_penalty": decoding.repetition_penalty}
        greedy = [self.sampling_params(temperature=0.0, **shared) for _ in numbers]
        sampled = [
            self.sampling_params(
                n=decoding.num_samples,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                top_k=decoding.top_k,
                min_p=decoding.min_p or 0.0,
                # vLLM adds a sample's index to it: no sample shares its random numbers with another problem's.
                seed=(decoding.seed * 1_000_003 + number * decoding.num_samples) % 2**31,
                **shared,
            )
            for number in numbers
        ]
        wanted = [*([greedy] if decoding.greedy else []), *([sampled] if decoding.num_samples else [])]
        rounds = [
            self.llm.chat(
                list(prompts),
                params,
                use_tqdm=False,
                lora_request=self.lora_request,
                chat_template_kwargs=decoding.chat_template_kwargs,
            )
            for params in wanted
        ]
        return [
            [Completion(out.text, out.finish_reason == "length") for request in of_problem for out in request.outputs]
            for of_problem in zip(*rounds, strict=True)
        ]


def _lora_rank(adapter: str) -> int:
    from peft import PeftConfig

    rank = getattr(PeftConfig.from_pretrained(adapter), "r", None)
    fitting = [size for size in LORA_RANKS if rank is not None and size >= rank]
    if not fitting:
        raise InputError(f"vLLM takes LoRA adapters of rank {LORA_RANKS[-1]} at most, {adapter!r} has rank {rank}.")
    return fitting[0]
