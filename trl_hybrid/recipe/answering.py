"""What recipes share that let a policy answer the problems before they train: answers that an interruption keeps."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.data.usable_tasks import check_tasks
from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.samples import Judges, sample_rows, samples_file
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.policy.source import PolicySource
from trl_hybrid.policy.transformers_sampler import TransformersSampler
from trl_hybrid.recipe.run import RecipeRun
from trl_hybrid.recipe.say import say
from trl_hybrid.recipe.splits import train_location, train_source
from trl_hybrid.runs.folder import checkpoint_to_resume, holds_files, newest_whole_checkpoint, relative_path
from trl_hybrid.runs.overwrite import hold
from trl_hybrid.runs.settings import SETTINGS_FILE, write_settings
from trl_hybrid.verifier import MathVerifier


WAY_OUT = "To sample anew, add --overwrite_output_dir and leave resume_from_checkpoint out."


@dataclass(frozen=True)
class Turn:
    """One time that a policy answers all problems.

    Attributes:
        file: Where the answers lie in the run's folder.
        source: The policy.
        dtype: Number type of its weights.
        decoding: How it answers.
        description: Shown before the progress bar.
    """

    file: str
    source: PolicySource
    dtype: str | None
    decoding: Decoding
    description: str

    def made_by(self) -> dict[str, Any]:
        """Say what decides about the answers, as JSON's types."""
        return {**self.source.describe(), **asdict(self.decoding), "dtype": self.dtype}


class AnsweringRun(RecipeRun):
    """A run whose first part answers the problems; its settings lie in the folder from then on."""

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Choose the run's folder and hold it, and end with a plain word where the answering is interrupted.

        Raises:
            InputError: Another process runs in the folder.
            SystemExit: With 130 after Ctrl-C; what is answered stays.
        """
        self._open_folder(before_training=True)
        if PartialState().is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            hold(self.folder)
            if not (self.folder / SETTINGS_FILE).exists():
                write_settings(self.folder, self.settings)
        try:
            yield
        except KeyboardInterrupt:
            say(f"\nInterrupted while sampling. {self.way_on(self.folder)}")
            raise SystemExit(130) from None

    def _usable_tasks(self, source: PolicySource, length: int, verifier: MathVerifier) -> list[dict[str, Any]]:
        """Load the training problems, and leave out what cannot be judged, or not be answered in so many tokens."""
        reader = PromptReader(source.base, length, revision=source.revision)
        problems, report = check_tasks(train_source(self.tasks).load(), verifier, reader, train_location(self.tasks))
        say(report.text())
        return [dict(problem) for problem in problems]

    def _sampled_rows(
        self, turn: Turn, problems: Sequence[dict[str, Any]], batch_size: int, verifier: MathVerifier
    ) -> list[dict[str, Any]]:
        """Answer the problems that have no answers in the turn's file yet, and judge the answers.

        Returns:
            The problems with `samples`.

        Raises:
            InputError: The file holds other problems or was made otherwise, or several processes would answer.
        """
        file = samples_file(self.folder / turn.file, problems, turn.made_by(), WAY_OUT)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and len(file.read()[0]) < len(problems):
            raise InputError(
                "Problems are answered by one process. Start with --num_processes 1, or give --samples FILE with "
                "answers that another run or `trl-hybrid eval --dataset_split train` made."
            )
        return sample_rows(
            file,
            lambda: (TransformersSampler(turn.source, turn.dtype), Judges(verifier)),
            turn.decoding,
            batch_size,
            description=turn.description,
        )

    def way_on(self, folder: Path) -> str:
        """Say how to go on with an interrupted run, with or without a checkpoint."""
        name = relative_path(str(folder))
        return f"To go on, give the same command and add: --output_dir {name} --resume_from_checkpoint latest"


def checkpoint_to_start_from(resume: str | None, folder: Path, max_steps: int = -1) -> str | None:
    """Find the checkpoint to go on from; none where the interruption came while sampling.

    Raises:
        InputError: As `checkpoint_to_resume`; so for a folder that holds nothing, whose name is a wrong one.
    """
    if resume is not None and resume.lower() in ("latest", "true") and holds_files(folder):
        newest = newest_whole_checkpoint(folder)
        resume = None if newest is None else str(newest)
    return checkpoint_to_resume(resume, folder, max_steps)
