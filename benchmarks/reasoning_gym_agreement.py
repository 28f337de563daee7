"""Claim: `MathVerifier` judges answers to reasoning-gym's problems as the generators' own `score_answer` does.

Of each generator, problems are drawn, and each gold is written in four ways that all mean the same; another problem's
gold and a changed one are put beside them. This verifier reads the answer in a box (or in a sentence), `score_answer`
the answer alone; it is taken for right at its full score of 1. Where the two differ, an example is kept with the
reason, which a person has written down in `agreement/whys.json`.

Examples:
  pip install reasoning-gym
  python benchmarks/reasoning_gym_agreement.py                            33 generators, a minute
  python benchmarks/reasoning_gym_agreement.py --generators gcd lcm --problems 100
  python benchmarks/reasoning_gym_agreement.py --output benchmarks/results/reasoning_gym_agreement.json
"""

import argparse
import importlib.metadata
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agreement.notations import NOTATIONS, Answer, written
from agreement.rows import open_generator
from tqdm import tqdm
from verifier_agreement import machine

from trl_hybrid.runs.folder import write_json
from trl_hybrid.verifier import MathVerifier


GENERATORS = (
    "advanced_geometry", "aiw", "base_conversion", "basic_arithmetic", "bitwise_arithmetic", "calendar_arithmetic",
    "chain_sum", "coin_flip", "complex_arithmetic", "count_bits", "countdown", "decimal_arithmetic",
    "decimal_chain_sum", "dice", "fraction_simplification", "gcd", "gsm_symbolic", "intermediate_integration", "lcm",
    "leg_counting", "number_format", "number_sequence", "number_sorting", "polynomial_equations",
    "polynomial_multiplication", "power_function", "prime_factorization", "products", "simple_equations",
    "simple_geometry", "simple_integration", "spiral_matrix", "time_intervals",
)  # fmt: skip
PROBLEMS = 50
WHYS = Path(__file__).parent / "agreement/whys.json"
SIDES = ("both_right", "both_wrong", "only_ours", "only_theirs")


def answers_of(name: str, problems: int) -> list[tuple[Answer, float]]:
    """Draw a generator's problems, and write the answers to each with the scores that it gives itself."""
    generator = open_generator(name, problems)
    entries = [generator[index] for index in range(problems)]
    golds = [str(entry["answer"]) for entry in entries]
    found = []
    for number, entry in enumerate(entries):
        for answer in written(golds[number], golds[number - 1]):
            found.append((answer, own_score(generator, answer.text, entry)))
    return found


def own_score(generator: Any, text: str, entry: dict[str, Any]) -> float:
    """Ask a generator, in [0, 1]; NaN where it fails on the text instead of refusing it."""
    try:
        return float(generator.score_answer(text, entry))
    except ValueError:
        return float("nan")


def compare(name: str, answers: Sequence[tuple[Answer, float]], verifier: MathVerifier) -> dict[str, Any]:
    """Count by notation who calls an answer right, and keep the first answer of each kind of difference."""
    verdicts = verifier.verify_batch([a.completion for a, _ in answers], [a.gold for a, _ in answers])
    table: dict[str, dict[str, int]] = {notation: dict.fromkeys(SIDES, 0) for notation in NOTATIONS}
    examples: dict[str, dict[str, Any]] = {}
    for (answer, score), verdict in zip(answers, verdicts, strict=True):
        side = side_of(verdict.correct is True, score >= 1)
        table[answer.notation][side] += 1
        if side.startswith("only"):
            paid = None if math.isnan(score) else round(score, 3)
            example = {"gold": answer.gold, "answer": answer.text, "reason": verdict.reason, "score": paid}
            examples.setdefault(f"{name} / {answer.notation} / {side}", example)
    return {"notations": {name: row for name, row in table.items() if any(row.values())}, "examples": examples}


def side_of(ours: bool, theirs: bool) -> str:
    """Name who calls an answer right.

    Example:
        >>> side_of(True, True), side_of(False, True)
        ('both_right', 'only_theirs')
    """
    if ours == theirs:
        return "both_right" if ours else "both_wrong"
    return "only_ours" if ours else "only_theirs"


def totals(generators: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Add up over the generators, by notation, with the share of answers on which the two agree."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(SIDES, 0))
    for found in generators.values():
        for notation, row in found["notations"].items():
            for side, count in row.items():
                sums[notation][side] += count
    for row in sums.values():
        agreed = row["both_right"] + row["both_wrong"]
        row["agreement"] = round(agreed / sum(row[side] for side in SIDES), 4)
    return {notation: sums[notation] for notation in NOTATIONS if notation in sums}


def differences(generators: dict[str, Any]) -> list[dict[str, Any]]:
    """List what the two differ on, each kind once, with how often, an example, and why."""
    whys = json.loads(WHYS.read_text(encoding="utf-8"))
    listed = []
    for found in generators.values():
        for kind, example in found.pop("examples").items():
            _, notation, side = kind.split(" / ")
            count = found["notations"][notation][side]
            listed.append({"what": kind, "count": count, **example, "why": whys.get(kind, "not looked at")})
    return listed


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generators", nargs="+", default=[*GENERATORS], metavar="NAME", help="default: 33 of maths")
    parser.add_argument("--problems", type=int, default=PROBLEMS, help="of each (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all of it there as JSON")
    return parser.parse_args()


def main() -> None:
    """Print both tables, and write what was asked for."""
    arguments = read_arguments()
    with MathVerifier() as verifier:
        generators = {
            name: compare(name, answers_of(name, arguments.problems), verifier)
            for name in tqdm(arguments.generators, unit="generator")
        }
    listed, summed = differences(generators), totals(generators)
    print(f"{'notation':22}{'agreement':>10}" + "".join(f"{side.replace('_', ' '):>13}" for side in SIDES))
    for notation, row in summed.items():
        print(f"{notation:22}{row['agreement']:>10.2%}" + "".join(f"{row[side]:>13}" for side in SIDES))
    for kind in listed:
        print(f"\n{kind['what']}: {kind['count']}\n  gold {kind['gold']!r}, answer {kind['answer']!r}")
        print(f"  ours: {kind['reason']}; theirs: {kind['score']}\n  {kind['why']}")
    if arguments.output:
        version = importlib.metadata.version("reasoning-gym")
        content = {"machine": machine(), "reasoning_gym": version, "problems": arguments.problems, "totals": summed}
        write_json(arguments.output, {**content, "generators": generators, "differences": listed})


if __name__ == "__main__":
    main()
