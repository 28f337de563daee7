"""From judged answers to pairs of a better and a worse one, of which length does not tell which is which. Pure."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, zip_longest
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A distinct answer, as the reward model reads it.

    Attributes:
        ids: Token ids of the problem with the answer.
        right: The verifier's verdict.
        distance: How far a wrong answer is from the gold, where both are numbers.
    """

    ids: tuple[int, ...]
    right: bool
    distance: Fraction | None = None


@dataclass(frozen=True)
class Pair:
    """Two answers to the same problem.

    Attributes:
        better: A right one, or the nearer of two wrong ones.
        worse: A wrong one.
        problem: Which one, by its place among all.
    """

    better: Answer
    worse: Answer
    problem: int = 0

    @property
    def difference(self) -> int:
        """Tokens that the better answer is longer by; below 0 where it is shorter."""
        return len(self.better.ids) - len(self.worse.ids)


def problem_text(row: dict[str, Any]) -> str:
    """Return what makes two problems the same: their turns, without those that instruct the policy."""
    if isinstance(row["prompt"], str):
        return row["prompt"]
    return "\n".join(turn["content"] for turn in row["prompt"] if turn["role"] not in ("system", "developer"))


def merge_answers(parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Gather the answers to the same problem from several files, as from several policies or temperatures.

    Args:
        parts: Rows of `prompt`, `solution` and `samples`.

    Returns:
        One row a problem, in the order of its first.

    Example:
        >>> row = {"prompt": "1 + 1?", "solution": "2"}
        >>> merge_answers([[row | {"samples": ["a"]}], [row | {"samples": ["b", "c"]}]])[0]["samples"]
        ['a', 'b', 'c']
    """
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for row in chain.from_iterable(parts):
        known = merged.setdefault((problem_text(row), str(row["solution"])), {**row, "samples": []})
        known["samples"] = [*known["samples"], *row["samples"]]
    return list(merged.values())


def split_problems(
    rows: Sequence[dict[str, Any]], held_out: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Set a share of the problems aside; the same problem is never on both sides.

    Args:
        rows: Problems.
        held_out: Share in [0, 1) that is set aside, at least one problem if it is above 0.
        seed: Of the draw.

    Returns:
        Those to train on, and those that are held out, each in the given order.
    """
    distinct = sorted({problem_text(row) for row in rows})
    count = max(1, round(held_out * len(distinct))) if held_out else 0
    aside = set(random.Random(seed).sample(distinct, min(count, len(distinct))))
    kept = [row for row in rows if problem_text(row) not in aside]
    return kept, [row for row in rows if problem_text(row) in aside]


def distinct_samples(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the first of equal answers, and none that could not be judged.

    White space makes no answer another one; an answer that was cut off is not the one that ended there.

    Example:
        >>> texts = ["It is 4.", " It  is 4.", "So 4."]
        >>> samples = [{"completion": text, "truncated": False, "correct": True} for text in texts]
        >>> [sample["completion"] for sample in distinct_samples(samples)]
        ['It is 4.', 'So 4.']
    """
    found: dict[tuple[str, bool], dict[str, Any]] = {}
    for sample in samples:
        if sample["correct"] is not None:
            found.setdefault((" ".join(sample["completion"].split()), sample["truncated"]), sample)
    return list(found.values())


def choose_pairs(groups: Sequence[Sequence[Answer]], most: int, seed: int, near_misses: bool = False) -> list[Pair]:
    """Pair better with worse answers to the same problem.

    Those in which the better answer is the shorter, the longer and of the same length take turns as far as there are
    any; which answers meet is drawn.

    Args:
        groups: Distinct answers, one list a problem.
        most: Pairs of a problem, at most.
        seed: Of the draw.
        near_misses: Pair a wrong answer with those that are farther from the gold, too.
    """
    rng = random.Random(seed)
    chosen: list[Pair] = []
    for problem, answers in enumerate(groups):
        found = ((one, other) for one in answers for other in answers if is_better(one, other, near_misses))
        pairs = [Pair(one, other, problem) for one, other in found]
        rng.shuffle(pairs)
        kinds = ([pair for pair in pairs if fits(pair.difference)] for fits in KINDS)
        chosen += [pair for turn in zip_longest(*kinds) for pair in turn if pair is not None][:most]
    return chosen


def is_better(one: Answer, other: Answer, near_misses: bool) -> bool:
    """Say whether an answer is better than another one: right and not wrong, or a nearer miss where these count.

    Example:
        >>> near, far = Answer((1,), False, Fraction(2)), Answer((2,), False, Fraction(10))
        >>> is_better(near, far, near_misses=True), is_better(near, far, near_misses=False)
        (True, False)
    """
    if one.right != other.right:
        return one.right
    if one.right or not near_misses or one.distance is None or other.distance is None:
        return False
    return one.distance < other.distance


KINDS: tuple[Callable[[int], bool], ...] = (lambda d: d < 0, lambda d: d > 0, lambda d: d == 0)


def balance_lengths(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Leave pairs out until the better answer is as often longer as shorter, by as much: length tells nothing then.

    Differences are alike within a factor of two: those of 4 to 7 tokens are balanced among themselves, and so on.

    Args:
        pairs: As of [`choose_pairs`].
        seed: Of the draw of those that are left out.

    Returns:
        The others, in their order.
    """
    rng = random.Random(seed)
    places: dict[tuple[int, bool], list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault((abs(pair.difference).bit_length(), pair.difference > 0), []).append(place)
    kept: set[int] = set()
    for (size, longer), found in sorted(places.items()):
        count = len(found) if size == 0 else min(len(found), len(places.get((size, not longer), [])))
        kept.update(rng.sample(found, count))
    return [pair for place, pair in enumerate(pairs) if place in kept]
