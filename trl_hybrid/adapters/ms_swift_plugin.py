"""ms-swift: `--external_plugins .../ms_swift_plugin.py --reward_funcs hybrid_reward`.

Looked at with ms-swift 4.6.0.
"""

from typing import Any

from swift.rewards import ORM, orms  # pyright: ignore[reportMissingImports] - the package that reads this

from trl_hybrid.rewards import math_verifier_reward, shared_hybrid_reward


def prompts_of(messages: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Return the conversations without their last turns, which are the completions."""
    return [conversation[:-1] for conversation in messages]


class MathVerifierReward(ORM):
    """1.0 for a right answer, 0.0 for a wrong one, `None` where the column `solution` cannot be judged."""

    def __call__(self, completions: list[str], messages: Any, solution: Any, **kwargs: Any) -> Any:
        """Pay completions; ms-swift adds a `None` up as 0.0, and leaves it out of the logged mean."""
        return math_verifier_reward(prompts_of(messages), completions, solution=solution)


class HybridReward(ORM):
    """Verdict and score combined within each prompt's group; `None` as for the verifier alone."""

    def __call__(self, completions: list[str], messages: Any, solution: Any, **kwargs: Any) -> Any:
        """Pay completions, whole groups of them."""
        reward = shared_hybrid_reward(self.args.num_generations)
        return reward(prompts_of(messages), completions, solution=solution)


orms["math_verifier_reward"] = MathVerifierReward
orms["hybrid_reward"] = HybridReward
