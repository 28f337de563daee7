"""From a policy's judged answers to what a reward model learns, and what it is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from datasets import Dataset

from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.pairs import (
    Answer,
    Pair,
    balance_lengths,
    choose_pairs,
    distinct_samples,
    split_problems,
)
from trl_hybrid.evaluation.ranking import ScoredGroup
from trl_hybrid.evaluation.statistics import same_answer
from trl_hybrid.recipe.pair_options import PairArguments
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.plan import Row
from trl_hybrid.reward_model.prompts import RowRenderer
from trl_hybrid.verifier import is_blank
from trl_hybrid.verifier.numeric import parse_number


@dataclass(frozen=True)
class Lesson:
    """What is learned and what is not.

    Attributes:
        pairs: To learn from.
        held_out: Problems with judged `samples`, to measure on.
        rows: Every distinct answer as it is read, those to held-out problems first.
        counts: Of `problems`, `held_out` ones among them, distinct `answers` to the others, how many of these have
            right and wrong ones (`with_both`), `pairs`, and pairs `left_out_by_length`.
    """

    pairs: list[Pair]
    held_out: list[dict[str, Any]]
    rows: list[Row]
    counts: dict[str, int]

    def text(self) -> str:
        """Say what is learned."""
        counts, left_out = self.counts, self.counts["left_out_by_length"]
        balanced = f"; {left_out} pairs are left out so that length tells nothing" if left_out else ""
        return (
            f"What is learned: {counts['pairs']} pairs of a better and a worse answer, from {counts['answers']} "
            f"distinct answers to {counts['problems'] - counts['held_out']} problems, {counts['with_both']} of which "
            f"have both{balanced}. Held out: {counts['held_out']} problems."
        )


def make_lesson(rows: Sequence[dict[str, Any]], renderer: RowRenderer, wanted: PairArguments, seed: int) -> Lesson:
    """Set problems aside to measure on, and pair right with wrong answers to the others.

    Args:
        rows: Problems with judged `samples`.
        renderer: The reward model's.
        wanted: Which pairs.
        seed: Of what is drawn.

    Raises:
        InputError: There is no pair.
    """
    train, held_out = split_problems(rows, wanted.held_out_share, seed)
    groups = answer_groups(train, renderer, wanted.gold_as_right)
    chosen = choose_pairs(groups, wanted.pairs_per_problem, seed, wanted.near_misses)
    kept = balance_lengths(chosen, seed) if wanted.balance_length else chosen
    _check_pairs(chosen, kept, len(train))
    counts = {
        "problems": len(rows),
        "held_out": len(held_out),
        "answers": sum(map(len, groups)),
        "with_both": sum(len({answer.right for answer in group}) == 2 for group in groups),
        "pairs": len(kept),
        "left_out_by_length": len(chosen) - len(kept),
    }
    every = [answer.ids for group in (*answer_groups(held_out, renderer), *groups) for answer in group]
    return Lesson(kept, held_out, every, counts)


def _check_pairs(chosen: Sequence[Pair], kept: Sequence[Pair], problems: int) -> None:
    if not chosen:
        raise InputError(
            f"There is nothing to learn from: of {problems} problems none has both a right and a wrong answer. Raise "
            "num_samples, or take easier or harder problems, or another policy; where answers are nothing but a box, "
            "add --gold_as_right true."
        )
    if not kept:
        raise InputError(
            f"In all of {len(chosen)} pairs the better answer is on the same side in length: length alone would be "
            "learned. Take more problems, or other temperatures or policies; to learn from them all the same, add "
            "--balance_length false."
        )


def answer_groups(
    rows: Sequence[dict[str, Any]], renderer: RowRenderer, gold_as_right: bool = False
) -> list[list[Answer]]:
    """Read each problem's distinct answers as the reward model will.

    Args:
        rows: Problems with judged `samples`.
        renderer: The reward model's.
        gold_as_right: Whether the gold in a box stands for a right answer where there is none.

    Returns:
        One list a problem, maybe empty.
    """
    groups = [distinct_samples(row["samples"]) for row in rows]
    if gold_as_right:
        groups = [_with_gold(group, row) for group, row in zip(groups, rows, strict=True)]
    flat = [(row["prompt"], sample) for row, group in zip(rows, groups, strict=True) for sample in group]
    rendered = iter(
        renderer.render(
            [prompt for prompt, _ in flat],
            [sample["completion"] for _, sample in flat],
            [sample["truncated"] for _, sample in flat],
        )
    )
    return [
        [Answer(next(rendered).ids, sample["correct"], distance(row["solution"], sample)) for sample in group]
        for row, group in zip(rows, groups, strict=True)
    ]


def distance(gold: Any, sample: dict[str, Any]) -> Fraction | None:
    """Return how far an answer is from the gold; None for a right one, and where one of the two is no number.

    >>> distance("12", {"correct": False, "answer": "10.5"})
    Fraction(3, 2)
    """
    if sample["correct"] or sample.get("answer") is None:
        return None
    numbers = parse_number(str(gold)), parse_number(sample["answer"])
    return abs(numbers[0].value - numbers[1].value) if numbers[0] and numbers[1] else None


def _with_gold(group: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    gold = str(row["solution"])
    if is_blank(gold) or not group or any(sample["correct"] for sample in group):
        return group
    return [*group, {"completion": f"\\boxed{{{gold}}}", "truncated": False, "correct": True}]


def pair_dataset(pairs: Sequence[Pair]) -> Dataset:
    """Return the pairs in the columns of token ids that TRL's trainer takes as they are, and each one's `problem`."""
    return Dataset.from_dict(
        {
            "chosen_ids": [pair.better.ids for pair in pairs],
            "rejected_ids": [pair.worse.ids for pair in pairs],
            "problem": [pair.problem for pair in pairs],
        }
    )


def scored_groups(rows: Sequence[dict[str, Any]], reward_model: RewardModel) -> tuple[list[ScoredGroup], int]:
    """Score all judged answers to problems.

    Args:
        rows: Problems with judged `samples`.
        reward_model: The trained one.

    Returns:
        One group a problem, and how many answers were scored.
    """
    groups = [[sample for sample in row["samples"] if sample["correct"] is not None] for row in rows]
    prompts = [row["prompt"] for row, group in zip(rows, groups, strict=True) for _ in group]
    texts = [sample["completion"] for group in groups for sample in group]
    cut_off = [sample["truncated"] for group in groups for sample in group]
    scores = iter(reward_model(prompts, texts, completion_truncated=cut_off))
    lengths = iter(len(row.ids) for row in reward_model.renderer.render(prompts, texts, cut_off))
    scored = [
        ScoredGroup(
            scores=[next(scores) for _ in group],
            right=[sample["correct"] for sample in group],
            lengths=[next(lengths) for _ in group],
            votes=votes([sample.get("answer") for sample in group]),
            whole=[not sample["truncated"] for sample in group],
        )
        for group in groups
    ]
    return scored, len(texts)


def votes(answers: Sequence[str | None]) -> list[int]:
    """Count for each answer of a group how many give the same; 0 for none.

    >>> votes(["7", None, "7.0", "8"])
    [2, 0, 2, 1]
    """
    return [
        0 if one is None else sum(other is not None and same_answer(one, other) for other in answers)
        for one in answers
    ]
