"""What is looked at in the data before a model is loaded, and what is left out of it and said."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from trl_hybrid.data.golds import BAR_FROM, find_faults, gold_fault
from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.data.task_report import LeftOut, TaskReport
from trl_hybrid.errors import InputError
from trl_hybrid.verifier import MathVerifier


STREAM_SAMPLE = 1000  # rows of a stream that are looked at before it is trained on
AT_ONCE = 1000  # prompts that are tokenized at once
GOLDS_SHOWN = 3
MOST_LEFT_OUT = 0.5

Tasks = TypeVar("Tasks", Dataset, IterableDataset, Dataset | IterableDataset)


def check_tasks(tasks: Tasks, verifier: MathVerifier, reader: PromptReader, name: str) -> tuple[Tasks, TaskReport]:
    """Leave out what cannot be trained on, and tell what there is.

    Left out are rows without a problem, rows whose gold cannot be judged, and prompts that leave no room for the
    completion: TRL truncates no prompt. All rows are looked at, of a stream the first thousand; the rest of a stream
    is judged by the same rules as it comes.

    Args:
        tasks: Rows of `prompt` and `solution`.
        verifier: Must be able to judge the golds.
        reader: The policy's view of the prompts.
        name: Where the rows come from, for messages.

    Returns:
        The rows that are left, the same on every process, and what to show.

    Raises:
        InputError: There are no rows, or more than half of them cannot be used.
    """
    rows = tasks if isinstance(tasks, Dataset) else Dataset.from_list(list(islice(tasks, STREAM_SAMPLE)))
    if len(rows) == 0:
        raise InputError(f"{name!r} has no rows left. Check max_rows and max_question_chars.")
    # A deadline can pass on one process and not on another.
    faults = _same_everywhere(lambda: find_faults(verifier, rows["solution"]))
    reasons, lengths = _look_at(rows, faults, reader)
    left_out = _count(reasons, rows)
    if sum(part.rows for part in left_out) > MOST_LEFT_OUT * len(rows):
        raise InputError(_too_many(left_out, len(rows), name))
    kept = [index for index, reason in enumerate(reasons) if reason is None]
    report = TaskReport(
        name=name,
        rows=len(rows),
        streamed=not isinstance(tasks, Dataset),
        left_out=left_out,
        lengths=[length for length in lengths if reader.room is None or length <= reader.room],
        context=reader.context,
        completion=reader.completion,
        rendered=[reader.render(prompt) for prompt in rows.select(kept[:100])["prompt"]],
        golds=rows.select(kept[:GOLDS_SHOWN])["solution"][:],
        method=verifier.method,
        has_system=any(prompt[0]["role"] == "system" for prompt in rows.select(kept[:100])["prompt"]),
    )
    if isinstance(tasks, Dataset):
        return tasks.select(kept) if left_out else tasks, report
    return tasks.filter(_is_usable, fn_kwargs={"faults": faults, "reader": reader}), report


def _look_at(rows: Dataset, faults: dict[str, str], reader: PromptReader) -> tuple[list[str | None], list[int]]:
    """Give a reason for each row that is left out, and the lengths of the prompts that could be read."""
    reasons: list[str | None] = []
    all_lengths: list[int] = []
    batches = tqdm(
        rows.iter(AT_ONCE),
        "Reading prompts",
        -(-len(rows) // AT_ONCE),
        leave=False,
        disable=len(rows) < BAR_FROM,
    )
    for batch in batches:
        columns: Any = batch
        found = [_fault(p, g, faults) for p, g in zip(columns["prompt"], columns["solution"], strict=True)]
        readable = [prompt for prompt, fault in zip(columns["prompt"], found, strict=True) if fault is None]
        lengths = iter(batch_lengths := reader.lengths(readable))
        reasons.extend(fault or _length_fault(next(lengths), reader.room) for fault in found)
        all_lengths.extend(batch_lengths)
    return reasons, all_lengths


def _fault(prompt: list[dict[str, Any]], gold: str, faults: dict[str, str]) -> str | None:
    if not any(message["role"] != "system" and message["content"].strip() for message in prompt):
        return "there is no problem"
    return faults.get(gold)


def _length_fault(length: int, room: int | None) -> str | None:
    return None if room is None or length <= room else f"the prompt has more than {room} tokens"


def _is_usable(row: dict[str, Any], faults: dict[str, str], reader: PromptReader) -> bool:
    if _fault(row["prompt"], row["solution"], faults) or gold_fault(row["solution"]):
        return False
    return _length_fault(reader.lengths([row["prompt"]])[0], reader.room) is None


def _count(reasons: Sequence[str | None], rows: Dataset) -> list[LeftOut]:
    """Count each reason, the commonest first, with the first row that it befell."""
    first = {reason: index for index, reason in reversed(list(enumerate(reasons))) if reason is not None}
    parts = [LeftOut(reason, reasons.count(reason), row, rows[row]["solution"]) for reason, row in first.items()]
    return sorted(parts, key=lambda part: (-part.rows, part.first_row))


def _too_many(left_out: Sequence[LeftOut], rows: int, name: str) -> str:
    unusable = sum(part.rows for part in left_out)
    return (
        f"At least half of the rows must be fit to train on, but {unusable} of {rows} of {name!r} are not:\n"
        + "".join(f"  {part.text()}\n" for part in left_out)
        + "Correct or remove the rows, or name the right columns by --dataset_prompt_column and "
        "--dataset_solution_column. Longer prompts fit with a lower max_completion_length."
    )


Result = TypeVar("Result")


def _same_everywhere(compute: Callable[[], Result]) -> Result:
    """Compute in the main process and hand the result to all."""
    found = [compute() if PartialState().is_main_process else None]
    result = broadcast_object_list(found)[0]
    assert result is not None
    return result
