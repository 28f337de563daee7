"""`trl-hybrid score`: score completions with the reward model."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import Field, fields
from math import isfinite
from pathlib import Path
from statistics import fmean, pstdev
from types import NoneType
from typing import TYPE_CHECKING, Any, BinaryIO, get_args, get_type_hints

from trl_hybrid.commands.scores_file import OWN_NAMES, read_scores, scores_file
from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.read_rows import read_rows
from trl_hybrid.evaluation.rows_file import RowsFile, score_fields


if TYPE_CHECKING:
    from trl_hybrid.recipe.options import JudgeArguments
    from trl_hybrid.reward_model import RewardModel
    from trl_hybrid.reward_model.footprint import Need


BATCH_SIZE = 512

CHECKED_ROWS = 8
"""Rows of an earlier run that are scored again before it goes on."""

PREFIX = "reward_model_"

IN_HELP = ("reward_model_name_or_path", "reward_model_system_prompt", "reward_model_placement")
"""What a first use needs; the others are the training recipe's."""

LEAVE_SCORES_ALONE = (
    "trust_remote_code", "token_budget", "placement", "deepspeed_config", "server_url", "server_timeout",
)  # fmt: skip
"""Options of the reward model, without their prefix, that say how it is run and not what it gives."""

SUMMARY = "score completions with the reward model"

USAGE = "--completions FILE --output FILE [--OPTION VALUE ...]"

DESCRIPTION = "Score completions with the reward model that training uses. What is done is kept when it stops."

EXAMPLES = r"""examples:
  trl-hybrid score --completions answers.jsonl --output scores.jsonl
  trl-hybrid score --completions answers.jsonl --output scores.jsonl --reward_model_name_or_path my/reward-model

All of the recipe's options of the reward model are taken: python recipes/tinyllama_grpo.py --help_all

answers.jsonl holds one JSON object a line, such as {"prompt": "What is 2 + 2?", "completion": "so \\boxed{4}"}. Both
may be chat messages. "truncated": true marks a completion that was cut off by a length limit. Other fields are kept.

scores.jsonl has the same rows in the same order with "score", the raw score, and "reward_model", the model and the
settings that made it. A score that is not finite is null, with "nan", "inf" or "-inf" under "nonfinite"; such scores
are counted at the end and the exit status is 1.

The same command, without --overwrite, goes on where an earlier one stopped, if the rows and the reward model are the
same. A score's last digits depend on the batch that it was computed in.
"""


def add_options(score: argparse.ArgumentParser) -> None:
    """Add the command's own options, and the reward model's of the recipe."""
    add = score.add_argument
    add("--completions", metavar="FILE", required=True, type=Path, help="JSONL file of prompts and completions")
    add("--output", metavar="FILE", required=True, type=Path, help="JSONL file to write scores to, or to go on with")
    add("--overwrite", action="store_true", help="write the output anew although it holds scores")
    rows = f"rows at once, and between two saves (default: {BATCH_SIZE})"
    add("--batch_size", metavar="N", type=int, default=BATCH_SIZE, help=rows)
    _add_reward_model_options(score)


def run(args: argparse.Namespace) -> int:
    """Score the rows that have no score yet, append them to the output and print a summary.

    Return 0; 1 if a score is not finite; 130 after Ctrl-C.
    """
    from trl_hybrid.recipe.options import JudgeArguments

    judges = JudgeArguments(**{name: value for name, value in vars(args).items() if name.startswith(PREFIX)})
    _check_settings(args)
    rows = read_rows(args.completions, ["prompt", "completion"])
    for number, row in enumerate(rows, start=1):
        _check_row(row, f"Row {number} of {str(args.completions)!r}")
    file = scores_file(args.output, rows, describe(judges))
    scores, end = ([], 0) if args.overwrite else read_scores(file)
    try:
        if len(scores) < len(rows):
            scores = _score_rest(file, judges, scores, end, args.batch_size)
        else:
            print(f"All {len(rows)} rows are scored already.")
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nInterrupted. The same command, without --overwrite, goes on after the rows that are saved.\n"
        )
        return 130
    return _print_summary(scores)


def describe(judges: JudgeArguments) -> dict[str, Any]:
    """Return what decides about the scores: the reward model's name and the settings that are not the default."""
    given = {
        option.name.removeprefix(PREFIX): getattr(judges, option.name)
        for option in _options()
        if getattr(judges, option.name) != option.default
    }
    settings = {name: value for name, value in given.items() if name not in LEAVE_SCORES_ALONE}
    return {"name_or_path": judges.reward_model_name_or_path, **settings}


def load_reward_model(judges: JudgeArguments, reserved_memory: Need | int = 0) -> RewardModel:
    """Load the reward model. It remembers no scores, so that a run in two parts gives the scores of a run in one."""
    from trl_hybrid.recipe.options import reward_model_settings
    from trl_hybrid.reward_model import RewardModel

    settings = reward_model_settings(judges)
    return RewardModel(judges.reward_model_name_or_path, cache_size=0, reserved_memory=reserved_memory, **settings)


def _options() -> list[Field[Any]]:
    """Return the fields of `JudgeArguments` that describe the reward model."""
    from trl_hybrid.recipe.options import JudgeArguments

    return [option for option in fields(JudgeArguments) if option.name.startswith(PREFIX)]


def _add_reward_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the reward model's options with the names, defaults and help that training has for them."""
    from trl_hybrid.recipe.options import JudgeArguments

    group = parser.add_argument_group("reward model")
    kinds = get_type_hints(JudgeArguments)
    for option in _options():
        shown = "" if option.default in (None, False) else " (default: %(default)s)"
        help_text = option.metadata["help"].rstrip(".") + shown if option.name in IN_HELP else argparse.SUPPRESS
        common: dict[str, Any] = {"default": option.default, "help": help_text}
        kind = next(kind for kind in get_args(kinds[option.name]) or [kinds[option.name]] if kind is not NoneType)
        if kind is bool:
            group.add_argument(f"--{option.name}", action="store_true", **common)
        else:
            choices = option.metadata.get("choices")
            metavar = None if choices else "VALUE"
            group.add_argument(f"--{option.name}", type=kind, choices=choices, metavar=metavar, **common)


def _check_settings(args: argparse.Namespace) -> None:
    output = args.output
    if args.batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, got {args.batch_size}.")
    if output.exists() and not output.is_file():
        raise InputError(f"--output must be a file, got {str(output)!r}. Name a file in it.")
    if not output.parent.is_dir():
        raise InputError(f"The folder {str(output.parent)!r} of --output does not exist. Make it, or name another.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise InputError(f"--output must be writable, but {str(output)!r} is not. Name another file.")
    if output.exists() and args.completions.exists() and output.samefile(args.completions):
        raise InputError(f"--output must be another file than --completions, got {str(output)!r} for both.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"`trl-hybrid score` writes its file from one process, but WORLD_SIZE is {os.environ['WORLD_SIZE']}. "
            "Start it without `accelerate launch`."
        )


def _check_row(row: dict[str, Any], place: str) -> None:
    """Refuse what would fail only after hours of scoring."""
    for name in ("prompt", "completion"):
        if not _is_conversation(row[name]):
            raise InputError(
                f"{place} must have text or chat messages such as "
                f'[{{"role": "user", "content": "..."}}] as `{name}`, got {str(row[name])[:80]!r}.'
            )
    taken = [name for name in OWN_NAMES if name in row]
    if taken:
        raise InputError(f"{place} has `{taken[0]}`, which the command would write over. Rename the field.")


def _is_conversation(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in value)
    )


def _score_rest(
    file: RowsFile, judges: JudgeArguments, earlier: Sequence[float], end: int, batch_size: int
) -> list[float]:
    """Score the rows without a score and save them batch by batch; return the scores of all rows."""
    model = load_reward_model(judges)
    _check_earlier(model, file.rows, earlier, file.path)
    if earlier:
        print(f"Going on after row {len(earlier)} of {len(file.rows)}.")
    started = time.monotonic()
    with file.path.open("ab") as output:
        output.truncate(end)  # a torn last line, or with --overwrite everything
        fresh, shortened = _score_batches(model, file, len(earlier), batch_size, output)
    seconds = time.monotonic() - started
    print(f"{'rows scored now':16} {len(fresh):8d}   in {seconds:.1f} s, {len(fresh) / seconds:.1f} a second")
    print(f"{'shortened to fit':16} {shortened:8d}   of them")
    return [*earlier, *fresh]


def _check_earlier(model: RewardModel, rows: Sequence[dict[str, Any]], earlier: Sequence[float], path: Path) -> None:
    """Score a few of the earlier rows again: weights may change under one name."""
    from trl_hybrid.reward_model.forwards import agree

    known = [number for number, score in enumerate(earlier) if isfinite(score)][:CHECKED_ROWS]
    if not known:
        return
    scores, _ = _score(model, [rows[number] for number in known])
    if not agree(scores, [earlier[number] for number in known], model.tolerance):
        score, number = max(zip(scores, known, strict=True), key=lambda pair: abs(pair[0] - earlier[pair[1]]))
        raise InputError(
            f"The scores of one file must be of one reward model, but row {number + 1} of {str(path)!r} has "
            f"{earlier[number]:.4f} and {model.model_name_or_path!r} gives {score:.4f} now: its weights, its "
            "template or its number type are not what they were. Name another --output, or use --overwrite."
        )


def _score_batches(
    model: RewardModel, file: RowsFile, start: int, batch_size: int, output: BinaryIO
) -> tuple[list[float], int]:
    from tqdm.auto import tqdm

    rows = file.rows
    scores: list[float] = []
    shortened = 0
    with tqdm(total=len(rows), initial=start, unit="row") as bar:
        while start < len(rows):
            # After a batch that was saved in part, batches begin again where an unbroken run's do.
            batch = rows[start : start - start % batch_size + batch_size]
            try:
                fresh, cut = _score(model, batch)
            except (ValueError, TypeError) as error:
                raise InputError(f"In the rows {start + 1} to {start + len(batch)}: {error}") from error
            output.writelines(file.line(row, score_fields(score)) for row, score in zip(batch, fresh, strict=True))
            output.flush()
            scores += fresh
            shortened += cut
            start += len(batch)
            bar.update(len(batch))
    return scores, shortened


def _score(model: RewardModel, rows: Sequence[dict[str, Any]]) -> tuple[list[float], int]:
    """Return the rows' scores, and how many of the rows were shortened to fit."""
    metrics: dict[str, float] = {}
    scores = model(
        [row["prompt"] for row in rows],
        [row["completion"] for row in rows],
        completion_truncated=[row.get("truncated", False) for row in rows],
        log_metric=metrics.__setitem__,
    )
    return scores, int(metrics["reward_model/truncated_rows"])


def _print_summary(scores: Sequence[float]) -> int:
    finite = [score for score in scores if isfinite(score)]
    print(f"{'rows':16} {len(scores):8d}")
    if finite:
        for name, value in (("mean", fmean), ("sd", pstdev), ("min", min), ("max", max)):
            print(f"{name:16} {value(finite):8.4f}")
    nonfinite = len(scores) - len(finite)
    print(f"{'not finite':16} {nonfinite:8d}")
    if nonfinite:
        sys.stderr.write(
            f"{nonfinite} of {len(scores)} scores are not finite: null in the output, with what the model gave under "
            "`nonfinite`. Mean, sd, min and max leave them out.\n"
        )
    return 1 if nonfinite else 0
