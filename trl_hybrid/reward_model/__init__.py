"""Scoring completions with a one-label reward model."""

from trl_hybrid.reward_model.loading import RewardModelNotFoundError
from trl_hybrid.reward_model.scorer import AceRewardModel, RewardModel


__all__ = ["AceRewardModel", "RewardModel", "RewardModelNotFoundError"]
