"""What the verifier returns, and the closed set of its reasons."""

from dataclasses import dataclass, field
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
    "timeout",  # wrong: past the deadline
    "memory",  # wrong: past the memory cap
    "crash",  # wrong: its worker died, twice
    "error",  # wrong: the rules themselves failed on it
    "unjudgeable",  # neither: the gold is blank, does not parse or cannot be handled in time
]


@dataclass(frozen=True, slots=True)
class Comparison:
    """An answer against a gold: `correct` is `None` when the gold cannot be judged; `milliseconds` is what it took."""

    correct: bool | None
    reason: Reason
    milliseconds: float = field(default=0.0, compare=False, repr=False)


MISMATCH = Comparison(False, "mismatch")
NOT_AN_ANSWER = Comparison(False, "not_an_answer")
ERROR = Comparison(False, "error")
UNJUDGEABLE = Comparison(None, "unjudgeable")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier says about one completion.

    Attributes:
        correct: `None` when the row cannot be judged: its gold is blank, does not parse or cannot be handled in time.
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
