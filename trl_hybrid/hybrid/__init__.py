"""Verdict and score become one reward."""

from trl_hybrid.hybrid.combine import combine_hybrid_score, hybrid_rewards


__all__ = ["combine_hybrid_score", "hybrid_rewards"]
