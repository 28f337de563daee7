"""Settings with which a run fits, by the plan's own estimate: of what takes turns on a GPU the largest gets smaller.

What is learned stays the same where it can: halved batches are made up for by more accumulation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


LEAST_TOKENS = 2048
"""The reward model's forwards are not made smaller than this."""

MOST_SUGGESTIONS = 3


@dataclass(frozen=True)
class Estimate:
    """A plan, and the settings that it was made from.

    Args:
        plan: What `--json` prints.
        training: The recipe's `HybridGRPOConfig`.
        use_peft: Whether adapters are trained.
        tokens: Tokens of one forward of the reward model, by placement.
    """

    plan: dict[str, Any]
    training: Any
    use_peft: bool
    tokens: dict[str, int]

    def fits(self, placement: str | None) -> bool:
        """Whether a placement of the reward model fits the GPU and the machine's memory."""
        return placement is not None and self.excess(placement) <= 0 and self.host_excess(placement) <= 0

    def excess(self, placement: str) -> int:
        """Bytes that a GPU lacks."""
        return self.plan["placements"][placement]["gpu"] - self.plan["free"]

    def host_excess(self, placement: str) -> int:
        """Bytes that the machine's memory lacks; 0 where its size is not known."""
        host = self.plan["host"]
        return 0 if host is None else self.plan["placements"][placement]["host"] - host


Options = dict[str, str]

TryOptions = Callable[[Options], Estimate | None]
"""Estimates with options added; None where the recipe does not take them together."""


def settings_that_fit(asked: Estimate, estimate: TryOptions) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Look for options to add, for one placement of the reward model after the other.

    Returns:
        At most three suggestions, the fewest changes first, each of `options`, `placement`, `gpu` and `host` in
        bytes; and, where there are none, the one that lacks least.
    """
    chosen, places = asked.plan["chosen"], asked.plan["placements"]
    several = ["zero3"] if asked.plan["gpus"] > 1 else []
    targets = [place for place in dict.fromkeys([chosen, "resident", "streamed", *several]) if place in places]
    found = [(place, *_shrink(place, asked, estimate)) for place in targets]
    fitting = [_suggestion(*one) for one in found if one[2].fits(one[0])]
    if fitting:
        return sorted(fitting, key=lambda one: len(one["options"]))[:MOST_SUGGESTIONS], None
    return [], _suggestion(*min(found, key=lambda one: max(one[2].excess(one[0]), one[2].host_excess(one[0]))))


def _shrink(placement: str, asked: Estimate, estimate: TryOptions) -> tuple[Options, Estimate]:
    """Add options until the placement fits, or nothing is left to make smaller."""
    options: Options = {} if placement == asked.plan["chosen"] else {"reward_model_placement": placement}
    found = asked
    while found.excess(placement) > 0 and found.host_excess(placement) <= 0:
        step = smaller(found, placement)
        tried = estimate(options | step) if step else None
        if tried is None:
            break
        options, found = options | step, tried
    return options, found


def smaller(found: Estimate, placement: str) -> Options:
    """Return the options that make the largest of what takes turns smaller; none where it cannot be."""
    training, parts = found.training, found.plan["training"]
    turns = {
        "activations": parts["activations"],
        "generation": parts["generation"],
        "scoring": found.plan["placements"][placement]["passing"],
    }
    largest = max(turns, key=lambda turn: turns[turn])
    step: Options = {}
    if largest == "activations":
        step = _fewer_rows(training)
    elif largest == "generation":
        step = _fewer_answers(training, found.plan["gpus"], found.plan["policy"]["generated_rows"])
    elif found.tokens[placement] >= 2 * LEAST_TOKENS:
        step = {"reward_model_token_budget": str(found.tokens[placement] // 2)}
    return step or ({} if found.use_peft else {"use_peft": "true"})


def _fewer_rows(training: Any) -> Options:
    rows, steps = training.per_device_train_batch_size, training.gradient_accumulation_steps
    if not training.gradient_checkpointing:
        return {"gradient_checkpointing": "true"}
    if rows % 2:
        return {}
    halved = {"per_device_train_batch_size": str(rows // 2), "gradient_accumulation_steps": str(2 * steps)}
    apart = training.steps_per_generation != steps
    return halved | ({"steps_per_generation": str(2 * training.steps_per_generation)} if apart else {})


def _fewer_answers(training: Any, gpus: int, generated: int) -> Options:
    """Halve what is generated at once: held-out answers, or what the steps between two generations learn from."""
    rows, steps, held_out = (
        training.per_device_train_batch_size,
        training.steps_per_generation,
        training.per_device_eval_batch_size,
    )
    if generated > rows * steps and held_out > 1:
        return {"per_device_eval_batch_size": str(held_out // 2)}
    groups_stay_whole = rows * gpus * (steps // 2) % training.num_generations == 0
    return {"steps_per_generation": str(steps // 2)} if steps % 2 == 0 and groups_stay_whole else {}


def _suggestion(placement: str, options: Options, found: Estimate) -> dict[str, Any]:
    place = found.plan["placements"][placement]
    return {"options": options, "placement": placement, "gpu": place["gpu"], "host": place["host"]}
