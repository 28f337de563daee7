"""The completions as the page's browser reads them."""

import math
from typing import Any

import pandas as pd


# Column of the page: column of the table.
NUMBERS = {"score": "score", "reward": "hybrid_reward", "advantage": "advantage"}
TEXTS = {"reason": "reason", "gold": "gold", "answer": "extracted_answer", "completion": "completion"}

VERDICT_TEXTS = {1.0: "right", 0.0: "wrong"}
DECIMALS = 4


def page_rows(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Put the completions column by column, so that names are not repeated, each prompt once.

    Returns:
        Lists of JSON values of one length, and the different prompts: `prompt` counts in `prompts`.

    Example:
        >>> table = pd.DataFrame({"step": [1], "prompt": ["1 + 1?"], "completion": ["2"], "verdict": [1.0]})
        >>> rows = page_rows(table.assign(score=[0.123456]))
        >>> rows["prompts"], rows["prompt"], rows["verdict"], rows["score"], rows["reward"]
        (['1 + 1?'], [0], ['right'], [0.1235], [None])
    """
    if table.empty:
        return {"step": []}
    codes, prompts = pd.factorize(table["prompt"])
    return {
        "step": table["step"].tolist(),
        "prompt": codes.tolist(),
        "prompts": list(prompts),
        "verdict": verdicts(table).tolist(),
        "flag": [int(flag is True) for flag in _column(table, "disagreement")],
        **{name: [_number(value) for value in _column(table, own)] for name, own in NUMBERS.items()},
        **{name: [_text(value) for value in _column(table, own)] for name, own in TEXTS.items()},
    }


def verdicts(table: pd.DataFrame) -> pd.Series:
    """Say of each row whether it is right, wrong or not judged."""
    numbers = _column(table, "verdict" if "verdict" in table else "math_verifier")
    return pd.Series([VERDICT_TEXTS.get(number, "not judged") for number in numbers], table.index)


def _column(table: pd.DataFrame, name: str) -> list[Any]:
    return table[name].tolist() if name in table else [None] * len(table)


def _number(value: Any) -> float | None:
    return round(value, DECIMALS) if value is not None and math.isfinite(value) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
