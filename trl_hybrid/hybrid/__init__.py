"""Verdict and score become one reward."""

from trl_hybrid.hybrid.combine import combine_hybrid_score, hybrid_rewards
from trl_hybrid.hybrid.reward_function import HybridReward


__all__ = ["HybridReward", "combine_hybrid_score", "hybrid_rewards"]
