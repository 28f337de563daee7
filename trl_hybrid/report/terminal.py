"""What a run shows in the terminal: a line a step, accuracies side by side, a few completions."""

import textwrap
from typing import Any

import pandas as pd

from trl_hybrid.judges import JudgeNames


def step_line(step: int, logs: dict[str, Any]) -> str:
    """Put the parts of the reward on one line.

    >>> logs = {"hybrid/pass_rate": 0.25, "rewards/reward_model/mean": -1.5, "rewards/hybrid_reward/mean": 0.24}
    >>> step_line(5, logs | {"hybrid/mixed_groups": 0.5, "completions/mean_length": 40.2, "step_time": 2.44})
    'step    5 | right  25 % | RM score  -1.50 | hybrid reward  0.240 | mixed groups  50 % | 40 tokens | 2.4 s'
    >>> step_line(6, dict.fromkeys(logs) | {"hybrid/mixed_groups": 0.0, "completions/mean_length": 40.2})
    'step    6 | right    - | RM score      - | hybrid reward      - | mixed groups   0 % | 40 tokens | - s'

    Another reward model has its own name:

    >>> own = {"judges/reward_model/brevity": 1.0, "rewards/brevity/mean": 4.0, "hybrid/mixed_groups": 0.5}
    >>> step_line(7, logs | own | {"completions/mean_length": 40.2})[:44]
    'step    7 | right  25 % | brevity   4.00 | h'
    """
    right, mixed = _share(logs["hybrid/pass_rate"]), _share(logs["hybrid/mixed_groups"])
    name = JudgeNames.among(logs).reward_model
    score, reward = (logs[f"rewards/{of}/mean"] for of in (name, "hybrid_reward"))
    label = "RM score" if name == JudgeNames().reward_model else name
    return (
        f"step {step:4d} | right {right} | {label} {_number(score, 6, 2)} | hybrid reward {_number(reward, 6, 3)} | "
        f"mixed groups {mixed} | {_number(logs['completions/mean_length'], 0, 0)} tokens | "
        f"{_number(logs.get('step_time'), 0, 1)} s"
    )


def cold_start_line(step: int, logs: dict[str, Any]) -> str:
    """Put the loss of supervised learning on one line.

    >>> cold_start_line(5, {"loss": 0.71234, "mean_token_accuracy": 0.8125, "epoch": 0.5})
    'step    5 | loss  0.712 | tokens predicted  81 %'
    """
    return f"step {step:4d} | loss {logs['loss']:6.3f} | tokens predicted {_share(logs.get('mean_token_accuracy'))}"


def _share(value: float | None) -> str:
    return "   -" if value is None else f"{100 * value:3.0f} %"


def _number(value: float | None, width: int, digits: int) -> str:
    """Format a metric; TRL logs `None` where nothing could be measured."""
    return "-".rjust(width) if value is None else f"{value:{width}.{digits}f}"


def accuracy_table(accuracy: dict[str, dict[str, float | None]]) -> str:
    """Put held-out accuracies side by side, with what changed in points and its 95 % interval where it is known.

    >>> figures = {"before": 0.305, "after": 0.6875, "change": 0.3825, "low": 0.3, "high": 0.5}
    >>> print(accuracy_table({"mean_of_8": figures}))
                      before   after    change
      mean of 8       30.5 %   68.8 %   +38.2 [+30.0, +50.0]
    """
    rows = [
        f"  {name.replace('_', ' '):14} {percent(value['before']):>7} {percent(value['after']):>8}   "
        f"{_points(value)}".rstrip()
        for name, value in accuracy.items()
    ]
    return "\n".join([f"{'':18}before   after    change", *rows])


def _points(value: dict[str, float | None]) -> str:
    known = [value.get(name) for name in ("change", "low", "high")]
    if any(number is None for number in known):
        return ""
    change, low, high = (f"{100 * number:+.1f}" for number in known if number is not None)
    return f"{change} [{low}, {high}]"


def percent(share: float | None) -> str:
    """Write a share in percent; `None` is unknown.

    >>> percent(0.305), percent(None)
    ('30.5 %', 'unknown')
    """
    return "unknown" if share is None else f"{100 * share:.1f} %"


def sample_completions(table: pd.DataFrame, count: int = 3) -> str:
    """Show those with the highest and the lowest reward and some between, from one step's completions table."""
    ranked = table.drop_duplicates("completion").sort_values("hybrid_reward", ascending=False).reset_index(drop=True)
    picks = sorted({round(i * (len(ranked) - 1) / max(count - 1, 1)) for i in range(count)})
    return "\n".join(_sample(ranked.loc[pick].to_dict()) for pick in picks)


def _sample(row: dict[str, Any]) -> str:
    verdict = {1.0: "right", 0.0: "wrong"}.get(row["verdict"], "not judged")
    wrapped = textwrap.fill(
        last_content(row["completion"]).strip(), 100, initial_indent="    ", subsequent_indent="    "
    )
    return (
        f"  {last_content(row['prompt']).strip()}\n{wrapped}\n"
        f"    -> {verdict}, RM score {row['score']:.2f}, hybrid reward {row['hybrid_reward']:.3f}\n"
    )


def last_content(messages: Any) -> str:
    """Return the text of the last of some chat messages; a string is its own."""
    return messages if isinstance(messages, str) else str(messages[-1]["content"])
