"""What a run knows of its two judges, from step to step."""

from dataclasses import dataclass
from typing import Any

import torch

from trl_hybrid.hybrid.alarm import HackingAlarm, RecentAuc, ScoreDrift
from trl_hybrid.hybrid.bounds import CalibratedBounds
from trl_hybrid.hybrid.combine import count_non_finite, hybrid_rewards
from trl_hybrid.hybrid.diagnostics import disagreements, judge_diagnostics, weights_by_kind
from trl_hybrid.hybrid.difficulty import DifficultyWeight, Saturation
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.training.reward_columns import judges_pay


@dataclass(frozen=True)
class Judged:
    """One step's rows, judged.

    Attributes:
        rewards: Hybrid rewards, shape (N,), float64; NaN where a row cannot be judged.
        columns: What the completions' table tells of each row, each of shape (N,): `verdict` and `score` as they were
            given, `disagreement` (bool: wrong answers that the reward model likes best) and `difficulty_weight`
            (float64: the factor of the advantage).
        figures: What the step tells, without the figures that nothing speaks for.
        warnings: What somebody should hear now: each is said once in a run.
    """

    rewards: torch.Tensor
    columns: dict[str, torch.Tensor]
    figures: dict[str, float]
    warnings: tuple[str, ...]


HACKING = (
    "The reward model's mean score on wrong answers climbs while the pass rate falls. The policy may be learning to "
    "please the reward model. Read the rows marked `disagreement` in the completions table; a smaller hybrid_alpha, "
    "or KL (beta), holds it back."
)


class Judgement:
    """Combines verdicts and scores, and remembers what later steps need: bounds, running means, the alarm.

    Give it the gathered rows of all processes, on the CPU; then all processes hold the same state.

    Args:
        args: The `hybrid_*` settings and `reward_mode`.

    Attributes:
        bounds: The calibrated bounds; used with `hybrid_bounds="calibrated"` only.
        weight: The difficulty weight; `None` where it is off or another reward than the hybrid one is optimised.
        ranking: How well the scores rank right above wrong in the last steps.
        drift: How far the scores have moved since the first steps.
        alarm: The alarm for reward hacking.
        saturation: Whether the weight has become a switch.
    """

    def __init__(self, args: HybridGRPOConfig) -> None:
        self.args = args
        self.bounds = CalibratedBounds()
        self.ranking = RecentAuc()
        self.drift = ScoreDrift()
        self.alarm = HackingAlarm()
        self.saturation = Saturation()
        self.weight: DifficultyWeight | None = None
        if args.hybrid_difficulty_weighting and args.reward_mode == "hybrid":
            self.weight = DifficultyWeight(
                args.hybrid_w_min,
                args.hybrid_w_max,
                args.hybrid_k,
                spread=args.hybrid_sigma,
                scale_free=args.hybrid_scale_free,
                mean_one=args.hybrid_weight_mean_one,
            )

    @property
    def needs_calibration(self) -> bool:
        """Whether bounds have to be found before the first row is judged."""
        return self.args.hybrid_bounds == "calibrated" and self.bounds.value is None

    def judge(
        self, verdicts: torch.Tensor, scores: torch.Tensor, lengths: torch.Tensor, group_size: int, training: bool
    ) -> Judged:
        """Judge a step's rows.

        Args:
            verdicts: Shape (N,), 1.0 right, 0.0 wrong, NaN unjudgeable; rows of one prompt are contiguous.
            scores: Shape (N,), any real numbers.
            lengths: Completion lengths in tokens, shape (N,).
            group_size: Completions per prompt; divides N.
            training: Whether the rows are trained on. Evaluation leaves the state as it is and has no weights.

        Raises:
            InputError: More than one row and 1 % of the judged rows' scores are not finite.
        """
        settings = self.args.hybrid_settings(self.bounds.value)
        broken = count_non_finite(scores[~verdicts.isnan()])
        rewards = hybrid_rewards(verdicts, scores, group_size, **vars(settings))
        paid = judges_pay(self.args.reward_mode, scores, verdicts, rewards)
        disagreeing = disagreements(verdicts, scores)
        figures = {
            "non_finite_scores": float(broken),
            **judge_diagnostics(verdicts, scores, paid, lengths, disagreeing, group_size),
        }
        if settings.calibrated is not None:
            figures["rm_min"], figures["rm_max"] = settings.calibrated
        weights, warnings = torch.ones_like(rewards), []
        if training:
            warnings += self._remember(verdicts, scores, group_size, figures)
            if self.weight is not None:
                weights = self.weight.weigh(verdicts, scores, group_size)
                warnings += self._tell_of_the_weight(self.weight, verdicts, weights, group_size, figures)
        known = {name: value for name, value in figures.items() if value == value}
        columns = {
            "verdict": verdicts, "score": scores, "disagreement": disagreeing, "difficulty_weight": weights
        }  # fmt: skip
        return Judged(rewards, columns, known, tuple(warnings))

    def _remember(
        self, verdicts: torch.Tensor, scores: torch.Tensor, group_size: int, figures: dict[str, float]
    ) -> list[str]:
        """Move the running figures by a training step, add them to `figures` and say whether the alarm fires."""
        figures["auc_recent"], figures["auc_recent_groups"] = self.ranking.update(verdicts, scores, group_size)
        figures["score_drift"] = self.drift.update(scores[~verdicts.isnan()])
        fires = self.alarm.update(verdicts, scores)
        figures["alarm"] = float(self.alarm.fired)
        return [HACKING] if fires else []

    def _tell_of_the_weight(
        self,
        weight: DifficultyWeight,
        verdicts: torch.Tensor,
        weights: torch.Tensor,
        group_size: int,
        figures: dict[str, float],
    ) -> list[str]:
        """Add what the weights say to `figures`, and say whether they are found to be a switch with this step."""
        figures |= weights_by_kind(verdicts, weights, group_size)
        figures["weight_saturated"] = weight.at_ends
        if weight.sigma_bar is not None:
            figures["sigma_bar"] = weight.sigma_bar
        return [_saturated(weight, self.saturation.window)] if self.saturation.update(weight.at_ends) else []

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to judge as an unbroken one, in JSON types."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; parts that it does not have start anew."""
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"bounds": self.bounds, "ranking": self.ranking, "drift": self.drift, "alarm": self.alarm}
        return parts if self.weight is None else {**parts, "weight": self.weight, "saturation": self.saturation}


def _saturated(weight: DifficultyWeight, steps: int) -> str:
    mend = f"hybrid_k lower, to {weight.k / 2:.2g} for instance"
    if not weight.scale_free and weight.sigma_bar is not None and weight.sigma_bar > 1.0:
        mend = (
            f"hybrid_scale_free to true, or hybrid_k to {weight.k / weight.sigma_bar:.2g}: it counts in units of the "
            f"score, of which a group's deviation is {weight.sigma_bar:.2g} here"
        )
    return (
        f"The difficulty weight has become a switch: most groups of the last {steps} steps weigh about hybrid_w_min = "
        f"{weight.w_min:g} or hybrid_w_max = {weight.w_max:g} (hybrid/weight_saturated). hybrid_k = {weight.k:g} is "
        f"too steep for these scores. Set {mend}."
    )
