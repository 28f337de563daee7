"""Claim: `MathVerifier` is ten times as fast as TRL's `accuracy_reward` on GSM8K-like groups, three times on MATH's.

The second ratio is per core: one worker. Two workers judge at least 1.4 times as much as one.

Both judge the same completions in one run, turn by turn; every round has new numbers, so that no memo helps. Starting
the workers and importing TRL are not counted. Prints medians of the rounds.

    python benchmarks/verifier_speed.py [--rounds 5] [--groups 16]
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

from trl.rewards import accuracy_reward

from trl_hybrid.verifier import MathVerifier


GROUP = 8
FILLER = (
    "Let us look at what is given, step by step. We have $a = {a}$ and $b = {b}$, so that $a + b = {s}$. Each of them "
    "counts once, hence nothing is lost when we take both sides together and simplify. We check this line by line. "
) * 4
# Golds of MATH's kind, a right answer in another spelling, and wrong answers.
TEMPLATES = [
    (r"\frac{{{a}}}{{{b}}}", r"\dfrac{{{a}}}{{{b}}}", r"\frac{{{b}}}{{{a}}}", "{a}.5"),
    (r"{a}\sqrt{{3}}+{b}", r"{b}+{a}\sqrt 3", r"{a}\sqrt{{2}}+{b}", r"{a}\sqrt{{3}}-{b}"),
    ("({a},{b})", "({a}, {b})", "({b},{a})", "({a},{s})"),
    ("x^2+{a}x+{b}", "{b}+{a}x+x^2", "x^2+{b}x+{a}", "x^2-{a}x+{b}"),
    (r"[{a},{a}{b})", r"{a} \le x < {a}{b}", "[{a},{a}{b}]", "({a},{a}{b})"),
    (r"{a}\pi", r"\pi \cdot {a}", r"{b}\pi", r"\frac{{{a}\pi}}{{2}}"),
    (r"\frac{{x+{a}}}{{x-{b}}}", r"\frac{{{a}+x}}{{x-{b}}}", r"\frac{{x-{a}}}{{x-{b}}}", r"\frac{{x+{b}}}{{x-{a}}}"),
    (r"{a}", r"{a}.0", "{b}", r"\frac{{{a}}}{{7}}"),
]
Batch = tuple[list[str], list[str]]


def completion_with(answer: str, values: dict[str, int]) -> str:
    """A worked solution of the usual length around one answer."""
    return FILLER.format(**values) + rf"Therefore the answer is $\boxed{{{answer}}}$."


def gsm8k_groups(groups: int, generator: random.Random) -> Batch:
    """Integer answers, three different ones in a group."""
    completions, golds = [], []
    for _ in range(groups):
        a, b = generator.sample(range(10, 100_000), 2)
        values = {"a": a, "b": b, "s": a + b}
        completions += [
            completion_with(str(generator.choice([a + b, a + b, a + b + 1, a])), values) for _ in range(GROUP)
        ]
        golds += [str(a + b)] * GROUP
    return completions, golds


def math_groups(groups: int, generator: random.Random) -> Batch:
    """Expressions, intervals, tuples and fractions, four different answers in a group."""
    completions, golds = [], []
    for index in range(groups):
        a, b = generator.sample(range(2, 1000), 2)
        values = {"a": a, "b": b, "s": a + b}
        answers = [template.format(**values) for template in TEMPLATES[index % len(TEMPLATES)]]
        completions += [completion_with(answer, values) for answer in answers * (GROUP // len(answers))]
        golds += [answers[0]] * GROUP
    return completions, golds


def seconds(judge: Callable[[Batch], object], batch: Batch) -> float:
    """Wall time of one batch."""
    start = time.perf_counter()
    judge(batch)
    return time.perf_counter() - start


def by_trl(batch: Batch) -> object:
    """TRL's reward function, the gold in dollars as it asks for."""
    completions, golds = batch
    return accuracy_reward(
        [[{"role": "assistant", "content": text}] for text in completions], [f"${g}$" for g in golds]
    )


def measure(
    name: str, make: Callable[[int, random.Random], Batch], groups: int, rounds: int, warm: MathVerifier
) -> None:
    """Print the median time of both on the same batches, and the ratio."""
    generator = random.Random(0)
    times = []
    for _ in range(rounds):
        batch = make(groups, generator)
        times.append((seconds(by_trl, batch), seconds(lambda rows: warm.verify_batch(*rows), batch)))
    trl, ours = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(theirs / mine for theirs, mine in times)
    rows = groups * GROUP
    print(
        f"{name:12} {rows} completions: TRL {1e3 * trl:8.1f} ms, MathVerifier {1e3 * ours:8.1f} ms, ratio {ratio:6.1f}"
    )


def measure_scaling(one: MathVerifier, two: MathVerifier, groups: int, rounds: int) -> None:
    """Print how much more two workers judge than one, on pairs that all need algebra."""
    generator = random.Random(1)
    ratios = []
    for _ in range(rounds):
        pairs = [generator.sample(range(2, 10_000), 2) for _ in range(groups * GROUP)]
        batch = [rf"\boxed{{x^2+{a}x+{b}}}" for a, b in pairs], [rf"{b}+x(x+{a})" for a, b in pairs]
        alone = seconds(lambda rows: one.verify_batch(*rows), batch)
        ratios.append(alone / seconds(lambda rows: two.verify_batch(*rows), batch))
    print(
        f"two workers judge {statistics.median(ratios):.2f} times as much as one ({groups * GROUP} pairs of algebra)"
    )


def main() -> None:
    """Print the three ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--groups", type=int, default=16, help=f"groups of {GROUP} completions in a batch")
    arguments = parser.parse_args()
    with MathVerifier(num_workers=1) as one, MathVerifier(num_workers=2) as two:
        for verifier in (one, two):
            verifier.verify_batch([r"\boxed{x+y+1}", r"\boxed{x+y+2}"] * 2, ["1+y+x", "2+y+x", "3+y+x", "4+y+x"])
        by_trl(math_groups(1, random.Random(2)))
        measure("GSM8K-like", gsm8k_groups, arguments.groups, arguments.rounds, one)
        measure("MATH-like", math_groups, arguments.groups, arguments.rounds, one)
        measure_scaling(one, two, arguments.groups, arguments.rounds)


if __name__ == "__main__":
    main()
