"""What every placement of the weights offers, and loading a model into one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedConfig

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.footprint import Need, default_tokens
from trl_hybrid.reward_model.forwards import choose_forward
from trl_hybrid.reward_model.host_memory import keep_freed_memory
from trl_hybrid.reward_model.loading import Source, checkpoint_dtype, load_model, split_model, whole_weights
from trl_hybrid.reward_model.out_of_memory import loading_into
from trl_hybrid.reward_model.placement import PlacementSetting, body_dtype, local_device, resolve_placement
from trl_hybrid.reward_model.plan import Row
from trl_hybrid.reward_model.resident import ResidentModel
from trl_hybrid.reward_model.streamed import load_streamed
from trl_hybrid.reward_model.zero3 import load_zero3


class ScoringBackend(Protocol):
    """Where the weights live, behind one method."""

    device: torch.device
    token_budget: int

    def score(self, rows: Sequence[Row]) -> list[float]:
        """Score rows of token ids.

        Args:
            rows: Distinct rows of at least one token; may be empty.

        Returns:
            One raw score per row, in the same order, NaN and infinities as they come.
        """
        ...


@dataclass(frozen=True)
class BackendOptions:
    """How to load a model into its place.

    Attributes:
        placement: "resident", "streamed", "zero3" or "cpu".
        device: Where rows are computed, except in the placement "cpu".
        dtype: Type of the body's weights as the user gave it; see `body_dtype`.
        checkpoint_dtype: What "auto" stands for.
        token_budget: Bound on a forward's computed tokens, None for the default.
        deepspeed_config: For "zero3": DeepSpeed configuration or the path of its JSON file, None for the shipped one.
        quantization_config: For transformers as it is; "resident" only.
        quantized: Whether the checkpoint's own weights are quantized; "resident" only.

    Raises:
        InputError: A budget without a token, or quantized weights that would have to move.
    """

    placement: str
    device: torch.device
    dtype: torch.dtype | str | None = None
    checkpoint_dtype: torch.dtype | None = None
    token_budget: int | None = None
    deepspeed_config: str | Path | dict[str, Any] | None = None
    quantization_config: Any = None
    quantized: bool = False

    def __post_init__(self) -> None:
        if self.token_budget is not None and self.token_budget < 1:
            raise InputError(f"`token_budget` must be at least 1 token, but got {self.token_budget}.")
        if (self.quantized or self.quantization_config is not None) and self.placement != "resident":
            raise InputError(
                f"A quantized reward model stays on its GPU, but its placement is {self.placement!r}. Place it "
                "`resident`, or use weights that are not quantized."
            )

    @property
    def compute_device(self) -> torch.device:
        """Where rows are computed."""
        return torch.device("cpu") if self.placement == "cpu" else self.device

    @property
    def body_dtype(self) -> torch.dtype:
        """Type of the body's weights."""
        return body_dtype(self.dtype, self.compute_device, self.checkpoint_dtype)

    @property
    def tokens(self) -> int:
        """Bound on a forward's computed tokens."""
        return self.token_budget or default_tokens(self.placement, self.compute_device)


def resolve_options(
    source: Source,
    config: PreTrainedConfig,
    placement: PlacementSetting,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    token_budget: int | None,
    reserved_memory: Need | int,
    deepspeed_config: str | Path | dict[str, Any] | None,
    quantization_config: Any,
) -> BackendOptions:
    """Decide what the settings leave open: where the weights go. They are those of [`RewardModel`].

    Raises:
        InputError: As for `resolve_placement` and [`BackendOptions`].
    """
    device = local_device() if device is None else torch.device(device)
    stored = checkpoint_dtype(config)
    quantized = getattr(config, "quantization_config", None) is not None
    if placement == "auto" and device.type != "cpu" and (quantized or quantization_config is not None):
        placement = "resident"  # quantized weights cannot move, and are smaller than what `auto` would count
    counted = None if dtype is None else body_dtype(dtype, device, stored)
    trusted = source.trust_remote_code
    resolved = resolve_placement(
        placement, device, config, counted, token_budget, reserved_memory, trusted, deepspeed_config
    )
    return BackendOptions(
        resolved, device, dtype, stored, token_budget, deepspeed_config, quantization_config, quantized
    )


def load_backend(
    source: Source, config: PreTrainedConfig, options: BackendOptions, samples: Sequence[Row]
) -> ScoringBackend:
    """Load a reward model into its place.

    Raises:
        DoesNotFitError: It does not fit there; the message names what does.
    """
    if options.compute_device.type == "cpu":
        keep_freed_memory()
    with loading_into(options.placement, options.compute_device, source.name):
        return _load(source, config, options, samples)


def _load(source: Source, config: PreTrainedConfig, options: BackendOptions, samples: Sequence[Row]) -> ScoringBackend:
    device, dtype = options.compute_device, options.body_dtype
    if options.placement == "zero3":
        return load_zero3(source, dtype, device, options.tokens, samples, options.deepspeed_config)
    if options.placement == "streamed":
        return load_streamed(source, config, dtype, device, options.tokens, samples)
    with whole_weights():
        model = load_model(source, dtype, device, options.quantization_config)
    body, head = split_model(model)
    return ResidentModel(choose_forward(body, head.float(), samples), device, options.tokens)
