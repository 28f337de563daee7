"""Claim: `MathVerifier` agrees with the labels of public verifier tests more often than the graders in common use.

Runs the labelled pairs of `tests/verifier/cases/verifier_cases.jsonl` through `MathVerifier`, TRL's `accuracy_reward`,
math-verify as its README shows it, and math-verify with the gold boxed; prints agreement and wrong accepts by source.
A rival runs in a process of its own and loses a pair that it does not finish in 20 seconds.

    python benchmarks/verifier_agreement.py [--cases FILE] [--all]
"""

import argparse
import json
import logging
import multiprocessing
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pebble import ProcessPool

from trl_hybrid.verifier import MathVerifier


CASES = Path(__file__).parents[1] / "tests/verifier/cases/verifier_cases.jsonl"
Pair = tuple[str, str]


def trl_accuracy_reward(pair: Pair) -> bool:
    """TRL's reward function on one (gold, completion)."""
    from trl.rewards import accuracy_reward

    gold, completion = pair
    return accuracy_reward([[{"role": "assistant", "content": completion}]], [gold]) == [1.0]


def plain_math_verify(pair: Pair) -> bool:
    """`verify(parse(gold), parse(completion))`."""
    from math_verify import parse, verify

    gold, completion = pair
    return verify(parse(gold), parse(completion))


def boxed_math_verify(pair: Pair) -> bool:
    """The same, the gold boxed unless it brings an environment of its own."""
    gold, completion = pair
    return plain_math_verify((gold if "$" in gold or r"\boxed" in gold else rf"\boxed{{{gold}}}", completion))


RIVALS: dict[str, Callable[[Pair], bool]] = {
    "TRL accuracy_reward": trl_accuracy_reward,
    "math-verify": plain_math_verify,
    "math-verify, gold boxed": boxed_math_verify,
}


def run_rival(rival: Callable[[Pair], bool], pairs: list[Pair]) -> list[bool]:
    """A rival's verdicts; a pair that it does not finish, or fails on, is a refusal."""
    context = multiprocessing.get_context("spawn")
    with ProcessPool(max_workers=1, context=context, initializer=logging.disable, initargs=[logging.CRITICAL]) as pool:
        futures = [pool.schedule(rival, args=[pair], timeout=20) for pair in pairs]
        return [future.exception() is None and bool(future.result()) for future in futures]


def read_cases(path: Path, core_only: bool) -> list[dict[str, Any]]:
    """The labelled rows, with a bare answer put into a box."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        if row["level"] == "answer":
            row["completion"] = rf"\boxed{{{row['completion']}}}"
    return [row for row in rows if row["core"] or not core_only]


def print_table(rows: list[dict[str, Any]], verdicts: dict[str, list[bool]]) -> None:
    """Agreement by source and in all, wrong accepts in the last line."""
    sources: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        sources[row["source"].split(":")[0]].append(index)
    print(f"{'source':44}{'pairs':>6}" + "".join(f"{name:>25}" for name in verdicts))
    for source, indices in [*sorted(sources.items()), ("all", list(range(len(rows))))]:
        shares = [sum(found[i] == rows[i]["expected"] for i in indices) / len(indices) for found in verdicts.values()]
        print(f"{source:44}{len(indices):>6}" + "".join(f"{share:>25.1%}" for share in shares))
    accepts = [sum(found[i] and not rows[i]["expected"] for i in range(len(rows))) for found in verdicts.values()]
    print(f"{'wrong accepts':50}" + "".join(f"{count:>25}" for count in accepts))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=CASES, help="JSONL with gold, completion, expected, level, core")
    parser.add_argument("--all", action="store_true", help="also the rows that only one grader's policy decides")
    arguments = parser.parse_args()
    rows = read_cases(arguments.cases, core_only=not arguments.all)
    pairs = [(row["gold"], row["completion"]) for row in rows]
    with MathVerifier() as verifier:
        ours = verifier.verify_batch([completion for _, completion in pairs], [gold for gold, _ in pairs])
    verdicts = {"MathVerifier": [verdict.correct is True for verdict in ours]}
    verdicts |= {name: run_rival(rival, pairs) for name, rival in RIVALS.items()}
    print_table(rows, verdicts)


if __name__ == "__main__":
    main()
