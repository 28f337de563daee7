"""The problems that a recipe's settings name: loaded, looked at, and what cannot be used left out."""

from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from trl import ModelConfig

from trl_hybrid.data import TaskSource, load_mixture, split_location
from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.data.task_report import WIDTH, shortened
from trl_hybrid.data.usable_tasks import check_tasks
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.outlook import work_of
from trl_hybrid.recipe.say import say
from trl_hybrid.runs.record import read_record
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.training.held_out_accuracy import ANSWERS, MOST, problems_to_measure
from trl_hybrid.verifier import MathVerifier


def checked_splits(
    tasks: TaskArguments,
    args: HybridGRPOConfig,
    model: ModelConfig,
    verifier: MathVerifier,
    checkpoint: str | None = None,
) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """Load the problems, leave out what cannot be trained on or measured, and show what there is.

    Args:
        tasks: Which problems; their `max_test_rows` becomes a number where it is none.
        args: How long completions may become, and how they are generated.
        model: The policy, of which the tokenizer and the configuration are read.
        verifier: Must be able to judge every gold answer.
        checkpoint: What the run goes on from: as many problems are measured as at its start.

    Returns:
        The problems to train on, and those to measure on, `None` where there are none.

    Raises:
        InputError: As for `TaskSource.load` and `check_tasks`.
    """
    if tasks.max_test_rows is None:
        tasks.max_test_rows = _measured_before(checkpoint)
    train, test = load_splits(tasks, args.seed)
    reader = PromptReader(
        str(model.model_name_or_path),
        args.max_completion_length,
        args.vllm_max_model_length if args.use_vllm else None,
        model.model_revision,
        args.trust_remote_code,
        args.chat_template_kwargs if isinstance(args.chat_template_kwargs, dict) else None,
    )
    train, report = check_tasks(train, verifier, reader, train_location(tasks))
    say(report.text())
    own = reader.own_system_message()
    if own and not report.has_system:
        say(f"  system    none is given, and the policy's template writes its own: {shortened(own, WIDTH)!r}")
    if test is None:
        say("Held-out accuracy is not measured: there is no test split of its own, or max_test_rows is 0.")
        return train, None
    if tasks.max_test_rows is None:
        rows = len(train) if isinstance(train, Dataset) else None
        completions = work_of(args, rows, PartialState().num_processes).completions
        tasks.max_test_rows = problems_to_measure(len(test), completions, ANSWERS)
        if tasks.max_test_rows < len(test):
            few = f"Of {len(test)} held-out problems {tasks.max_test_rows} are measured, for a short run"
            say(f"{few}. For more: --max_test_rows")
        test = test.take(tasks.max_test_rows)
    test, report = check_tasks(test, verifier, reader, f"{test_location(tasks)}, held out")
    say(report.text(examples=False))
    return train, test


def _measured_before(checkpoint: str | None) -> int | None:
    """Return the `max_test_rows` of a run that goes on, `None` where it is not known."""
    return read_record(Path(checkpoint).parent).asked.get("max_test_rows") if checkpoint else None


def load_splits(tasks: TaskArguments, seed: int) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """Load the problems to train on, and those to measure on where there are any."""
    source = train_source(tasks)
    most = MOST if tasks.max_test_rows is None else tasks.max_test_rows
    if tasks.datasets:
        return load_mixture(tasks.datasets, source, tasks.test_split_size, most, seed)
    train = source.load()
    if tasks.dataset_test_split == source.split:
        return train, None
    return train, replace(source, split=tasks.dataset_test_split, max_rows=most).load_held_out()


def train_source(tasks: TaskArguments) -> TaskSource:
    """Say which problems are trained on; of a mixture only how rows become problems holds."""
    return TaskSource(
        tasks.dataset_name,
        tasks.dataset_config,
        tasks.dataset_train_split,
        streaming=tasks.dataset_streaming or tasks.streaming,
        system_prompt=tasks.system_prompt,
        max_question_chars=tasks.max_question_chars,
        max_rows=tasks.max_rows,
        prompt_column=tasks.dataset_prompt_column,
        solution_column=tasks.dataset_solution_column,
    )


def train_location(tasks: TaskArguments) -> str:
    """Say where the problems to train on lie."""
    if tasks.datasets:
        return ", ".join(split_location(part.path, part.split) for part in tasks.datasets)
    return split_location(tasks.dataset_name, tasks.dataset_train_split)


def test_location(tasks: TaskArguments) -> str:
    """Say where the held-out problems lie."""
    if tasks.datasets:
        return f"{tasks.test_split_size} of {train_location(tasks)}"
    return split_location(tasks.dataset_name, tasks.dataset_test_split)
