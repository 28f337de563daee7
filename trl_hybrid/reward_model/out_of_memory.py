"""What is done when a device runs out of memory: fewer tokens at once, or words that name the fix."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.plan import Batch, Row, rows_of


logger = logging.getLogger(__name__)


class DoesNotFitError(InputError, torch.OutOfMemoryError):
    """A device's memory does not suffice; the message names what does."""


def score_what_fits(
    rows: Sequence[Row],
    pieces: Callable[[Sequence[Row]], Iterable[list[Batch]]],
    score: Callable[[Sequence[Row], list[Batch]], list[float] | None],
) -> list[float]:
    """Score rows piece by piece. After a piece that did not fit, what is done is kept and the rest is cut anew.

    Args:
        rows: Rows of at least one token.
        pieces: Cuts rows into pieces, each of one batch or several.
        score: Scores a piece, in the order of its rows. Where memory runs out it returns None, and makes sure that
            `pieces` gives smaller ones.

    Returns:
        One score per row, in the order of `rows`.
    """
    scores = [float("nan")] * len(rows)
    waiting = list(range(len(rows)))
    while waiting:
        left = [rows[row] for row in waiting]
        done = set()
        for piece in pieces(left):
            values = score(left, piece)
            if values is None:
                break
            for index, value in zip((row for batch in piece for row in rows_of(batch)), values, strict=True):
                scores[waiting[index]] = value
                done.add(index)
        waiting = [row for index, row in enumerate(waiting) if index not in done]
    return scores


def smaller_budget(
    token_budget: int, tokens: int, rows: int, device: torch.device, error: torch.OutOfMemoryError
) -> int:
    """Return half the tokens of a forward that ran out of memory, and say so.

    Raises:
        DoesNotFitError: It held one row only.
    """
    if rows == 1:
        raise DoesNotFitError(
            f"A row must fit on {device} beside the policy, but one of {tokens} tokens does not. "
            "Lower the reward model's `max_length`, or place the reward model elsewhere."
        ) from error
    smaller = max(1, min(token_budget, tokens) // 2)
    logger.warning(
        "The reward model ran out of memory on %s with %d tokens in one forward: the token budget is %d now.",
        device,
        tokens,
        smaller,
    )
    return smaller


@contextmanager
def loading_into(placement: str, device: torch.device, name: str) -> Iterator[None]:
    """Say what to do where a reward model does not fit on its device.

    Raises:
        DoesNotFitError: With the fix, in place of one without.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        elsewhere = "`streamed`, `zero3` or `cpu`" if placement == "resident" else "`cpu`"
        raise DoesNotFitError(
            f"The reward model {name!r} must fit on {device} beside what is there already, but placed `{placement}` "
            f"it does not. Place it {elsewhere}, free the device, or take a smaller reward model; `trl-hybrid plan` "
            f"shows what each placement needs. The cause: {str(error).splitlines()[0] if str(error) else 'not told'}"
        ) from error
