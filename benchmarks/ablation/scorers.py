"""Reward models of the arms: the real one with a clock, two that know less, and one with a weakness."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from trl_hybrid import Scorer


class Timed(Scorer):
    """Count the seconds that a scorer takes.

    Args:
        scorer: Asked for the scores.

    Attributes:
        seconds: Wall time spent in the scorer so far.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.__name__ = "reward_model"
        self.scorer, self.seconds = scorer, 0.0

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
        """Score completions as the scorer does."""
        started = time.perf_counter()
        scores = self.scorer(prompts=prompts, completions=completions, **kwargs)
        self.seconds += time.perf_counter() - started
        return scores


class ShuffledScores(Scorer):
    """A scorer whose scores are dealt out anew inside each group: their spread is right, their order is chance.

    Args:
        scorer: Asked for the scores, with whole groups.
        group_size: Completions per prompt, contiguous.
        seed: Of the order; no other random numbers are touched.
    """

    def __init__(self, scorer: Scorer, group_size: int, seed: int) -> None:
        self.__name__ = "reward_model"
        self.scorer, self.group_size = scorer, group_size
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
        """Score completions and shuffle the scores within each group."""
        scores = self.scorer(prompts=prompts, completions=completions, **kwargs)
        dealt: list[float | None] = []
        for start in range(0, len(scores), self.group_size):
            order = torch.randperm(self.group_size, generator=self.generator).tolist()
            dealt += [scores[start + place] for place in order]
        return dealt


class FondScores(Scorer):
    """A scorer that also likes a text: a reward model with a weakness that a policy can learn to use.

    Args:
        scorer: Asked for the scores.
        text: What it is fond of.
        worth: What each occurrence of the text in an answer adds to its score.
    """

    def __init__(self, scorer: Scorer, text: str, worth: float) -> None:
        self.__name__ = "reward_model"
        self.scorer, self.text, self.worth = scorer, text, worth

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
        """Score completions, and add what the text is worth wherever it occurs."""
        scores = self.scorer(prompts=prompts, completions=completions, **kwargs)
        found = [completion[0]["content"].count(self.text) for completion in completions]
        return [
            None if score is None else score + self.worth * count for score, count in zip(scores, found, strict=True)
        ]


class RandomScores(Scorer):
    """Standard normal numbers: a reward model that has read nothing and costs nothing.

    Args:
        seed: No other random numbers are touched.
    """

    def __init__(self, seed: int) -> None:
        self.__name__ = "reward_model"
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
        """Draw one number for each completion."""
        return torch.randn(len(completions), generator=self.generator).tolist()
