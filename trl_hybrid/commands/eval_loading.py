"""What `trl-hybrid eval` loads, in the order in which all of it fits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

from trl_hybrid.commands.eval_settings import EvalSettings
from trl_hybrid.commands.score import load_reward_model
from trl_hybrid.evaluation.samples import Judges, Sampler
from trl_hybrid.memory.estimates import named_dtype, sampling_bytes
from trl_hybrid.policy.source import PolicySource, default_dtype
from trl_hybrid.policy.transformers_sampler import TransformersSampler
from trl_hybrid.policy.vllm_sampler import VllmSampler, asked_length
from trl_hybrid.verifier import MathVerifier


ALONE, BESIDE = 0.9, 0.5
"""vLLM's share of the GPU's memory without and with a reward model."""


class Loader:
    """Loads what answers and what judges, each when it is first needed.

    transformers takes what it needs, so that the reward model comes first and keeps as much free. vLLM takes a share
    of the whole GPU, does not start where less is free, and keeps it: it comes first, and the reward model gets the
    rest.

    Args:
        args: The command line.
        settings: What it comes to.
        problems: All that will be answered, each with its `prompt`.
        verifier: Judges the answers.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        settings: EvalSettings,
        problems: Sequence[dict[str, Any]],
        verifier: MathVerifier,
    ) -> None:
        self.args, self.settings, self.problems, self.verifier = args, settings, problems, verifier

    def load(self, source: PolicySource, engine: ExitStack) -> tuple[Sampler, Judges]:
        """Load a policy, and the reward model unless it is there; an engine that must be ended ends with `engine`."""
        if self.args.backend == "vllm":
            sampler = engine.enter_context(self._vllm(source))
            return sampler, Judges(self.verifier, self.reward_model)
        judges = Judges(self.verifier, self.reward_model)
        return TransformersSampler(source, self.args.dtype), judges

    @cached_property
    def reward_model(self) -> Any:
        """The reward model; None where none is asked for."""
        judges, decoding = self.settings.judges, self.settings.decoding
        if judges is None:
            return None
        if self.args.backend == "vllm":
            return load_reward_model(judges)
        rows, dtype = self.args.batch_size * decoding.answers, named_dtype(self.args.dtype or default_dtype())
        needed = sampling_bytes(self.settings.model.base, rows, decoding.max_completion_length, dtype=dtype)
        return load_reward_model(judges, needed)

    def _vllm(self, source: PolicySource) -> VllmSampler:
        prompts = [problem["prompt"] for problem in self.problems]
        share = self.args.vllm_gpu_memory_utilization or (BESIDE if self.settings.judges else ALONE)
        length = self.args.vllm_max_model_length or asked_length(source, prompts, self.settings.decoding)
        return VllmSampler(source, self.args.dtype, share, length)
