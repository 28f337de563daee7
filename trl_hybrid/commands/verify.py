"""`trl-hybrid verify`: grade completions against gold answers."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.read_rows import read_rows


if TYPE_CHECKING:
    from trl_hybrid.verifier import MathVerifier
    from trl_hybrid.verifier.verdict import Verdict

ROWS_AT_ONCE = 256

GOLD = "gold"
"""A row's gold, besides the columns in which training looks for it."""
LABELS = ("label", "expected", "correct")
"""Columns in which a row says whether its completion is right."""

SUMMARY = "grade completions against gold answers"

DESCRIPTION = "Grade completions against gold answers with the verifier that training uses."

EXAMPLES = r"""examples:
  trl-hybrid verify --completions answers.jsonl --output verdicts.jsonl
  trl-hybrid verify --completions answers.jsonl --dataset_name openai/gsm8k --dataset_config main --dataset_split test
  trl-hybrid verify --completions labelled.jsonl --disagreements disagreements.jsonl

answers.jsonl holds one JSON object a line, such as {"completion": "so \\boxed{4}", "answer": "4"}. The gold is looked
for as in training ("answer", "solution", "reward_model.ground_truth", ...) and under "gold"; "prompt" may be there
too. A gold that is a list demands all its values. "truncated": true marks a completion that was cut off by a length
limit: its last number is no answer, as in training. With --dataset_name the gold answers are those of the data set:
line 1 belongs to its first row and so on, or each line says which row by "index", counted from 0. A gold that training
would leave out judges nothing. With --disagreements each row also says true or false as "label", "expected" or
"correct": whether you call it right.
"""


def add_options(verify: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    add = verify.add_argument
    add("--completions", required=True, type=Path, help="JSONL file of completions")
    add("--output", type=Path, help="where to write the verdicts as JSONL (default: not written)")
    add("--disagreements", type=Path, help="where to list, as JSONL with reasons, what the labels see otherwise")
    add("--label_column", metavar="NAME", help="column of the labels (default: label, expected or correct)")
    add("--overwrite", action="store_true", help="write the output anew although it is there")
    add("--dataset_name", help="data set with the gold answers: id on the Hub, folder or file")
    add("--dataset_config", help="name of the data set's configuration")
    add("--dataset_split", default="train", help="split of the data set (default: train)")
    add("--dataset_solution_column", metavar="NAME", help="column of the gold answers")
    add("--method", default="math_verify", help="math_verify (default), boxed, strict or flexible")
    add("--verifier_timeout", type=float, default=3.0, help="CPU seconds that an answer may take (default: 3)")
    add("--verifier_num_workers", type=int, help="processes that verify (default: as many as cores are to spare)")


def run(args: argparse.Namespace) -> int:
    """Grade the completions, write the verdicts and print their shares."""
    from tqdm import tqdm

    from trl_hybrid.data.golds import find_faults
    from trl_hybrid.verifier import MathVerifier

    rows = read_rows(args.completions, ["completion"])
    _check_texts(args.completions, rows)
    golds = _data_set_golds(args, rows) if args.dataset_name else _own_golds(args.completions, rows)
    labels = read_labels(args.completions, rows, args.label_column) if args.disagreements else None
    _check_files(args)
    for path in (args.output, args.disagreements):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    verdicts = []
    with (
        MathVerifier(args.method, timeout=args.verifier_timeout, num_workers=args.verifier_num_workers) as verifier,
        args.output.open("w", encoding="utf-8") if args.output else nullcontext() as file,
        tqdm(total=len(rows), unit="row") as bar,
    ):
        faults = find_faults(verifier, golds)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            batch, own = rows[start : start + ROWS_AT_ONCE], golds[start : start + ROWS_AT_ONCE]
            judged = _judged(verifier, batch, own, faults)
            verdicts += judged
            if file is not None:
                file.writelines(_line(row, verdict) for row, verdict in zip(batch, judged, strict=True))
            bar.update(len(batch))
    _print_table(verdicts)
    _print_faults(golds, faults)
    if labels is not None:
        lines = [_disagreement(*line) for line in zip(rows, labels, verdicts, strict=True) if _differ(*line[1:])]
        args.disagreements.write_text("".join(lines), encoding="utf-8")
        _print_agreement(labels, verdicts, args.disagreements)
    return 0


def read_labels(path: Path, rows: Sequence[dict[str, Any]], column: str | None = None) -> list[bool]:
    """Whether each row calls its completion right.

    Raises:
        InputError: A row has no such column, or its label is neither true nor false, 1 nor 0.
    """
    labels = []
    for number, row in enumerate(rows, start=1):
        name = next((name for name in ((column,) if column else LABELS) if name in row), None)
        if name is None:
            raise InputError(
                f"Row {number} of {str(path)!r} must say as {column or 'label, expected or correct'} whether its "
                f"completion is right; it has {', '.join(row)}. Name the column of your labels by --label_column."
            )
        if row[name] not in (True, False):  # 1 and 0 are these
            raise InputError(
                f"The label {name!r} of row {number} of {str(path)!r} must be true or false, got {row[name]!r}."
            )
        labels.append(bool(row[name]))
    return labels


def _check_texts(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Refuse, before anything is judged, a completion or a prompt that is neither text nor messages."""
    from trl_hybrid.verifier.rows import text_of

    for number, row in enumerate(rows, start=1):
        for name, value in (("completion", row["completion"]), ("prompt", row.get("prompt") or "")):
            try:
                text_of(value, f"`{name}`")
            except TypeError as error:
                raise InputError(f"Row {number} of {str(path)!r}: {error} Correct the row.") from error


def _check_files(args: argparse.Namespace) -> None:
    for option, path in (("--output", args.output), ("--disagreements", args.disagreements)):
        if path is None or not path.exists():
            continue
        if path.samefile(args.completions):
            raise InputError(f"{option} must be another file than --completions, got {str(path)!r} for both.")
        if not args.overwrite:
            raise InputError(
                f"The file {str(path)!r} exists and is not written over. Name another {option}, or add --overwrite."
            )
    if None not in (args.disagreements, args.output) and args.disagreements.resolve() == args.output.resolve():
        raise InputError(f"--disagreements and --output must be two files, got {str(args.output)!r} for both.")


def _judged(
    verifier: MathVerifier, rows: Sequence[dict[str, Any]], golds: Sequence[str], faults: dict[str, str]
) -> list[Verdict]:
    """Judge a batch; the golds by which training leaves a problem out judge nothing."""
    completions, prompts = [row["completion"] for row in rows], [row.get("prompt", "") for row in rows]
    verdicts = verifier.verify_batch(completions, golds, prompts, [row.get("truncated", False) for row in rows])
    return [
        replace(verdict, correct=None, reward=None, reason="unjudgeable") if gold in faults else verdict
        for gold, verdict in zip(golds, verdicts, strict=True)
    ]


def _line(row: dict[str, Any], verdict: Verdict) -> str:
    own = {"correct": verdict.correct, "parsed_answer": verdict.parsed_answer, "reason": verdict.reason}
    return json.dumps({**row, **own}, ensure_ascii=False) + "\n"


def _differ(label: bool, verdict: Verdict) -> bool:
    return verdict.correct is not None and verdict.correct != label


def _disagreement(row: dict[str, Any], label: bool, verdict: Verdict) -> str:
    own = {"gold_read": verdict.gold, "form": verdict.form}
    return _line({**row, "label": label, **own}, verdict)


def _print_agreement(labels: Sequence[bool], verdicts: Sequence[Verdict], path: Path) -> None:
    """Print how often the labels agree, of the rows that could be judged, and where the others are listed."""
    judged = [(label, verdict) for label, verdict in zip(labels, verdicts, strict=True) if verdict.correct is not None]
    differing = [label for label, verdict in judged if _differ(label, verdict)]
    if judged:
        print(f"{'agreement':12} {'':14} {len(judged) - len(differing):8d} {1 - len(differing) / len(judged):7.1%}")
    print(
        f"{len(differing)} disagreements ({sum(differing)} labelled right, {len(differing) - sum(differing)} labelled "
        f"wrong) are listed in {path}."
    )


def _print_table(verdicts: Sequence[Verdict]) -> None:
    outcome = {True: "right", False: "wrong", None: "not judged"}
    total = Counter(outcome[verdict.correct] for verdict in verdicts)
    for (correct, reason), count in sorted(Counter((outcome[v.correct], v.reason) for v in verdicts).items()):
        print(f"{correct:12} {reason:14} {count:8d} {count / len(verdicts):7.1%}")
    print(f"{'right of all':12} {'':14} {total['right']:8d} {total['right'] / len(verdicts):7.1%}")


def _print_faults(golds: Sequence[str], faults: dict[str, str]) -> None:
    """Say why rows were not judged, the commonest reason first."""
    from trl_hybrid.data.task_report import GOLD_WIDTH, shortened

    for fault, count in Counter(faults[gold] for gold in golds if gold in faults).most_common():
        row = next(number for number, gold in enumerate(golds, start=1) if faults.get(gold) == fault)
        print(f"not judged in {count}: {fault} (first in row {row}, gold {shortened(golds[row - 1], GOLD_WIDTH)!r})")


def _own_golds(path: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    from trl_hybrid.data.columns import SOLUTION_COLUMNS, column_paths, gold_text, value_at

    names = (GOLD, *SOLUTION_COLUMNS)
    golds = []
    for number, row in enumerate(rows, start=1):
        name = next((name for name in names if name in column_paths(row)), None)
        if name is None:
            raise InputError(
                f"Row {number} of {str(path)!r} must have a gold answer as {', '.join(names[:-1])} or {names[-1]}; "
                f"it has {', '.join(row)}. Or name the data set with the gold answers by --dataset_name."
            )
        golds.append(gold_text(value_at(row, name), name))
    return golds


def _data_set_golds(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> list[str]:
    from trl_hybrid.data import load_tasks

    column = args.dataset_solution_column
    tasks: Any = load_tasks(args.dataset_name, args.dataset_config, args.dataset_split, solution_column=column)
    golds = list(tasks["solution"])
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
