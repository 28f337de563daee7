"""The command `trl-hybrid`."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError, plain_errors


VERIFY_EXAMPLE = """example:
  trl-hybrid verify --completions answers.jsonl --output verdicts.jsonl

answers.jsonl holds one JSON object a line, such as {"completion": "so \\boxed{4}", "answer": "4"}. "solution" and
"gold" are other names for "answer"; "prompt" may be there too.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="trl-hybrid", description="Tools around hybrid-reward GRPO.")
    parser.add_argument("--version", action="version", version=f"trl-hybrid {version('trl-hybrid')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    verify = commands.add_parser(
        "verify",
        help="grade completions against gold answers",
        description="Grade completions against gold answers with the verifier that training uses.",
        epilog=VERIFY_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("--completions", required=True, type=Path, help="JSONL file of completions and gold answers")
    verify.add_argument("--output", type=Path, help="where to write the verdicts as JSONL (default: not written)")
    verify.add_argument("--timeout", type=float, default=3.0, help="seconds an answer may take (default: 3)")
    verify.add_argument(
        "--num_workers", type=int, help="processes that verify (default: as many as there are cores to spare)"
    )
    parsed = parser.parse_args(args)
    with plain_errors():
        return _verify(parsed.completions, parsed.output, parsed.timeout, parsed.num_workers)


def _verify(completions: Path, output: Path | None, timeout: float, num_workers: int | None) -> int:
    from tqdm.auto import tqdm

    from trl_hybrid.verifier import MathVerifier

    rows = _read_rows(completions)
    if output is not None and output.exists():
        raise InputError(f"The file {str(output)!r} exists and is not written over. Name another --output.")
    verdicts = []
    with MathVerifier(timeout=timeout, num_workers=num_workers) as verifier, tqdm(total=len(rows), unit="row") as bar:
        for start in range(0, len(rows), 256):
            batch = rows[start : start + 256]
            verdicts += verifier.verify_batch(
                [row["completion"] for row in batch],
                [row["solution"] for row in batch],
                [row.get("prompt", "") for row in batch],
            )
            bar.update(len(batch))
    if output is not None:
        lines = (
            {**row, "correct": v.correct, "parsed_answer": v.parsed_answer, "reason": v.reason}
            for row, v in zip(rows, verdicts, strict=True)
        )
        output.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    outcome = {True: "right", False: "wrong", None: "not judged"}
    for (correct, reason), count in Counter((outcome[v.correct], v.reason) for v in verdicts).most_common():
        print(f"{correct:12} {reason:14} {count:8d} {count / len(verdicts):7.1%}")
    return 0


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"Line {number} of {str(path)!r} is not JSON: {error}") from error
        gold = next((row[name] for name in ("solution", "answer", "gold") if name in row), None)
        if gold is None or "completion" not in row:
            raise InputError(
                f"Line {number} of {str(path)!r} must have `completion` and one of `solution`, `answer`, `gold`; it "
                f"has {', '.join(row)}."
            )
        rows.append({**row, "solution": str(gold)})
    if not rows:
        raise InputError(f"The file {str(path)!r} holds no rows.")
    return rows


if __name__ == "__main__":
    sys.exit(main())
