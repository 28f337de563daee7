"""The reward model as the package and TRL see it: prompts and completions in, raw scores out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.backend import ScoringBackend, load_backend, resolve_options
from trl_hybrid.reward_model.cache import ScoreCache
from trl_hybrid.reward_model.first_scores import check_scores, worked_rows
from trl_hybrid.reward_model.footprint import Need
from trl_hybrid.reward_model.forwards import agree, score_tolerance
from trl_hybrid.reward_model.loading import Source, load_config, load_tokenizer, longest_row
from trl_hybrid.reward_model.messages import Conversation
from trl_hybrid.reward_model.placement import PlacementSetting
from trl_hybrid.reward_model.plan import Row, deduplicate
from trl_hybrid.reward_model.presets import ACEMATH_SYSTEM_PROMPT, find_preset, known_licence, licence_note
from trl_hybrid.reward_model.prompts import RenderedRow, RowRenderer
from trl_hybrid.reward_model.server import connect, served_dtype
from trl_hybrid.reward_model.server_address import asked_servers


logger = logging.getLogger(__name__)

PRESET = "preset"
"""Value of `system_prompt` that asks for the one of a known model's card."""


class RewardModel:
    """A one-label sequence-classification model that scores solutions; also a TRL reward function.

    It is no `nn.Module`: handed to TRL, a module would see the policy's system prompt, and be placed, padded and
    sharded as the policy is. Its scores are raw: unbounded, NaN and infinities included, for the caller to decide.

    Args:
        model_name_or_path: Hub id or local folder. Only safetensors weights are read.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether the repository's own Python code may run.
        dtype: Type of the body's weights; the score head is always fp32. Default: bf16 on a GPU, fp32 on a CPU.
        device: Where rows are computed. Default: this process's accelerator, or the CPU.
        placement: Where the weights live. "resident": on the device. "streamed": in pinned host memory, a layer at a
            time on the device (Qwen2, Qwen3 and Llama types). "zero3": in host memory, shared by all processes, under
            a DeepSpeed configuration of its own; all processes must then score together. "cpu": in host memory, and
            the rows are computed there. "auto": the first of resident, streamed and cpu that fits;
            quantized weights are always resident. "server": behind `server_urls`.
        reserved_memory: For "auto": bytes of the device's free memory that others will still take; as a `Need`, what
            passes of it is there for scoring in turn.
        deepspeed_config: For "zero3": DeepSpeed configuration or the path of its JSON file. Default:
            `accelerate_configs/deepspeed/rm_zero3_offload.json`.
        quantization_config: For transformers' `from_pretrained` as it is; only for weights that are resident.
        system_prompt: The reward model's own system prompt. Default: that of a known model's card, otherwise none.
            None or an empty string: none.
        max_length: Most tokens of a row; the model's positions bound it too. A longer row keeps its question and the
            end of its solution.
        token_budget: Most computed tokens of one forward. A longer row goes alone. Default: 16384 on a GPU (8192
            streamed) and 1024 on a CPU. With servers, of one request: 4096.
        cache_size: Rows whose scores are remembered. 0 scores every row anew.
        server_urls: Addresses of vLLM or SGLang servers of this model, which share the rows; then only its
            configuration and its tokenizer are loaded. `trl-hybrid serve-command` prints how to start one.
        server_timeout: Seconds that one request to a server may take; all rows of a call may take five times that.

    Raises:
        RewardModelNotFoundError: The files cannot be had.
        InputError: They are no reward model, the model or a server of it fails its preflight, or the placement is
            unknown or not to be had.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        system_prompt: str | None = PRESET,
        max_length: int | None = None,
        token_budget: int | None = None,
        cache_size: int = 65536,
        placement: PlacementSetting = "auto",
        reserved_memory: Need | int = 0,
        deepspeed_config: str | Path | dict[str, Any] | None = None,
        quantization_config: Any = None,
        server_urls: str | Sequence[str] | None = None,
        server_timeout: float = 120.0,
    ) -> None:
        self.__name__ = "reward_model"  # TRL logs the scores under this name
        self.model_name_or_path = str(model_name_or_path)
        _tell_licence(self.model_name_or_path, licence_note(known_licence(self.model_name_or_path)))
        if system_prompt == PRESET:
            preset = find_preset(self.model_name_or_path)
            system_prompt = None if preset is None else preset.system_prompt
        source = Source(self.model_name_or_path, revision, trust_remote_code)
        config = load_config(source)
        self.renderer = RowRenderer(load_tokenizer(source), system_prompt, longest_row(config, max_length))
        self.cache = ScoreCache(cache_size)

        if urls := asked_servers(placement, server_urls, quantization_config):
            self.placement, number_type = "server", served_dtype(dtype, config)
            self.backend: ScoringBackend = connect(
                urls, source, self.renderer, number_type, token_budget, server_timeout
            )
        else:
            options = resolve_options(
                source, config, placement, device, dtype, token_budget, reserved_memory, deepspeed_config,
                quantization_config,
            )  # fmt: skip
            self.placement, number_type = options.placement, options.body_dtype
            self.backend = load_backend(source, config, options, worked_rows(self.renderer))
        self.tolerance = score_tolerance(number_type)
        self.identity = [self.model_name_or_path, revision, "served" if urls else str(number_type)]
        self.preflight()

    def compute_reward(self, prompt: Conversation, completion: Conversation) -> float:
        """Score one completion to a prompt, each as text or chat messages; see [`compute_batch_reward`]."""
        return self([prompt], [completion])[0]

    def compute_batch_reward(
        self, prompt: Conversation | Sequence[Conversation], completions: Sequence[Conversation]
    ) -> list[float]:
        """Score many completions.

        Args:
            prompt: One prompt (text or messages) for all completions, or a list with one prompt per completion.
            completions: Solutions as text or as chat messages.

        Returns:
            One raw score per completion.
        """
        one_for_all = isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], dict))
        return self([prompt] * len(completions) if one_for_all else prompt, completions)  # pyright: ignore[reportArgumentType]

    def __call__(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[Conversation],
        *,
        completion_truncated: Sequence[bool] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float]:
        """Score completions as TRL asks reward functions to.

        Args:
            prompts: One prompt per completion.
            completions: Solutions as text or as chat messages.
            completion_truncated: Whether a completion was cut off by the length limit. Default: none was.
            log_metric: TRL's logger of scalars. It gets the rows shortened to fit and the scores that are not finite.
            **kwargs: What else TRL passes; not used.

        Returns:
            One raw score per completion.
        """
        cut_off = [False] * len(completions) if completion_truncated is None else list(completion_truncated)
        if not len(prompts) == len(completions) == len(cut_off):
            raise InputError(
                f"Every completion needs one prompt and one mark of truncation, but got {len(prompts)} prompts, "
                f"{len(completions)} completions and {len(cut_off)} marks."
            )
        rows = self.renderer.render(prompts, completions, cut_off)
        scores = self._score([row.ids for row in rows])
        self._report(rows, scores, log_metric)
        return scores

    def preflight(self) -> None:
        """Check the loaded model on two short solutions; see `check_scores`."""
        preset = find_preset(self.model_name_or_path)
        # A folder may hold anything under a known name, a shrunken model for a test as well.
        published = not Path(self.model_name_or_path).is_dir()
        prefers_solutions = published and preset is not None and preset.prefers_solutions
        self.first_scores = check_scores(
            self.model_name_or_path, self.renderer, self.backend, self.tolerance, prefers_solutions
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to give the very same scores, as JSON's types.

        A score's last bits depend on the batch that it was computed in (some 1e-7 in fp32), so a remembered one and
        one computed anew may differ there.
        """
        return {"model": self.identity, "first_scores": self.first_scores, "scores": self.cache.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`. Scores of another model, or of other weights under its name, are not taken over.

        Weights are known again by their scores of two rows; where one is not finite, by the name alone.
        """
        then = state.get("first_scores", self.first_scores)
        comparable = all(map(isfinite, (*then, *self.first_scores)))
        if state["model"] != self.identity:
            logger.warning(
                "The saved scores are of the reward model %s and not taken over by %s.", state["model"], self.identity
            )
        elif comparable and not agree(self.first_scores, then, self.tolerance):
            logger.warning(
                "The reward model %r is not the one that it was: it gave %s to two known rows and gives %s now. The "
                "saved scores are not taken over, and the run's bounds and running means are in the old one's units.",
                self.model_name_or_path, then, self.first_scores,
            )  # fmt: skip
        else:
            self.cache.load_state_dict(state["scores"])

    def _score(self, rows: Sequence[Row]) -> list[float]:
        """Score each distinct row that is not remembered once."""
        distinct, index = deduplicate(rows)
        known = [self.cache.get(row) for row in distinct]
        missing = [row for row, score in zip(distinct, known, strict=True) if score is None]
        fresh = self.backend.score(missing)  # also without rows: other processes may have some and wait
        for row, score in zip(missing, fresh, strict=True):
            self.cache.put(row, score)
        remaining = iter(fresh)
        scores = [next(remaining) if score is None else score for score in known]
        return [scores[slot] for slot in index]

    def _report(
        self, rows: Sequence[RenderedRow], scores: Sequence[float], log_metric: Callable[[str, float], None] | None
    ) -> None:
        shortened = sum(row.shortened for row in rows)
        nonfinite = sum(not isfinite(score) for score in scores)
        if nonfinite:
            logger.warning(
                "The reward model %r gave %d of %d scores that are not finite.",
                self.model_name_or_path,
                nonfinite,
                len(scores),
            )
        if log_metric is not None:
            log_metric("reward_model/truncated_rows", float(shortened))
            log_metric("reward_model/nonfinite_rows", float(nonfinite))

    def __deepcopy__(self, memo: dict[int, Any]) -> RewardModel:
        """Return itself: gigabytes of frozen weights are shared, not copied."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_name_or_path!r})"


class AceRewardModel(RewardModel):
    """NVIDIA's AceMath reward model, with its card's system prompt.

    NVIDIA's weights are licensed CC-BY-NC-4.0 (non-commercial use only), see
    https://huggingface.co/nvidia/AceMath-7B-RM; what a folder holds its own card says.

    Args:
        model_name_or_path: Hub id or local copy of AceMath-7B-RM or AceMath-72B-RM.
        system_prompt: The reward model's own system prompt. Default: the card's.
        **kwargs: As for `RewardModel`.
    """

    def __init__(
        self,
        model_name_or_path: str = "nvidia/AceMath-7B-RM",
        *,
        system_prompt: str | None = ACEMATH_SYSTEM_PROMPT,
        **kwargs: Any,
    ) -> None:
        if system_prompt == PRESET:
            system_prompt = ACEMATH_SYSTEM_PROMPT
        super().__init__(model_name_or_path, system_prompt=system_prompt, **kwargs)


@cache
def _tell_licence(name: str, note: str) -> None:
    if note and os.environ.get("RANK", "0") == "0":  # once, whatever the number of processes
        logger.warning("The reward model %r: %s.", name, note)
