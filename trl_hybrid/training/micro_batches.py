"""Which rows of an optimizer step go into which of its micro-batches."""

from typing import Any

import torch


def keep_groups_together(batches: list[dict[str, Any]], window: int) -> list[dict[str, Any]]:
    """Put the rows of one prompt next to each other within each window of micro-batches.

    TRL shuffles a generation's rows before it cuts them into micro-batches, which scatters groups. All rows of a
    window belong to the same optimizer step, whose gradient is the sum over its rows: their order within it does not
    matter, but for the rounding of a sum. Rows keep their shuffled order otherwise: prompts by first appearance.

    Args:
        batches: Micro-batches of equal size as TRL buffers them: tensors and lists of one value a row, and scalars.
        window: Micro-batches that belong to one optimizer step; divides their number.
    """
    ordered: list[dict[str, Any]] = []
    for start in range(0, len(batches), window):
        chunk = batches[start : start + window]
        size = len(chunk[0]["prompt_ids"])
        prompts = [
            (tuple(ids), tuple(mask))
            for batch in chunk
            for ids, mask in zip(batch["prompt_ids"].tolist(), batch["prompt_mask"].tolist(), strict=True)
        ]
        first = {prompt: index for index, prompt in reversed(list(enumerate(prompts)))}
        order = sorted(range(len(prompts)), key=lambda row: first[prompts[row]])
        whole = {name: _joined([batch[name] for batch in chunk]) for name in chunk[0]}
        for begin in range(0, len(order), size):
            places = order[begin : begin + size]
            ordered.append({name: _rows_at(values, places) for name, values in whole.items()})
    return ordered


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], torch.Tensor) and parts[0].ndim:
        return torch.cat(parts)
    return [value for part in parts for value in part] if isinstance(parts[0], list) else parts[0]


def _rows_at(values: Any, places: list[int]) -> Any:
    if isinstance(values, torch.Tensor) and values.ndim:
        return values[places]
    return [values[place] for place in places] if isinstance(values, list) else values


def order_matters(args: Any) -> bool:
    """Say whether an optimizer step's gradient depends on which of its rows share a micro-batch.

    BNPO divides by a micro-batch's tokens, `top_entropy_quantile` compares its tokens, and the entropy bonus is a mean
    over them.
    """
    entropy_bonus = bool(args.entropy_coef) or args.use_adaptive_entropy
    return args.loss_type == "bnpo" or args.top_entropy_quantile < 1.0 or entropy_bonus
