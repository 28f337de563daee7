"""How `trl-hybrid eval` shows an evaluation in a terminal."""

from collections.abc import Iterator
from typing import Any


def table(result: dict[str, Any]) -> Iterator[str]:
    """Lay out an evaluation for a terminal, in percent with 95 % intervals.

    Args:
        result: What `eval.json` holds.
    """
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


def _label(name: str) -> str:
    return f"{name.replace('_', ' ')}{' (pass@1)' if name.startswith('mean_of') else ''}"


def _cell(figure: dict[str, float | None] | None, signed: bool) -> str:
    if figure is None or figure["value"] is None:
        return "unknown"
    numbers = [f"{100 * (figure[part] or 0.0):{'+' if signed else ''}.1f}" for part in ("value", "low", "high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"
