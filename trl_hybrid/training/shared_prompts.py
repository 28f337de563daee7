"""The policy's generation and update without repeated prompts, and the update without padding.

TRL forwards a group's prompt once for each completion, and pads every row to the longest. Here the completions of one
prompt follow it in one packed row: the prompt but its last token once, then for each completion the prompt's last
token again and the completion but its last, each seeing the prompt and itself, at the positions that it would have
alone. The log-probabilities are the same, and so are their gradients; sums are taken in another order.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import gcd
from typing import Any

import torch
from accelerate.logging import get_logger
from peft import PeftModel
from torch import nn
from transformers.integrations import is_deepspeed_zero3_enabled

from trl_hybrid.packing.attention import can_pack, let_segments_through
from trl_hybrid.policy.shared_prefill import prompts_prefilled_once
from trl_hybrid.training.micro_batches import keep_groups_together, order_matters
from trl_hybrid.training.shared_rows import lay_out, read_rows


logger = get_logger(__name__)

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""How far the log-probabilities of the two ways may be apart, as their root mean square over tokens, by dtype."""


class SharesPrompts:
    """Mixin for a `trl.GRPOTrainer` that computes each prompt once for all its completions in a micro-batch.

    The trainer calls `share_prompts` once it is built. TRL's own way is taken for a policy that this cannot serve, for
    rows with images, and where the first batch, computed both ways, is not the same.

    Attributes:
        shares_prompts: Whether prompts are shared; `None` until the first batch was computed both ways.
    """

    args: Any
    model: Any
    accelerator: Any
    ref_model: Any
    model_wrapped: Any
    is_fsdp_enabled: bool
    shares_prompts: bool | None = False
    _step: int
    _buffered_inputs: list[dict[str, Any]] | None

    def share_prompts(self) -> None:
        """Share prompts from here on where the policy, and the reference model, allow it; say why not elsewhere."""
        models = [self.model] if self.ref_model is None else [self.model, self.ref_model]
        reasons = [reason for model in models if (reason := why_not(self.accelerator.unwrap_model(model)))]
        if reasons:
            logger.warning("shared_prompts: each prompt is computed once a completion, since %s.", reasons[0])
        self.shares_prompts = False if reasons else None

    def _generate_single_turn(self, *arguments: Any, **more: Any) -> Any:
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with prompts_prefilled_once(model) if self._generates_alone() else nullcontext():
            return super()._generate_single_turn(*arguments, **more)  # pyright: ignore[reportAttributeAccessIssue]

    def _generates_alone(self) -> bool:
        """Say whether prompts are shared, and no other process waits for as many forwards as its own rows take."""
        sharded = is_deepspeed_zero3_enabled() and not self.args.ds3_gather_for_generation
        return bool(getattr(self.args, "shared_prompts", False)) and not sharded and not self.is_fsdp_enabled

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = self._buffered_inputs
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)  # pyright: ignore[reportAttributeAccessIssue]
        if self.shares_prompts is False or not self.model.training or self._buffered_inputs is before:
            return inputs
        assert self._buffered_inputs is not None
        if not order_matters(self.args) and "pixel_values" not in inputs:
            # What divides both belongs to one optimizer step, however generations and steps lie to each other.
            window = gcd(self.args.gradient_accumulation_steps, self.args.steps_per_generation)
            self._buffered_inputs = keep_groups_together(self._buffered_inputs, window)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    # What a newer TRL gives besides is handed on.
    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        rows = (input_ids, attention_mask, logits_to_keep)
        batch_size = batch_size or len(input_ids)
        plain = compute_aux_loss or any(value is not None for value in images.values())
        if not plain and self.shares_prompts is None:
            self.shares_prompts = self._both_ways_agree(
                model, input_ids[:batch_size], attention_mask[:batch_size], logits_to_keep
            )
        if plain or not self.shares_prompts:
            return self._plainly(model, *rows, batch_size, compute_entropy, compute_aux_loss, **images)
        parts = [
            self._packed(model, ids, mask, logits_to_keep, compute_entropy)
            for ids, mask in zip(input_ids.split(batch_size), attention_mask.split(batch_size), strict=True)
        ]
        log_probs, entropies = zip(*parts, strict=True)
        return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None

    def _plainly(self, *arguments: Any, **images: Any) -> Any:
        return super()._get_per_token_logps_and_entropies(*arguments, **images)  # pyright: ignore[reportAttributeAccessIssue]

    def _packed(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, width: int, compute_entropy: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return log-probabilities and, if asked for, entropies of the completions' tokens, both (rows, width)."""
        rows = read_rows(ids, mask, width)
        packed = None if rows is None else lay_out(rows, width, ids.device)
        if packed is None:
            return self._plainly(model, ids, mask, width, None, compute_entropy)[:2]
        with self.accelerator.autocast():
            output = model(
                input_ids=packed.ids,
                position_ids=packed.positions,
                # One of four dimensions is handed on as it is: transformers would make one that nobody looks at.
                attention_mask=ids.new_zeros(1, 1, 1, 1),
                packing=packed.segments,
                shift_labels=packed.labels,
                fused_lm_head=True,
            )
        log_probs = packed.spread(output.log_probs, len(ids), width)
        return log_probs, packed.spread(output.entropy, len(ids), width) if compute_entropy else None

    def _both_ways_agree(self, model: Any, ids: torch.Tensor, mask: torch.Tensor, width: int) -> bool:
        """Compute the same rows both ways, on every process, and say whether they are the same on all of them."""
        with without_dropout(model):
            expected, *_ = self._plainly(model, ids, mask, width)
            try:
                found, _ = self._packed(model, ids, mask, width)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, TypeError) as error:  # how a kernel refuses a device, a number type or a shape
                logger.warning("shared_prompts: a packed row cannot be computed (%s).", str(error).partition("\n")[0])
                found = torch.full_like(expected, torch.inf)
        error = distance(found, expected, mask[:, -width:].bool())
        worst = self.accelerator.gather(error).max().item()
        dtype = computes_in(self.accelerator, model)
        tolerance = TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])
        if worst <= tolerance:
            return True
        logger.warning(
            "shared_prompts: the first batch's log-probabilities must be those of rows alone, but are %.2g apart "
            "(root mean square; at most %.2g in %s). Each prompt is computed once a completion instead, which is "
            "slower. Check the versions of torch and transformers, or set shared_prompts to false.",
            worst, tolerance, str(dtype).removeprefix("torch."),
        )  # fmt: skip
        return False


def computes_in(accelerator: Any, model: Any) -> torch.dtype:
    """Return the number type in which an accelerator lets a model compute: mixed precision's, or the weights' own."""
    device = accelerator.device.type
    with accelerator.autocast():
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
    return accelerator.unwrap_model(model).dtype


def distance(found: torch.Tensor, expected: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of the differences where they are asked for, infinite where one is not a number."""
    error = (found - expected)[asked].float()
    return (error.square().sum() / max(1, len(error))).sqrt().nan_to_num(nan=torch.inf, posinf=torch.inf)


def why_not(model: nn.Module) -> str | None:
    """Say why a policy's prompts cannot be shared, `None` where they can."""
    config: Any = model.config
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return "the adapter puts tokens of its own before each row"
    if not can_pack(config):
        return f"layers of the type {config.model_type!r} may see other rows by more than full attention"
    if getattr(config, "attention_dropout", 0.0):
        return f"attention has a dropout ({config.attention_dropout})"
    if not let_segments_through(config._attn_implementation):
        return f"attn_implementation {config._attn_implementation!r} is the model's own"
    return None


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Compute a model's outputs as in evaluation, without gradients; leave every module's mode as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
