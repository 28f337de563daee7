"""Answers by vLLM, where it is installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig

from trl_hybrid.errors import InputError
from trl_hybrid.policy.generation import Completion, Decoding
from trl_hybrid.policy.source import PolicySource, default_dtype, tokenizer_home
from trl_hybrid.policy.transformers_sampler import policy_tokenizer
from trl_hybrid.reward_model.placement import local_device


LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `max_lora_rank`."""

INSTALL = (
    "The backend 'vllm' needs vLLM, which is not installed: pip install 'trl-hybrid[vllm]' (on Linux with a GPU), or "
    "use the backend 'transformers'."
)


class VllmSampler:
    """Answers by vLLM. A problem's samples depend on its number and the seed, as far as vLLM's seeds do.

    Its context manager ends the engine, which gives the GPU's memory back.

    Args:
        source: The policy; an adapter is loaded as a LoRA request and must be a LoRA.
        dtype: Number type of the weights; by default bfloat16 on a GPU that has it, float32 elsewhere.
        gpu_memory_utilization: Share of the whole GPU's memory that vLLM takes, in (0, 1]; of a CPU's, of the host's.
        max_model_length: Tokens that a prompt and its answer have together; by default the model's context. vLLM
            starts only where its share holds as many.

    Raises:
        InputError: vLLM is not installed, less than its share is free, or it refuses the model.
    """

    def __init__(
        self,
        source: PolicySource,
        dtype: str | None = None,
        gpu_memory_utilization: float = 0.9,
        max_model_length: int | None = None,
    ) -> None:
        try:
            from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports] - an extra
            from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError(INSTALL) from error
        check_free_memory(gpu_memory_utilization)
        self.tokenizer = policy_tokenizer(source)
        adapter: dict[str, Any] = {}
        self.lora_request = None
        if source.adapter is not None:
            folder = source.adapter
            if not Path(folder).is_dir():  # by an id alone vLLM would take its main branch
                folder = snapshot_download(folder, revision=source.adapter_revision)
            adapter = {"enable_lora": True, "max_lora_rank": _lora_rank(folder)}
            self.lora_request = LoRARequest("adapter", 1, folder)
        self.sampling_params: Any = SamplingParams
        try:
            self.llm: Any = LLM(
                model=source.base,
                revision=source.revision,
                tokenizer=tokenizer_home(source),
                dtype=dtype or default_dtype(),
                gpu_memory_utilization=gpu_memory_utilization,
                max_model_len=max_model_length,
                # For a CPU vLLM would compile for longer than an evaluation takes.
                enforce_eager=local_device().type == "cpu",
                **adapter,
            )
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"vLLM does not start with {source.name!r}: {error} What vLLM printed above says more. "
                "--vllm_gpu_memory_utilization and --vllm_max_model_length decide about its memory; the backend "
                "'transformers' takes every model."
            ) from error

    def __enter__(self) -> "VllmSampler":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm

    def answer(
        self, prompts: Sequence[list[dict[str, str]]], numbers: Sequence[int], decoding: Decoding
    ) -> list[list[Completion]]:
        """Answer a batch of prompts, the greedy answer first; as [`generate_completions`].

        A prompt that fills the context by itself gets empty answers that are cut off: vLLM would refuse the batch.
        """
        tokens = prompt_tokens(self.tokenizer, prompts, decoding)
        room = self.llm.llm_engine.model_config.max_model_len
        asked = [place for place, ids in enumerate(tokens) if len(ids) < room]
        these = [tokens[place] for place in asked], [numbers[place] for place in asked]
        groups = dict(zip(asked, self._answer(*these, decoding), strict=True)) if asked else {}
        return [groups.get(place, [Completion("", True)] * decoding.answers) for place in range(len(prompts))]

    def _answer(
        self, tokens: Sequence[list[int]], numbers: Sequence[int], decoding: Decoding
    ) -> list[list[Completion]]:
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
        prompts = [{"prompt_token_ids": ids} for ids in tokens]
        rounds = [
            self.llm.generate(prompts, params, use_tqdm=False, lora_request=self.lora_request) for params in wanted
        ]
        return [
            [Completion(out.text, out.finish_reason == "length") for request in of_problem for out in request.outputs]
            for of_problem in zip(*rounds, strict=True)
        ]


def prompt_tokens(tokenizer: Any, prompts: Sequence[list[dict[str, str]]], decoding: Decoding) -> list[list[int]]:
    """Return each prompt's tokens, the same that transformers' backend reads."""
    rendered = tokenizer.apply_chat_template(
        list(prompts), add_generation_prompt=True, tokenize=True, return_dict=True,
        **(decoding.chat_template_kwargs or {}),
    )  # fmt: skip
    return rendered["input_ids"]


def asked_length(source: PolicySource, prompts: Sequence[list[dict[str, str]]], decoding: Decoding) -> int:
    """Return the tokens of the longest prompt with its answer, as many of them as the model's context has."""
    tokens = prompt_tokens(policy_tokenizer(source), prompts, decoding)
    asked = max(map(len, tokens)) + decoding.max_completion_length
    config = AutoConfig.from_pretrained(source.base, revision=source.revision).get_text_config()
    return min(asked, getattr(config, "max_position_embeddings", None) or asked)


def check_free_memory(share: float) -> None:
    """Refuse a share of the GPU's memory that is not free, before vLLM starts and fails.

    Raises:
        InputError: Names the share that is free.
    """
    if local_device().type != "cuda":
        return
    free, total = torch.cuda.mem_get_info()
    if share * total > free:
        raise InputError(
            f"--vllm_gpu_memory_utilization is a share of the whole GPU: {share} of {total / 1e9:.1f} GB must be "
            f"free, and {free / 1e9:.1f} GB are. Set it to at most {int(100 * free / total) / 100}, or end what takes "
            "the rest."
        )


def _lora_rank(adapter: str) -> int:
    """Return the smallest of vLLM's ranks that holds an adapter's.

    Raises:
        InputError: It is no LoRA, has a rank above them, or something that vLLM does not load.
    """
    from peft import PeftConfig

    config: Any = PeftConfig.from_pretrained(adapter)
    rank = getattr(config, "r", None)
    has = {name: getattr(config, name, None) for name in ("use_dora", "modules_to_save", "bias")}
    beyond = [f"{name}={value!r}" for name, value in has.items() if value and value != "none"]
    if beyond:
        raise InputError(
            f"vLLM takes LoRA adapters without {', '.join(beyond)}, which {adapter!r} has. Use the backend "
            "'transformers'."
        )
    fitting = [size for size in LORA_RANKS if rank is not None and size >= rank]
    if not fitting:
        raise InputError(f"vLLM takes LoRA adapters of rank {LORA_RANKS[-1]} at most, {adapter!r} has rank {rank}.")
    return fitting[0]
