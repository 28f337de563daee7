"""`trl-hybrid verify`: grade completions against gold answers."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from trl_hybrid.commands.rows import read_rows
from trl_hybrid.errors import InputError


BATCH = 256

GOLD_NAMES = ("solution", "answer", "gold")

EXAMPLES = r"""examples:
  trl-hybrid verify --completions answers.jsonl --output verdicts.jsonl
  trl-hybrid verify --completions answers.jsonl --dataset_name openai/gsm8k --dataset_config main --dataset_split test

answers.jsonl holds one JSON object a line, such as {"completion": "so \\boxed{4}", "answer": "4"}. "solution" and
"gold" are other names for "answer"; "prompt" may be there too. With --dataset_name the gold answers are those of the
data set: line 1 belongs to its first row and so on, or each line says which row by "index", counted from 0.
"""


def add_parser(commands: Any) -> None:
    """Describe the command to the command line."""
    verify = commands.add_parser(
        "verify",
        help="grade completions against gold answers",
        description="Grade completions against gold answers with the verifier that training uses.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = verify.add_argument
    add("--completions", required=True, type=Path, help="JSONL file of completions")
    add("--output", type=Path, help="where to write the verdicts as JSONL (default: not written)")
    add("--dataset_name", help="data set with the gold answers: id on the Hub, folder or file")
    add("--dataset_config", help="name of the data set's configuration")
    add("--dataset_split", default="train", help="split of the data set (default: train)")
    add("--method", default="math_verify", help="math_verify (default), boxed, strict or flexible")
    add("--timeout", type=float, default=3.0, help="seconds that an answer may take (default: 3)")
    add("--num_workers", type=int, help="processes that verify (default: as many as cores are to spare)")
    verify.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Grade the completions, write the verdicts and print their shares."""
    from tqdm.auto import tqdm

    from trl_hybrid.verifier import MathVerifier

    rows = read_rows(args.completions, ["completion"])
    golds = _data_set_golds(args, rows) if args.dataset_name else _own_golds(args.completions, rows)
    if args.output is not None and args.output.exists():
        raise InputError(f"The file {str(args.output)!r} exists and is not written over. Name another --output.")
    verdicts = []
    with (
        MathVerifier(args.method, timeout=args.timeout, num_workers=args.num_workers) as verifier,
        args.output.open("w", encoding="utf-8") if args.output else nullcontext() as file,
        tqdm(total=len(rows), unit="row") as bar,
    ):
        for start in range(0, len(rows), BATCH):
            batch, own = rows[start : start + BATCH], golds[start : start + BATCH]
            judged = verifier.verify_batch(
                [row["completion"] for row in batch], own, [row.get("prompt", "") for row in batch]
            )
            verdicts += judged
            if file is not None:
                file.writelines(_line(row, verdict) for row, verdict in zip(batch, judged, strict=True))
            bar.update(len(batch))
    _print_table(verdicts)
    return 0


def _line(row: dict[str, Any], verdict: Any) -> str:
    own = {"correct": verdict.correct, "parsed_answer": verdict.parsed_answer, "reason": verdict.reason}
    return json.dumps({**row, **own}, ensure_ascii=False) + "\n"


def _print_table(verdicts: Sequence[Any]) -> None:
    outcome = {True: "right", False: "wrong", None: "not judged"}
    total = Counter(outcome[verdict.correct] for verdict in verdicts)
    for (correct, reason), count in sorted(Counter((outcome[v.correct], v.reason) for v in verdicts).items()):
        print(f"{correct:12} {reason:14} {count:8d} {count / len(verdicts):7.1%}")
    print(f"{'right of all':12} {'':14} {total['right']:8d} {total['right'] / len(verdicts):7.1%}")


def _own_golds(path: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    golds = []
    for number, row in enumerate(rows, start=1):
        gold = next((row[name] for name in GOLD_NAMES if name in row), None)
        if gold is None:
            raise InputError(
                f"Row {number} of {str(path)!r} must have a gold answer as {', '.join(GOLD_NAMES[:-1])} or "
                f"{GOLD_NAMES[-1]}; it has {', '.join(row)}. Or name the data set with the gold answers by "
                "--dataset_name."
            )
        golds.append(str(gold))
    return golds


def _data_set_golds(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> list[str]:
    from trl_hybrid.data import load_tasks

    golds = list(load_tasks(args.dataset_name, args.dataset_config, args.dataset_split)["solution"])
    if len(rows) != len(golds) and not all("index" in row for row in rows):
        raise InputError(
            f"Every row of the data set needs one completion, or each completion an `index`: got {len(rows)} "
            f"completions for {len(golds)} rows of {args.dataset_name!r}. Check --dataset_split, or add `index`."
        )
    indices = [row.get("index", number) for number, row in enumerate(rows)]
    wrong = [index for index in indices if not (isinstance(index, int) and 0 <= index < len(golds))]
    if wrong:
        raise InputError(f"An `index` must be a whole number from 0 to {len(golds) - 1}, got {wrong[0]!r}.")
    return [golds[index] for index in indices]
