"""A reward model's training without repeated prompts and without padding.

TRL forwards a pair as two rows, each with the problem, padded to the longest. Here the pairs of one problem come one
after the other, an answer that is in several of them is computed once, and so is what answers share at their start:
the problem. The scores are the same, and so are their gradients; sums are taken in another order.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import nn
from torch.utils.data import Sampler

from trl_hybrid.reward_model.packed_rows import pack_rows
from trl_hybrid.reward_model.plan import deduplicate, pack, rows_of, share_starts
from trl_hybrid.training.shared_prompts import TOLERANCE, computes_in, distance, why_not, without_dropout


logger = get_logger(__name__)


class ProblemsTogether(Sampler[int]):
    """Draw pairs so that those of one problem stand together; problems come in another order in each epoch.

    Args:
        problems: Each pair's problem.
        seed: Of the orders.

    Example:
        >>> list(ProblemsTogether([0, 1, 1], seed=1)), list(ProblemsTogether([0, 1, 1], seed=3))
        ([0, 1, 2], [1, 2, 0])
    """

    def __init__(self, problems: Sequence[int], seed: int) -> None:
        self.seed, self.epoch = seed, 0
        groups: dict[int, list[int]] = {}
        for place, problem in enumerate(problems):
            groups.setdefault(problem, []).append(place)
        self.groups = list(groups.values())

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch; accelerate's loader calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        # An order of each epoch's own, so that a resumed run sees the one that it would have seen.
        order = random.Random(f"{self.seed} {self.epoch}").sample(self.groups, len(self.groups))
        return chain.from_iterable(order)

    def __len__(self) -> int:
        return sum(map(len, self.groups))


class SharesStarts:
    """Mixin for a `trl.RewardTrainer` that computes what the rows of a batch share at their start once.

    The trainer calls `share_starts` once it is built. TRL's own way is taken for a model that this cannot serve, in
    evaluation, and where the first batch, computed both ways, is not the same.

    Attributes:
        shares_starts: Whether starts are shared; `None` until the first batch was computed both ways.
    """

    args: Any
    model: Any
    accelerator: Any
    train_dataset: Any
    shares_starts: bool | None = False

    def share_starts(self) -> None:
        """Share starts from here on where the model allows it; say why not elsewhere."""
        reason = why_not(self.accelerator.unwrap_model(self.model))
        if reason:
            logger.warning("shared_prompts: each problem is computed once an answer, since %s.", reason)
        self.shares_starts = False if reason else None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.shares_starts is False:
            return super()._get_train_sampler(train_dataset)  # pyright: ignore[reportAttributeAccessIssue]
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return ProblemsTogether(self.train_dataset["problem"], seed)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
        """Return TRL's loss, of scores that are computed as this class does where it can."""
        if self.model.training and self.shares_starts is None:
            self.shares_starts = self._both_ways_agree(model, inputs)
        if self.model.training and self.shares_starts:

            def packed(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SimpleNamespace:
                return SimpleNamespace(logits=packed_scores(model, input_ids, attention_mask))

            return super().compute_loss(packed, inputs, *more, **named)  # pyright: ignore[reportAttributeAccessIssue]
        return super().compute_loss(model, inputs, *more, **named)  # pyright: ignore[reportAttributeAccessIssue]

    def _both_ways_agree(self, model: Any, inputs: dict[str, Any]) -> bool:
        """Score the same rows both ways, on every process, and say whether they are the same on all of them."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        with without_dropout(model):
            expected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            try:
                found = packed_scores(model, ids, mask)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, TypeError) as error:  # how a kernel refuses a device, a number type or a shape
                logger.warning("shared_prompts: a packed row cannot be computed (%s).", str(error).partition("\n")[0])
                found = torch.full_like(expected, torch.inf)
        error = distance(found, expected, torch.ones_like(expected, dtype=torch.bool))
        worst = self.accelerator.gather(error).max().item()
        tolerance = TOLERANCE.get(computes_in(self.accelerator, model), TOLERANCE[torch.bfloat16])
        if worst <= tolerance:
            return True
        logger.warning(
            "shared_prompts: the first batch's scores must be those of rows alone, but are %.2g apart (root mean "
            "square; at most %.2g). Each problem is computed once an answer instead, which is slower.",
            worst, tolerance,
        )  # fmt: skip
        return False


def packed_scores(model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Score rows by one forward of one packed row, in which equal rows and shared starts are there once.

    Args:
        model: A causal transformer with a score head, one label; maybe wrapped. `let_segments_through` was asked for
            its attention.
        input_ids: Rows padded on the right, (rows, width).
        attention_mask: 0 for padding, same shape.

    Returns:
        Each row's score, at its last token, (rows, 1), with gradients.
    """
    lengths = attention_mask.sum(dim=1).tolist()
    rows, index = deduplicate([tuple(ids[:length]) for ids, length in zip(input_ids.tolist(), lengths, strict=True)])
    sizes = [len(row) for row in rows]
    (batch,) = pack(share_starts(rows, sum(sizes)), sizes, sum(sizes))
    packed = pack_rows(rows, batch).to(input_ids.device)
    scores: list[torch.Tensor] = []
    # The model itself gives the score of one token: the last of what is one row to it.
    with score_head(model).register_forward_hook(lambda _, __, output: scores.append(output[0, packed.last])):
        model(
            input_ids=packed.ids[None],
            position_ids=packed.positions[None],
            # One of four dimensions is handed on as it is: transformers would make one that nobody looks at.
            attention_mask=input_ids.new_zeros(1, 1, 1, 1),
            packing=packed.segments,
            use_cache=False,
        )
    place = {row: place for place, row in enumerate(rows_of(batch))}
    return scores[0][[place[row] for row in index]]


def score_head(model: nn.Module) -> nn.Module:
    """Find a classifier's head, within whatever wraps the model."""
    return next(module for name, module in model.named_modules() if name.rpartition(".")[2] == "score")
