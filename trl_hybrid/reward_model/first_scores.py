"""Cheap checks of a loaded reward model, so that nobody trains on noise."""

import logging
from math import isfinite

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.backend import ScoringBackend
from trl_hybrid.reward_model.forwards import agree
from trl_hybrid.reward_model.plan import Row
from trl_hybrid.reward_model.prompts import RowRenderer


logger = logging.getLogger(__name__)

PROBLEM = "What is 17 + 25?"
SOLUTION = "We add the tens and the units: 10 + 20 = 30 and 7 + 5 = 12, and 30 + 12 = 42. The answer is \\boxed{42}."


def worked_rows(renderer: RowRenderer) -> list[Row]:
    """Render a worked solution, an empty one and a cut-off one of the same problem."""
    rendered = renderer.render([PROBLEM] * 3, [SOLUTION, "", SOLUTION], [False, False, True])
    return [row.ids for row in rendered]


def check_scores(
    name: str, renderer: RowRenderer, backend: ScoringBackend, tolerance: float, prefers_solutions: bool
) -> list[float]:
    """Score a worked solution and an empty one, together and one by one.

    Returns:
        The two scores, by which the same weights can be known again.

    Raises:
        InputError: The two ways differ, or the empty solution wins.
    """
    rows = worked_rows(renderer)[:2]
    together = backend.score(rows)
    if not all(map(isfinite, together)):
        logger.warning("The reward model %r gives scores that are not finite: %s.", name, together)
        return together
    alone = [score for row in rows for score in backend.score([row])]
    if not agree(together, alone, tolerance):
        raise InputError(
            f"A reward model must score a row alike in a batch and alone, but {name!r} gives {together} and {alone}. "
            "Its architecture does not heed the attention mask: use another reward model."
        )
    if prefers_solutions and together[0] <= together[1]:
        raise InputError(
            f"A reward model for maths must prefer a worked solution to an empty one, but {name!r} gives "
            f"{together[0]:.3f} and {together[1]:.3f}. Check that its weights are whole and that `system_prompt` is "
            "its card's."
        )
    return together
