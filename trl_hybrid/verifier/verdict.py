"""What the verifier returns, and the closed set of its reasons."""

from dataclasses import dataclass
from typing import Literal


AnswerForm = Literal["box", "hash", "tag", "phrase", "text"]
"""How an answer was given: in a box, behind ####, in tags or JSON, by a phrase, or as what the text ends with."""

Reason = Literal[
    "exact",  # right: the same string
    "numeric",  # right: the same number
    "symbolic",  # right: equal by parts or by algebra
    "mismatch",  # wrong: another value
    "not_an_answer",  # wrong: a chain of different values, a relation, or the problem itself
    "no_answer",  # wrong: the completion gives none
    "guard",  # wrong: too large to be looked at
    "timeout",  # wrong: out of CPU time
    "memory",  # wrong: past the memory cap
    "crash",  # wrong: its worker died, twice
    "error",  # wrong: the rules themselves failed on it
    "unjudgeable",  # neither: the gold is blank, does not parse or cannot be handled in time
    "starved",  # neither: the machine was too busy to judge; asked for again, it is judged again
]


TimedReason = tuple[Reason, float]
"""What comes of an answer against a gold, and the milliseconds that it took."""


def is_right(reason: Reason) -> bool | None:
    """Whether an answer is right, `None` when it was not judged.

    Example:
        >>> is_right("numeric"), is_right("timeout"), is_right("unjudgeable")
        (True, False, None)
    """
    return None if reason in ("unjudgeable", "starved") else reason in ("exact", "numeric", "symbolic")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier says about one completion.

    Attributes:
        correct: `None` when the row cannot be judged: its gold is blank, does not parse or cannot be handled in time,
            or the machine is too busy.
        reward: `correct_reward`, `format_reward` or 0.0; `None` where `correct` is.
        parsed_answer: The answer that was extracted, `None` when there was none.
        reason: Why; one of `Reason`.
        gold: The answer that was extracted from the solution.
        milliseconds: What the judgement took; a pair that was known already counts with what it took then.
        form: The form in which the answer was given; one of `AnswerForm`, `None` when there was none.
    """

    correct: bool | None
    reward: float | None
    parsed_answer: str | None
    reason: Reason
    gold: str = ""
    milliseconds: float = 0.0
    form: AnswerForm | None = None
