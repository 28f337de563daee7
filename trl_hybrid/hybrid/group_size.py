"""How many completions there are to a prompt, where a reward function is not told."""

import os
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from trl_hybrid.errors import InputError


def find_group_size(prompts: Sequence[Any], log_extra: Callable[..., Any] | None) -> int:
    """Ask the trainer that calls; where none can be asked, count the rows to each prompt.

    TRL's trainers pass a method of theirs as `log_extra`, and through it say what they generate now. A count cannot
    see that half of a group is on another process, so it is made in a launch of one process only.

    Args:
        prompts: One per completion, at least one; rows of one group are contiguous.
        log_extra: What the reward function was given as such.

    Raises:
        InputError: Nothing tells.

    Example:
        >>> find_group_size(["q0", "q0", "q1", "q1"], None)
        2
    """
    trainer: Any = getattr(log_extra, "__self__", None)
    if hasattr(trainer, "num_generations"):
        return trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    counts = [len(list(rows)) for _, rows in groupby(prompts)]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1 and len(set(counts)) == 1:
        return counts[0]
    seen = f"prompts with {min(counts)} to {max(counts)} completions" if processes == 1 else f"{processes} processes"
    raise InputError(
        "The hybrid reward combines the completions of a prompt and must know how many these are: from TRL's trainer, "
        f"or, in one process, by equal numbers. Got {seen} and no trainer to ask. Give trl_hybrid.HybridReward its "
        "num_generations, or use trl_hybrid.HybridGRPOTrainer."
    )
