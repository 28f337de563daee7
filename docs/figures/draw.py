"""Draw the figures of docs/method.md, by the package's own functions.

python docs/figures/draw.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_hybrid import hybrid_rewards
from trl_hybrid.hybrid.difficulty import difficulty_weight


FOLDER = Path(__file__).parent
SCORES = [3.0, 5.5, 4.0, -1.0, 0.5, 2.0, 4.5, 6.0]
VERDICTS = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def main() -> None:
    """Draw one group of eight completions, and the weight."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    group, weight = figure.subplots(1, 2)
    draw_group(group)
    draw_weight(weight)
    figure.savefig(FOLDER / "method.png", dpi=130)


def draw_group(axes: Axes, alpha: float = 0.1, beta: float = 0.1) -> None:
    """Show where the completions of one group come to lie in their bands."""
    scores, verdicts = torch.tensor(SCORES, dtype=torch.float64), torch.tensor(VERDICTS, dtype=torch.float64)
    rewards = hybrid_rewards(verdicts, scores, len(SCORES), alpha=alpha, beta=beta)
    for low, high in ((-alpha, alpha), (1 - beta, 1 + beta)):
        axes.axhspan(low, high, color="tab:gray", alpha=0.15)
    for verdict, name, marker in ((1.0, "right", "o"), (0.0, "wrong", "X")):
        chosen = verdicts == verdict
        axes.plot(scores[chosen].tolist(), rewards[chosen].tolist(), marker, markersize=8, label=name)
    axes.set(title="One group: the verdict chooses the band", xlabel="reward model score", ylabel="hybrid reward")
    axes.legend(loc="center left")


def draw_weight(axes: Axes, w_min: float = 0.4, w_max: float = 3.0, k: float = 6.0) -> None:
    """Show the weight of a group by how much its scores differ."""
    sigma = torch.linspace(0, 3, 200, dtype=torch.float64)
    mean = 1.2
    axes.plot(sigma.tolist(), difficulty_weight(sigma, mean, w_min, w_max, k).tolist())
    axes.axvline(mean, color="tab:gray", linestyle=":", label="running mean")
    axes.set(title="Groups whose scores differ weigh more", xlabel="deviation of the group's scores", ylabel="weight")
    axes.legend(loc="upper left")


if __name__ == "__main__":
    main()
