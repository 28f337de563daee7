"""What the judges' verdicts come to: a table by source, and the list of disagreements."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from agreement.rows import Row

from trl_hybrid.verifier import Verdict


ALL = "all"
END = 200  # characters of a completion that the list of disagreements shows


def summarize(rows: Sequence[Row], verdicts: Mapping[str, Sequence[bool]]) -> dict[str, dict[str, Any]]:
    """By source, and for all: the rows, and each judge's agreement in [0, 1], wrong accepts and wrong refusals."""
    sources: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        sources[row.source.split(":tests")[0]].append(index)
    groups = [*sorted(sources.items()), (ALL, list(range(len(rows))))]
    return {
        source: {"rows": len(own), "judges": {name: _counts(rows, found, own) for name, found in verdicts.items()}}
        for source, own in groups
    }


def _counts(rows: Sequence[Row], found: Sequence[bool], indices: Sequence[int]) -> dict[str, float]:
    accepts = sum(found[index] and not rows[index].expected for index in indices)
    refusals = sum(rows[index].expected and not found[index] for index in indices)
    agreement = 1 - (accepts + refusals) / len(indices)
    return {"agreement": round(agreement, 5), "wrong_accepts": accepts, "wrong_refusals": refusals}


def table(summary: Mapping[str, dict[str, Any]]) -> list[str]:
    """One line a source: agreement (wrong accepts, wrong refusals) of each judge."""
    names = list(summary[ALL]["judges"])
    lines = [f"{'source':48}{'rows':>6}" + "".join(f"{name:>24}" for name in names)]
    for source, group in summary.items():
        cells = [
            f"{own['agreement']:.2%} ({own['wrong_accepts']}, {own['wrong_refusals']})"
            for own in group["judges"].values()
        ]
        lines.append(f"{source[:47]:48}{group['rows']:>6}" + "".join(f"{cell:>24}" for cell in cells))
    return [*lines, "In brackets: wrong accepts, wrong refusals, by the sources' labels."]


def disagreements(
    rows: Sequence[Row], verdicts: Sequence[Verdict], rivals: Mapping[str, Sequence[bool]]
) -> list[dict[str, Any]]:
    """The rows on which this verifier and the label differ, with its reasons and what the rivals say."""
    return [
        {
            "source": row.source,
            "expected": row.expected,
            "correct": verdict.correct,
            "gold": row.gold,
            "answer": verdict.parsed_answer,
            "reason": verdict.reason,
            "form": verdict.form,
            "rivals": {name: found[index] for name, found in rivals.items()},
            "end": row.completion[-END:],
        }
        for index, (row, verdict) in enumerate(zip(rows, verdicts, strict=True))
        if (verdict.correct is True) != row.expected
    ]
