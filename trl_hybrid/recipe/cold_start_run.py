"""What the cold start's recipe does around its samples and its trainer."""

import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from accelerate import PartialState
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
from trl import ModelConfig, SFTConfig, SFTTrainer, get_quantization_config

from trl_hybrid.data import load_tasks
from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.data.usable_tasks import check_tasks
from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.cold_start import check_samples, right_answers
from trl_hybrid.evaluation.read_rows import read_rows
from trl_hybrid.evaluation.samples import Judges, sample_rows, samples_file
from trl_hybrid.hub.saved import check_saved_model
from trl_hybrid.memory.estimates import policy_of
from trl_hybrid.models.files import adapter_message
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.policy.source import find_policy
from trl_hybrid.policy.transformers_sampler import TransformersSampler
from trl_hybrid.recipe.asked_for import check_installed
from trl_hybrid.recipe.disk import check_room, run_bytes
from trl_hybrid.recipe.endings import plain_ends
from trl_hybrid.recipe.options import CPU_DEFAULTS, TaskArguments, parse_arguments
from trl_hybrid.recipe.run import Run
from trl_hybrid.recipe.say import say
from trl_hybrid.recipe.splits import mapping_of, train_location
from trl_hybrid.report.headline import duration
from trl_hybrid.report.terminal import StepLines, cold_start_line
from trl_hybrid.reward_model.loading import whole_weights
from trl_hybrid.runs.carried_prompt import save_system_prompt
from trl_hybrid.runs.folder import (
    checkpoint_to_resume,
    goes_on,
    newest_whole_checkpoint,
    package_versions,
    relative_path,
    write_json,
)
from trl_hybrid.runs.overwrite import SAMPLES_FILE
from trl_hybrid.runs.settings import SETTINGS_FILE, write_settings
from trl_hybrid.training.checkpoint import TrainsToTheLastStep, check_save_strategy
from trl_hybrid.training.stop_signals import StopSignals
from trl_hybrid.verifier import MathVerifier


MERGED = "merged"
FIELDS = ("prompt", "solution", "samples")

SHORT_HELP = (
    "model_name_or_path", "dataset_name", "dataset_config", "dataset_prompt_column", "dataset_solution_column",
    "system_prompt", "max_rows", "samples", "num_samples", "sample_batch_size", "temperature", "max_completion_length",
    "answers_per_problem", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "num_train_epochs",
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "use_peft", "report_to",
)  # fmt: skip


@dataclass
class SamplingArguments:
    """How the training problems are answered before training, and which answers are learned."""

    samples: str | None = field(
        default=None,
        metadata={
            "help": "Learn from this rows file instead of sampling: a samples.jsonl of another run, or the rows.jsonl "
            "that `trl-hybrid eval` writes."
        },
    )
    num_samples: int = field(default=16, metadata={"help": "Answers to each training problem."})
    sample_batch_size: int = field(default=16, metadata={"help": "Problems answered at once."})
    temperature: float = field(default=0.8, metadata={"help": "Of the answers."})
    max_completion_length: int = field(default=384, metadata={"help": "Tokens after which an answer is cut off."})
    answers_per_problem: int = field(default=4, metadata={"help": "Learn at most so many right answers a problem."})


class ColdStartTrainer(TrainsToTheLastStep, SFTTrainer):
    """TRL's trainer; a run that is resumed after its last step is only saved and merged."""


class ColdStartRun(Run):
    """One run of the cold start's recipe.

    Attributes:
        sampling: How the problems are answered, and which answers are learned.
    """

    GROUPS: ClassVar = {"tasks": "tasks", "sampling": "sampling", "model": "model", "training": "args"}
    args: SFTConfig
    sampling: SamplingArguments

    def _read_settings(self) -> None:
        self.tasks, self.sampling, self.args, self.model = parse_arguments(
            (TaskArguments, SamplingArguments, SFTConfig, ModelConfig),
            self.defaults,
            cpu_defaults=CPU_DEFAULTS,
            short_help=SHORT_HELP,
            **self.help,
        )
        refuse_what_is_not_done(self.tasks, self.args)
        check_installed(self.args, self.model)
        self._source = find_policy(str(self.model.model_name_or_path), self.model.model_revision)
        if self._source.adapter is not None:
            raise InputError(adapter_message(self._source.name, "policy", self._source.base))
        self._find_folder(checkpoint_to_start_from)
        policy = policy_of(self.model, self.args)
        merged = policy.base_bytes if self.model.use_peft else 0
        check_room(self.place, run_bytes(policy, self.args) + merged, resumed=self.checkpoint is not None)

    def sample(self, verifier: MathVerifier) -> list[dict[str, Any]]:
        """Choose the run's folder, and answer the training problems that have no answers there yet.

        Args:
            verifier: Judges the answers.

        Returns:
            Rows of `prompt`, `solution` and judged `samples`; with `--samples` that file's, and nothing is sampled.

        Raises:
            InputError: Problems or samples that cannot be used, or several processes that would have to sample.
        """
        # What is wrong with the problems or their samples is said before a folder is made or cleared.
        given = self.sampling.samples
        problems = [] if given else self._load_problems(verifier)
        rows = read_rows(Path(given), FIELDS, "--samples") if given else []
        check_samples(rows, given or SAMPLES_FILE)
        self._make_folder(clear=self.tasks.overwrite_output_dir and not goes_on(self.args.resume_from_checkpoint))
        quantization = get_quantization_config(self.model)
        if quantization is not None:
            loading: Any = self.args.model_init_kwargs
            loading["quantization_config"] = quantization
        if PartialState().is_main_process and not (self.folder / SETTINGS_FILE).exists():
            write_settings(self.folder, self.settings())
        try:
            self._rows = rows or self._sampled(problems, verifier)
        except KeyboardInterrupt:
            say(f"\nInterrupted while sampling. {self.way_on(self.folder)}")
            raise SystemExit(130) from None
        return self._rows

    def _load_problems(self, verifier: MathVerifier) -> list[dict[str, Any]]:
        """Load the training problems, and leave out what cannot be judged or answered."""
        tasks, source = self.tasks, self._source
        problems = load_tasks(
            tasks.dataset_name,
            tasks.dataset_config,
            tasks.dataset_train_split,
            max_rows=tasks.max_rows,
            **mapping_of(tasks),
        )
        reader = PromptReader(source.base, self.sampling.max_completion_length, revision=source.revision)
        problems, report = check_tasks(problems, verifier, reader, train_location(tasks))
        say(report.text())
        return [dict(problem) for problem in problems]

    def _sampled(self, problems: list[dict[str, Any]], verifier: MathVerifier) -> list[dict[str, Any]]:
        """Answer the problems that have no answers yet, and judge the answers."""
        sampling, source = self.sampling, self._source
        decoding = Decoding(
            num_samples=sampling.num_samples,
            greedy=False,
            max_completion_length=sampling.max_completion_length,
            temperature=sampling.temperature,
            seed=self.args.seed,
        )
        way_out = "To sample anew, add --overwrite_output_dir and leave resume_from_checkpoint out."
        made_by = {**source.describe(), **asdict(decoding), "dtype": self.model.dtype}
        file = samples_file(self.folder / SAMPLES_FILE, problems, made_by, way_out)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and len(file.read()[0]) < len(problems):
            raise InputError(
                "Problems are answered by one process. Start with --num_processes 1, or give --samples FILE with "
                "answers that another run or `trl-hybrid eval --dataset_split train` made."
            )
        return sample_rows(
            file,
            lambda: (TransformersSampler(source, self.model.dtype), Judges(verifier)),
            decoding,
            sampling.sample_batch_size,
            description="Answers to training problems",
        )

    def show(self, examples: list[dict[str, Any]]) -> None:
        """Say what there is to learn from.

        Raises:
            InputError: Nothing.
        """
        self._examples, rows = len(examples), len(self._rows)
        with_right = sum(bool(right_answers(row, 1)) for row in self._rows)
        say(f"{len(examples)} right answers to {with_right} of {rows} problems; {rows - with_right} have none.")
        if not examples:
            raise InputError(
                f"There is nothing to learn from: no answer to {rows} problems is right. Raise num_samples, take "
                "easier problems, or a stronger model."
            )

    def train(self, trainer: SFTTrainer) -> None:
        """Train on the right answers."""
        self._train(trainer, StepLines(cold_start_line, needs="loss"), False, StopSignals(trainer))

    def save(self, trainer: SFTTrainer) -> None:
        """Save the model, merge its adapter, check what was saved, and say how to go on."""
        trained = self._save_model(trainer)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            with plain_ends(self.folder, trainer, self.way_on):
                say("Checking that the saved model is the trained one.")
                check_saved_model(self.folder, trained, self.args.trust_remote_code)
                self._finish(trainer, self._merge())
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.end_training()

    def _merge(self) -> Path:
        """Write the whole model from which GRPO starts, and return its folder."""
        shutil.rmtree(self.folder / MERGED, ignore_errors=True)  # an earlier run's
        if not self.model.use_peft:
            return self.folder
        start = self.folder / MERGED
        with whole_weights():
            whole: Any = AutoPeftModelForCausalLM.from_pretrained(
                self.folder, dtype=self.model.dtype, use_safetensors=True
            )
        whole.merge_and_unload().save_pretrained(start)
        AutoTokenizer.from_pretrained(self.folder).save_pretrained(start)
        save_system_prompt(start, self.tasks.system_prompt)
        return start

    def _finish(self, trainer: SFTTrainer, start: Path) -> None:
        """Write the summary, and say how to go on."""
        seconds, name, whole_model = (
            time.time() - self.started,
            relative_path(str(self.folder)),
            relative_path(str(start)),
        )
        with_right = sum(bool(right_answers(row, 1)) for row in self._rows)
        write_json(
            self.folder / "summary.json",
            {
                "model": whole_model,
                "base_model": relative_path(str(self.model.model_name_or_path)),
                "problems": {"all": len(self._rows), "with_right_answers": with_right},
                "examples": self._examples,
                "steps": trainer.state.global_step,
                "seconds": round(seconds, 1),
                "versions": package_versions(),
                "settings": self.recorded,
            },
        )
        say(
            f"\nWhat was learned:  {self.sampling.samples or f'{name}/{SAMPLES_FILE}'}\n"
            f"Is it better?      trl-hybrid eval --model {name} --base\n"
            f"Go on with GRPO:   python recipes/tinyllama_grpo.py --config CONFIG "
            f"--model_name_or_path {whole_model}\n"
            f"Total time:        {duration(seconds)}"
        )

    @staticmethod
    def way_on(folder: Path) -> str:
        """Say how to go on with an interrupted run, with or without a checkpoint."""
        return (
            "To go on, give the same command and add: "
            f"--output_dir {relative_path(str(folder))} --resume_from_checkpoint latest"
        )


def refuse_what_is_not_done(tasks: TaskArguments, args: SFTConfig) -> None:
    """Stop at settings that this recipe would pass over, or that TRL would follow with less care.

    TRL's own push sends the sampled answers and training_args.bin, a pickle.
    """
    check_save_strategy(args)
    given = {
        "datasets": tasks.datasets,
        "dataset_streaming": tasks.dataset_streaming or tasks.streaming,
        "push_to_hub": args.push_to_hub,
    }
    for name in (name for name, value in given.items() if value):
        raise InputError(
            f"{name} is for recipes/tinyllama_grpo.py only: the cold start takes one data set, whole, and pushes "
            f"nothing. Leave {name} out."
        )


def checkpoint_to_start_from(resume: str | None, folder: Path, max_steps: int = -1) -> str | None:
    """Find the checkpoint to go on from; none where the interruption came while sampling."""
    if resume is not None and resume.lower() in ("latest", "true"):
        newest = newest_whole_checkpoint(folder)
        resume = None if newest is None else str(newest)
    return checkpoint_to_resume(resume, folder, max_steps)
