"""Rows that share prompts, as one packed row without repeats and without padding, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trl_hybrid.packing.segments import Segments, Span


IGNORED = -100
"""The label of a token whose log-probability is not asked for."""

Row = tuple[list[int], list[int]]
"""Token ids of a prompt and of its completion."""


@dataclass(frozen=True)
class SharedRows:
    """Rows of a micro-batch as one packed row of T tokens, and where what is asked for is found in it.

    Attributes:
        ids: Token ids, shape (1, T).
        positions: Each token's position in its own row, shape (1, T).
        labels: The token that each one is to predict, `IGNORED` within prompts, shape (1, T).
        segments: Who sees whom.
        source: Places in the packed row of the tokens that predict a completion's, shape (n,).
        target: Places of the same in the flattened (rows, width) result, shape (n,).
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    segments: Segments
    source: torch.Tensor
    target: torch.Tensor

    def spread(self, values: torch.Tensor, rows: int, width: int) -> torch.Tensor:
        """Put what was found for each packed token, shape (1, T), where TRL wants it: (rows, width), 0 elsewhere."""
        flat = values.new_zeros(rows * width).index_copy(0, self.target, values[0].index_select(0, self.source))
        return flat.view(rows, width)


def lay_out(rows: Sequence[Row], width: int, device: torch.device) -> SharedRows | None:
    """Lay the rows of a micro-batch out in one packed row, a prompt that several share once.

    Args:
        rows: Prompts of at least one token; a completion may be empty and is left out.
        width: Of the result, at least the longest completion.
        device: Where the policy is.

    Returns:
        The packed row, `None` where no completion has a token.
    """
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    own: list[Span] = []
    shared: list[Span] = []
    source: list[int] = []
    target: list[int] = []

    def add(tokens: list[int], start: Span, following: list[int]) -> None:
        begin, first = len(ids), start[1] - start[0]
        ids.extend(tokens)
        positions.extend(range(first, first + len(tokens)))
        labels.extend([IGNORED] * (len(tokens) - len(following)) + following)
        own.append((begin, len(ids)))
        shared.append(start)

    for prompt, members in members_by_prompt(rows).items():
        seen = list(prompt[:-1]) if len(members) > 1 else []
        start = (len(ids), len(ids) + len(seen))
        if seen:
            add(seen, (0, 0), [])
        for row in members:
            completion = rows[row][1]
            add([*prompt[len(seen) :], *completion[:-1]], start, completion)
            source.extend(range(len(ids) - len(completion), len(ids)))
            target.extend(range(row * width, row * width + len(completion)))
    if not ids:
        return None
    return SharedRows(
        ids=torch.tensor([ids], device=device),
        positions=torch.tensor([positions], device=device),
        labels=torch.tensor([labels], device=device),
        segments=Segments(tuple(own), tuple(shared), device),
        source=torch.tensor(source, device=device),
        target=torch.tensor(target, device=device),
    )


def members_by_prompt(rows: Sequence[Row]) -> dict[tuple[int, ...], list[int]]:
    """Return which rows with a completion have each prompt, both in order of first appearance.

    Example:
        >>> members_by_prompt([([1], [5]), ([2], [6]), ([1], [7, 8]), ([2], [])])
        {(1,): [0, 2], (2,): [1]}
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for row, (prompt, completion) in enumerate(rows):
        if completion:
            members.setdefault(tuple(prompt), []).append(row)
    return members


def read_rows(input_ids: torch.Tensor, attention_mask: torch.Tensor, width: int) -> list[Row] | None:
    """Take TRL's padding off: prompts are padded on the left, completions on the right.

    Args:
        input_ids: Prompts and completions, shape (rows, prompt width + width).
        attention_mask: 0 for padding, same shape.
        width: Of the completions.

    Returns:
        The rows, `None` where padding is elsewhere or a prompt is empty.
    """
    rows = []
    for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
        prompt, completion = sum(mask[:-width]), sum(mask[-width:])
        whole = mask[:-width][-prompt:] + mask[-width:][:completion]
        if not prompt or not all(whole):
            return None
        edge = len(ids) - width
        rows.append((ids[edge - prompt : edge], ids[edge : edge + completion]))
    return rows
