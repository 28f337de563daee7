"""The verifier and the hybrid reward, on cases whose outcome is known."""

import math
import time
from collections.abc import Iterator

from trl_hybrid.checks.finding import Finding
from trl_hybrid.verifier import MathVerifier


# A tower that a library without a deadline calculates for ever.
HOSTILE = r"\boxed{\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}}"

KNOWN_ANSWERS = (
    ("a right answer", r"So it is $\boxed{\frac{3}{4}}$.", "0.75", True),
    ("a right answer that takes algebra", r"So it is $\boxed{x^2 + 2x + 1}$.", "(x+1)^2", True),
    ("a wrong answer", r"So it is $\boxed{\frac{3}{5}}$.", "0.75", False),
    ("a gold that is no answer", r"So it is $\boxed{1}$.", "", None),
)


def check_verifier(verifier: MathVerifier) -> Iterator[Finding]:
    """Have right, wrong, unjudgeable and hostile answers judged, the last within its deadline."""
    fix = "The installation is damaged: pip install --force-reinstall math-verify"
    for what, completion, gold, expected in KNOWN_ANSWERS:
        verdict = verifier.verify(None, completion, gold)
        names = {True: "right", False: "wrong", None: "not to be judged"}
        text = f"{what} is {names[verdict.correct]} ({verdict.reason})"
        yield Finding("ok" if verdict.correct is expected else "problem", text, fix)
    started = time.perf_counter()
    hostile = verifier.verify(None, HOSTILE, "13")
    seconds = time.perf_counter() - started
    spare = "Raise --verifier_timeout, or lower --verifier_num_workers where the machine is busy."
    text = f"an answer that would take for ever is wrong ({hostile.reason}) after {seconds:.1f} s"
    in_time = hostile.correct is False and seconds < 2 * verifier.timeout + 2
    yield Finding("ok" if in_time else "problem", text, spare)


def check_hybrid_reward() -> Iterator[Finding]:
    """Combine a group that was worked out by hand.

    Right answers with scores 2 and 4 take the ends of [0.9, 1.1]; wrong ones with 1, 2 and 3 the ends and the middle
    of [-0.1, 0.1].
    """
    import torch

    from trl_hybrid.hybrid import hybrid_rewards

    verdicts, scores = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]), torch.tensor([2.0, 1.0, 3.0, 4.0, 2.0])
    paid = hybrid_rewards(verdicts, scores, group_size=5, alpha=0.1, beta=0.1).tolist()
    by_hand = [0.9, -0.1, 0.1, 1.1, 0.0]
    same = all(math.isclose(one, other, abs_tol=1e-5) for one, other in zip(paid, by_hand, strict=True))
    shown = " ".join(f"{round(reward, 2) + 0.0:.2f}" for reward in paid)
    text = f"verdicts 1 0 0 1 0 and scores 2 1 3 4 2 give the rewards {shown}"
    yield Finding("ok" if same else "problem", text, "Install torch again: it calculates something else.")
