"""What the trainer asks of its two judges, and how a run's figures say which ones it had.

Bring your own by subclassing one of these, which inherits what need not be written, or by any object that has the same
members. A plain function will do where there is nothing to prepare and nothing to remember. See docs/judges.md.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class Verifier(Protocol):
    """Says which completions are right.

    TRL calls it once a generation on every process, with that process's own rows, after `prefetch` and after the
    scorer. It is not sent to other processes, and need not pickle.

    Attributes:
        __name__: Under which it is logged and shown, as in `rewards/<name>/mean`; another one than the other reward
            functions'.
        correct_reward: What a right answer gets. A wrong one gets less, for its form perhaps; only which of the two it
            is reaches the hybrid reward.
    """

    __name__: str
    correct_reward: float = 1.0

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
        """Judge completions.

        Args:
            prompts: One per completion; strings or chat messages, as in the data set.
            completions: Strings or chat messages, rows of one prompt after one another.
            **kwargs: `completion_ids`; `completion_truncated`, whether the length limit cut each one off; the data
                set's other columns, as `solution`, one value per completion; TRL's `trainer_state`, `log_extra` (a
                column of the completions table) and `log_metric` (a figure of the step).

        Returns:
            For each completion `correct_reward` if it is right, any lower number if it is wrong, and `None` if it
            cannot be judged: then the row is left out of its group.

        Raises:
            Exception: The environment failed. It ends the run; an answer never may.
        """
        ...

    def prefetch(
        self,
        completions: Sequence[Any],
        solutions: Sequence[Any],
        prompts: Sequence[Any] | None = None,
        completion_truncated: Sequence[bool] | None = None,
    ) -> None:
        """Start the work on rows that will be judged next, and return at once: it then goes on while they are scored.

        Args:
            completions: As in `__call__`.
            solutions: The data set's column `solution`; without that column nothing is prefetched.
            prompts: As in `__call__`.
            completion_truncated: As in `__call__`; `None` where the trainer does not tell.
        """
        return


@runtime_checkable
class Scorer(Protocol):
    """Says how good a completion is: a reward model.

    TRL calls it as it calls a [`Verifier`], and before it.

    Attributes:
        __name__: As a verifier's.
    """

    __name__: str

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
        """Score completions; arguments and errors are those of [`Verifier.__call__`].

        Returns:
            For each completion any real number, the higher the better; only differences count. `None`, NaN or infinite
            where there is no score: up to one row and 1 % of them are put in the middle of their band.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what this process must know to give the same scores after a stop, in JSON types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` of the same process returned before the stop."""
        return


class JudgeNames(NamedTuple):
    """The judges' own names, under which TRL logs what they give; the defaults are those of this package's."""

    reward_model: str = "reward_model"
    verifier: str = "math_verifier"

    def figures(self, scored: float, judged: float) -> dict[str, float]:
        """Return the figures that tell a reader of the logs who the judges were.

        Args:
            scored: Share of the rows with a finite score.
            judged: Share of the rows with a verdict.

        >>> JudgeNames("brevity", "exact_integer").figures(scored=1.0, judged=0.5)
        {'judges/reward_model/brevity': 1.0, 'judges/verifier/exact_integer': 0.5}
        """
        return {f"judges/reward_model/{self.reward_model}": scored, f"judges/verifier/{self.verifier}": judged}

    @classmethod
    def among(cls, figures: Iterable[str]) -> "JudgeNames":
        """Find the judges' names among the names of logged figures.

        >>> JudgeNames.among(["reward", "judges/verifier/exact_integer"])
        JudgeNames(reward_model='reward_model', verifier='exact_integer')
        """
        found = (re.match(r"judges/(reward_model|verifier)/(.+)", name) for name in figures)
        return cls(**{match[1]: match[2] for match in found if match})
