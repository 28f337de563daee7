"""OpenRLHF: `--reward.remote_url .../openrlhf_reward.py`. Looked at with OpenRLHF 0.11.2."""

from collections.abc import Sequence
from typing import Any

import torch

from trl_hybrid.rewards import shared_verifier


shared_verifier()  # a wrong environment is told now: OpenRLHF logs an error of `reward_func` and goes on


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **kwargs: Any
) -> dict[str, Any]:
    """Pay responses; OpenRLHF calls it in a thread, so that its event loop goes on.

    Args:
        queries: Prompts with responses, special tokens included.
        prompts: The prompts, whose echo does not count.
        labels: The references, from the column named by `--data.label_key`.
        **kwargs: What else is passed; not used.

    Returns:
        `rewards` and `scores`, each of shape (N,): 0.0 also where a label cannot be judged, as OpenRLHF has no way to
        leave a row out. All responses to that prompt then get the same: nothing moves within a group, and dynamic
        filtering drops it. `extra_logs` holds `judged`, whether there was a verdict.
    """
    paid = shared_verifier()(prompts, queries, labels)
    rewards = torch.tensor([reward or 0.0 for reward in paid])
    judged = torch.tensor([float(reward is not None) for reward in paid])
    return {"rewards": rewards, "scores": rewards, "extra_logs": {"judged": judged}}
