"""Rejection sampling: of a policy's own answers, the right ones become examples to learn from."""

from collections.abc import Sequence
from typing import Any


def right_answers(row: dict[str, Any], most: int) -> list[str]:
    """Choose a problem's right answers: distinct and not cut off, those with a box first, then as they were sampled.

    Args:
        row: A problem with `samples`; see [`~trl_hybrid.sampling.Judges`].
        most: How many at most.

    Returns:
        Texts without white space at their ends.

    Example:
        >>> sample = {"correct": True, "truncated": False, "boxed": False}
        >>> texts = [sample | {"completion": text} for text in ("It is 4.", " It  is 4. ", "So 4.")]
        >>> right_answers({"samples": [*texts, sample | {"completion": "4", "boxed": True}]}, most=2)
        ['4', 'It is 4.']
    """
    right = [sample for sample in row["samples"] if sample["correct"] and not sample["truncated"]]
    distinct: dict[str, str] = {}
    for sample in sorted(right, key=lambda sample: not sample["boxed"]):
        distinct.setdefault(" ".join(sample["completion"].split()), sample["completion"].strip())
    return list(distinct.values())[:most]


def cold_start_examples(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Turn problems with right answers into TRL's prompt-completion examples, whose loss is on completions only.

    Args:
        rows: Problems with `prompt` (chat messages) and `samples`.
        most: Examples a problem at most.

    Returns:
        Rows of `prompt` and `completion`, chat messages both.
    """
    return [
        {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": text}]}
        for row in rows
        for text in right_answers(row, most)
    ]
