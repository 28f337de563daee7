"""Rejection sampling: of a policy's own answers, the right ones become examples to learn from; or the golds do."""

from collections.abc import Sequence
from typing import Any

from trl_hybrid.errors import InputError


NEEDED = ("completion", "correct", "truncated", "boxed")


def check_samples(rows: Sequence[dict[str, Any]], name: str) -> None:
    """Refuse rows whose samples are not judged answers.

    Raises:
        InputError: A sample lacks a field; the message names the row.
    """
    for number, row in enumerate(rows, start=1):
        samples = row["samples"] if isinstance(row["samples"], list) else [None]
        for sample in samples:
            missing = [field for field in NEEDED if not isinstance(sample, dict) or field not in sample]
            if missing:
                raise InputError(
                    f"Each sample must have {', '.join(NEEDED)}, but one in row {number} of {name!r} has no "
                    f"{', '.join(missing)}. Give a samples.jsonl of this recipe or a rows.jsonl of `trl-hybrid eval`."
                )


def right_answers(row: dict[str, Any], most: int) -> list[str]:
    """Choose a problem's right answers: distinct and not cut off, those with a box first, then as they were sampled.

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


def gold_rows(problems: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    r"""Give each problem its gold, in a box, as the only answer.

    Example:
        >>> (row,) = gold_rows([{"prompt": [{"role": "user", "content": "2 + 2?"}], "solution": "4"}])
        >>> right_answers(row, most=1)
        ['\\boxed{4}']
    """
    judged = {"correct": True, "truncated": False, "boxed": True}
    return [{**row, "samples": [{"completion": f"\\boxed{{{row['solution']}}}", **judged}]} for row in problems]


def cold_start_examples(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Turn problems with right answers into TRL's prompt-completion examples, whose loss is on completions only."""
    return [
        {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": text}]}
        for row in rows
        for text in right_answers(row, most)
    ]
