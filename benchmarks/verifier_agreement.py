"""Claim: `MathVerifier` agrees with the labels of real answers at least as often as the graders in common use.

Judges labelled rows with `MathVerifier`, math-verify with the gold boxed and as its README shows it, and TRL's
`accuracy_reward`; prints agreement, wrong accepts and wrong refusals by source. A rival runs in a process of its own
and loses a pair that it does not finish in 20 seconds: it takes minutes for ten thousand rows. A gold that cannot be
judged counts as a refusal.

Files are JSONL or .jsonl.gz. Labelled rows have `completion`, `gold` (or `answer`, `solution`) and `label` (or
`expected`, `correct`), and may have `source`, `level` ("answer": the completion is a bare answer) and `core`. Of
--golds, each answer is put against itself and its worked solution, which are right, and against n + 1, 10 n, -n and
another row's, which are wrong.

Examples:
  python benchmarks/verifier_agreement.py                                              the cases of the tests
  python benchmarks/verifier_agreement.py answers.jsonl --disagreements disagreements.jsonl
  python benchmarks/verifier_agreement.py --golds gsm8k_test.jsonl math500.jsonl --rivals
  python benchmarks/verifier_agreement.py --reasoning-gym simple_equations gcd         pip install reasoning-gym
"""

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path

from agreement.report import disagreements, summarize, table
from agreement.rivals import RIVALS, run_rival
from agreement.rows import Row, gold_checks, read_labelled, reasoning_gym_checks
from tqdm import tqdm

from trl_hybrid.runs.folder import write_json, write_text
from trl_hybrid.verifier import MathVerifier, Verdict


CASES = Path(__file__).parents[1] / "tests/verifier/cases/verifier_cases.jsonl"
LIBRARIES = ("trl", "math-verify", "latex2sympy2_extended", "sympy")
OURS = "MathVerifier"
BATCH = 256


def judge(rows: list[Row]) -> list[Verdict]:
    """This verifier's verdicts."""
    verdicts: list[Verdict] = []
    with MathVerifier() as verifier, tqdm(total=len(rows), desc=OURS, unit="row") as bar:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            verdicts += verifier.verify_batch([row.completion for row in batch], [row.gold for row in batch])
            bar.update(len(batch))
    return verdicts


def read_rows(arguments: argparse.Namespace) -> list[Row]:
    """All rows that the command line asks for; the tests' cases where it names none."""
    named = arguments.files or arguments.golds or arguments.reasoning_gym
    rows = [
        row for path in arguments.files or ([] if named else [CASES]) for row in read_labelled(path, arguments.core)
    ]
    rows += [row for path in arguments.golds for row in gold_checks(path)]
    return rows + [row for name in arguments.reasoning_gym for row in reasoning_gym_checks(name)]


def machine() -> dict[str, object]:
    """On what was measured: no names, no paths."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    cores = len(os.sched_getaffinity(0))
    return {
        "cpu": platform.machine(),
        "cores": cores,
        "versions": versions | {"python": platform.python_version()},
    }


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="labelled files")
    parser.add_argument("--golds", nargs="+", default=[], type=Path, metavar="FILE", help="files of solutions")
    parser.add_argument("--reasoning-gym", nargs="+", default=[], metavar="NAME", help="kinds of its problems")
    parser.add_argument("--rivals", nargs="*", choices=[*RIVALS], default=[*RIVALS], help="none: --rivals alone")
    parser.add_argument("--core", action="store_true", help="without the rows that only one grader's policy decides")
    parser.add_argument("--disagreements", type=Path, metavar="FILE", help="list them there as JSONL, with reasons")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there as JSON")
    return parser.parse_args()


def main() -> None:
    """Print the table, and write what was asked for."""
    arguments = read_arguments()
    rows = read_rows(arguments)
    ours = judge(rows)
    rivals = {name: run_rival(name, rows) for name in arguments.rivals}
    summary = summarize(rows, {OURS: [verdict.correct is True for verdict in ours], **rivals})
    print("\n".join(table(summary)))
    if arguments.disagreements:
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in disagreements(rows, ours, rivals)]
        write_text(arguments.disagreements, "".join(lines))
        print(f"{len(lines)} disagreements of {OURS} are listed in {arguments.disagreements}.")
    if arguments.output:
        write_json(arguments.output, {"machine": machine(), "sources": summary})


if __name__ == "__main__":
    main()
