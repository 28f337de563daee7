"""The page's charts: which figures stand together, and how to read them."""

import re
from typing import Any, NamedTuple

from trl_hybrid.judges import JudgeNames


class Panel(NamedTuple):
    """A chart over steps: at most five figures, each with its label; of shares and lengths, whose axis starts at 0."""

    title: str
    lines: tuple[tuple[str, str], ...]
    note: str = ""
    from_zero: bool = False


# `{reward_model}` and `{verifier}` stand for the judges' own names.
PANELS = (
    Panel("Pass rate", (("hybrid/pass_rate", "right"),), "Share of right answers in training.", True),
    Panel(
        "Rewards",
        (("rewards/hybrid_reward/mean", "hybrid reward"), ("rewards/{verifier}/mean", "{verifier} alone")),
        "Mean per completion.",
    ),
    Panel(
        "Reward model score",
        (
            ("hybrid/score_right_mean", "right answers"),
            ("hybrid/score_wrong_mean", "wrong answers"),
            ("rewards/{reward_model}/mean", "all"),
        ),
        "By {reward_model}. Should wrong answers climb while the pass rate falls, the reward model is being hacked.",
    ),
    Panel(
        "Kinds of groups",
        (
            ("hybrid/mixed_groups", "mixed"),
            ("hybrid/all_wrong_groups", "all wrong"),
            ("hybrid/all_right_groups", "all right"),
            ("hybrid/rescued_groups", "rescued"),
        ),
        "Rescued: no gradient from a verifier alone, but one here. None where the verdicts alone are the reward.",
        True,
    ),
    Panel(
        "Does the reward model agree?",
        (("hybrid/auc_recent", "AUC in recent mixed groups"), ("hybrid/disagreement", "disagreement")),
        "AUC over the last 20 steps; 0.5 is chance. Disagreement: wrong answers with a score in the top tenth.",
    ),
    Panel(
        "Difficulty weight",
        (
            ("hybrid/weight_mixed", "mixed"),
            ("hybrid/weight_all_wrong", "all wrong"),
            ("hybrid/weight_all_right", "all right"),
        ),
        "Mean factor of the advantages by kind of group.",
    ),
    Panel(
        "Completion length",
        (
            ("completions/mean_length", "mean"),
            ("completions/max_length", "longest"),
            ("completions/min_length", "shortest"),
        ),
        "Tokens.",
        True,
    ),
    Panel("Entropy", (("entropy", "entropy"),), "Of the policy's next token, in nats. Near 0 it stops to explore."),
    Panel("Cut off", (("completions/clipped_ratio", "cut off"),), "Share of completions at the length limit.", True),
    Panel("KL divergence", (("kl", "KL"),), "From the reference policy."),
    Panel("Gradient norm", (("grad_norm", "gradient norm"),), "Before clipping."),
    Panel("No answer", (("verifier/no_answer_rate", "no answer"),), "Share of completions that name none.", True),
    Panel(
        "Verifier",
        (
            ("verifier/timeout_rate", "timed out"),
            ("verifier/unjudgeable_rate", "not judged"),
            ("verifier/starved_rate", "machine too busy"),
            ("verifier/error_rate", "rules failed"),
        ),
        "Shares of the completions that it could not judge as it should.",
        True,
    ),
    Panel(
        "Right answers by form",
        (
            ("verifier/right_in_box", "in a box"),
            ("verifier/right_in_hash", "behind ####"),
            ("verifier/right_in_tag", "in a tag"),
            ("verifier/right_in_phrase", "by a phrase"),
            ("verifier/right_in_text", "last value of the text"),
        ),
        "Shares of the right answers. Many in another form than the prompt asks for are judged less surely.",
        True,
    ),
)


def named_panels(history: list[dict[str, Any]]) -> list[Panel]:
    """Describe the charts of a run with the names of its judges."""
    names = JudgeNames.among(key for row in history for key in row)._asdict()
    return [
        panel._replace(
            lines=tuple((key.format(**names), label.format(**names)) for key, label in panel.lines),
            note=panel.note.format(**names),
        )
        for panel in PANELS
    ]


ACCURACY = re.compile(r"eval[/_](?:.*/)?accuracy[_/]?(.*)")


def accuracy_panel(history: list[dict[str, Any]]) -> list[Panel]:
    """Describe held-out accuracy during training, where that was logged.

    >>> accuracy_panel([{"step": 5, "eval/accuracy_greedy": 0.25}])[0].lines
    (('eval/accuracy_greedy', 'greedy'),)
    """
    labels = {key: found[1] for row in history for key in row if (found := ACCURACY.fullmatch(key))}
    lines = tuple((key, labels[key].replace("_", " ") or "accuracy") for key in sorted(labels)[:4])
    return [Panel("Held-out accuracy", lines, "On problems that training does not see.", True)] if lines else []
