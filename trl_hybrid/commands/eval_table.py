"""How `trl-hybrid eval` shows an evaluation in a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from trl_hybrid.data.task_report import GOLD_WIDTH, WIDTH, shortened


VERDICT_WORDS = {True: "right", False: "wrong", None: "cannot be judged"}

PROBLEMS_SHOWN = 3
"""Problems whose greedy answer is shown."""


def accuracy_lines(result: dict[str, Any]) -> Iterator[str]:
    """Lay out what `eval.json` holds for a terminal, in percent with 95 % intervals."""
    counted = result["counts"]
    decoding = result["settings"]["decoding"]
    yield (
        f"\n{counted['problems']} problems, {counted['unjudgeable']} of them cannot be judged; "
        f"{decoding['num_samples']} samples each at temperature {decoding['temperature']}; "
        f"{counted['truncated'] / max(counted['samples'], 1):.1%} of the samples were cut off at "
        f"{decoding['max_completion_length']} tokens"
    )
    blocks = [("", result["figures"])]
    if "base" in result:
        blocks = [("before", result["base"]["figures"]), ("after", result["figures"]), ("gain", result["difference"])]
    for verdict, meaning in (("lenient", "any form of answer"), ("strict", "in a box, compared as text")):
        yield ""
        yield f"{f'{verdict} ({meaning})':40}" + "".join(f"{title:>24}" for title, _ in blocks)
        for name in result["figures"][verdict]:
            if name != "pass@1":  # the mean of n
                cells = [_cell(figures[verdict].get(name), signed=title == "gain") for title, figures in blocks]
                yield f"  {_label(name):38}" + "".join(f"{cell:>24}" for cell in cells)


def answers(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Show the greedy answers to the first problems, and how they were judged."""
    yield f"\nThe first {min(PROBLEMS_SHOWN, len(rows))} problems, answered greedily:"
    for row in rows[:PROBLEMS_SHOWN]:
        greedy = row["greedy"]
        taken = "no answer" if greedy["answer"] is None else shortened(greedy["answer"], GOLD_WIDTH)
        yield f"  {shortened(row['prompt'][-1]['content'], WIDTH)}"
        yield f"      {shortened(greedy['completion'], WIDTH)}"
        yield f"      {VERDICT_WORDS[greedy['correct']]}: {taken} for {shortened(row['solution'], GOLD_WIDTH)}"


def _label(name: str) -> str:
    return f"{name.replace('_', ' ')}{' (pass@1)' if name.startswith('mean_of') else ''}"


def _cell(figure: dict[str, float | None] | None, signed: bool) -> str:
    if figure is None or figure["value"] is None:
        return "unknown"
    numbers = [f"{100 * (figure[part] or 0.0):{'+' if signed else ''}.1f}" for part in ("value", "low", "high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"
