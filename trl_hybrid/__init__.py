"""GRPO on maths with TRL, each completion judged twice: by a verifier and by a reward model.

Importing this package is cheap: torch, transformers and trl load with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from trl_hybrid.hybrid import HybridReward, combine_hybrid_score, hybrid_rewards
    from trl_hybrid.judges import Scorer, Verifier
    from trl_hybrid.reward_model import AceRewardModel, RewardModel
    from trl_hybrid.training.config import HybridGRPOConfig
    from trl_hybrid.training.trainer import HybridGRPOTrainer
    from trl_hybrid.verifier import MathVerifier, Verdict

_HOMES = {
    "AceRewardModel": "trl_hybrid.reward_model",
    "HybridGRPOConfig": "trl_hybrid.training.config",
    "HybridGRPOTrainer": "trl_hybrid.training.trainer",
    "HybridReward": "trl_hybrid.hybrid",
    "MathVerifier": "trl_hybrid.verifier",
    "RewardModel": "trl_hybrid.reward_model",
    "Scorer": "trl_hybrid.judges",
    "Verdict": "trl_hybrid.verifier",
    "Verifier": "trl_hybrid.judges",
    "combine_hybrid_score": "trl_hybrid.hybrid",
    "hybrid_rewards": "trl_hybrid.hybrid",
}

__all__ = [
    "AceRewardModel",
    "HybridGRPOConfig",
    "HybridGRPOTrainer",
    "HybridReward",
    "MathVerifier",
    "RewardModel",
    "Scorer",
    "Verdict",
    "Verifier",
    "combine_hybrid_score",
    "hybrid_rewards",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
