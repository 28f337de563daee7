"""What `recipes/tinyllama_sft.py` does around its verifier and its trainer."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
from trl import ModelConfig, SFTConfig, SFTTrainer

from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.cold_start import check_samples, cold_start_examples, gold_rows, right_answers
from trl_hybrid.evaluation.read_rows import read_rows
from trl_hybrid.hub.saved import Trained, check_saved_model
from trl_hybrid.memory.estimates import policy_of
from trl_hybrid.models.files import adapter_message
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.policy.source import find_policy
from trl_hybrid.recipe.answering import AnsweringRun, Turn, checkpoint_to_start_from
from trl_hybrid.recipe.asked_for import check_installed
from trl_hybrid.recipe.disk import run_bytes
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.say import say
from trl_hybrid.recipe.splits import train_location
from trl_hybrid.report import StepLines, cold_start_line
from trl_hybrid.report.headline import duration
from trl_hybrid.reward_model.loading import whole_weights
from trl_hybrid.runs.carried_prompt import save_system_prompt
from trl_hybrid.runs.folder import being_written, package_versions, relative_path, write_json
from trl_hybrid.runs.overwrite import SAMPLES_FILE
from trl_hybrid.training.checkpoint import TrainsToTheLastStep, check_save_strategy
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
    num_samples: int = field(
        default=16,
        metadata={
            "help": "Answers to each training problem. 0 for none: the gold answers are learned, each in a box and "
            "nothing else. For a policy that is never right, or does not keep to the form; without working, it will "
            "answer without."
        },
    )
    sample_batch_size: int = field(default=16, metadata={"help": "Problems answered at once."})
    temperature: float = field(default=0.8, metadata={"help": "Of the answers."})
    max_completion_length: int = field(default=384, metadata={"help": "Tokens after which an answer is cut off."})
    answers_per_problem: int = field(default=4, metadata={"help": "Learn at most so many right answers a problem."})

    def decoding(self, seed: int) -> Decoding:
        """Say how the problems are answered."""
        return Decoding(
            num_samples=self.num_samples,
            greedy=False,
            max_completion_length=self.max_completion_length,
            temperature=self.temperature,
            seed=seed,
        )


class ColdStartTrainer(TrainsToTheLastStep, SFTTrainer):
    """TRL's trainer; a run that is resumed after its last step is only saved and merged."""


class SFTRun(AnsweringRun):
    """A cold start: `parse`, `load_tasks`, `answer`, `examples`, `train` and `save`, in this order."""

    sampling: SamplingArguments
    rows: list[dict[str, Any]]

    def parse(self, defaults: dict[str, Any], text: str | None = None) -> tuple[SFTConfig, ModelConfig]:
        """Read the command line, and check what can be checked before anything is loaded; see [`GRPORun.parse`]."""
        classes = {"sampling": SamplingArguments, "model": ModelConfig, "training": SFTConfig}
        tasks, self.sampling, model, args = self._parse(defaults, text, SHORT_HELP, tasks=TaskArguments, **classes)
        refuse_what_is_not_done(tasks, args)
        check_installed(args, model)
        self.source = find_policy(str(model.model_name_or_path), model.model_revision)
        if self.source.adapter is not None:
            raise InputError(adapter_message(self.source.name, "policy", self.source.base))
        self._check_folder(checkpoint_to_start_from)
        policy = policy_of(model, args)
        self._check_room(run_bytes(policy, args) + (policy.base_bytes if model.use_peft else 0))  # merged
        return args, model

    def load_tasks(self, verifier: MathVerifier) -> list[dict[str, Any]]:
        """Load the training problems, and leave out what cannot be judged or answered.

        Returns:
            Rows of `prompt` and `solution`; none where `--samples` holds problems with answers.

        Raises:
            InputError: They cannot be loaded, or too many of them not judged.
        """
        if self.sampling.samples:
            return []
        return self._usable_tasks(self.source, self.sampling.max_completion_length, verifier)

    def answer(self, problems: list[dict[str, Any]], verifier: MathVerifier) -> list[dict[str, Any]]:
        """Let the policy answer the problems that have no answers yet, into `samples.jsonl`, and judge the answers.

        With `num_samples` 0 the golds are the answers, and no policy is asked.

        Returns:
            The problems with `samples`.

        Raises:
            InputError: The answers in `--samples` are not judged, or several processes would answer.
            SystemExit: With 130 after Ctrl-C; what is answered stays.
        """
        given, golds = self.sampling.samples, self.sampling.num_samples == 0
        # What is wrong with the samples is said before a folder is made or cleared.
        rows = read_rows(Path(given), FIELDS, "--samples") if given else []
        check_samples(rows, given or SAMPLES_FILE)
        with self._answering():
            self.rows = rows or (
                gold_rows(problems)
                if golds
                else self._sampled_rows(self._turn(), problems, self.sampling.sample_batch_size, verifier)
            )
        return self.rows

    def _turn(self) -> Turn:
        decoding = self.sampling.decoding(self.args.seed)
        return Turn(SAMPLES_FILE, self.source, self.model.dtype, decoding, "Answers to training problems")

    def examples(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take the right answers, at most `answers_per_problem` each, as TRL's prompt-completion examples.

        Raises:
            InputError: No answer is right.
        """
        examples = cold_start_examples(rows, self.sampling.answers_per_problem)
        solved = _solved(rows)
        without = len(rows) - solved
        say(f"{len(examples)} right answers to {solved} of {len(rows)} problems; {without} have none.")
        if not examples:
            raise InputError(
                f"There is nothing to learn from: no answer to {len(rows)} problems is right. Raise num_samples, take "
                "easier problems, or a stronger model."
            )
        return examples

    def _step_lines(self) -> StepLines:
        return StepLines(cold_start_line, needs="loss")

    def _finish(self, trainer: Any, trained: Trained) -> None:
        start = self.folder
        say("Checking that the saved model is the trained one.")
        check_saved_model(self.folder, trained, self.args.trust_remote_code)
        say("Saved model checked: ok")
        if self.model.use_peft:
            start = merge(self.folder, self.model.dtype)
            save_system_prompt(start, self.tasks.system_prompt)
        else:
            shutil.rmtree(self.folder / MERGED, ignore_errors=True)  # an earlier run's
        write_json(self.folder / "summary.json", self._summary(start, trainer.state.global_step))
        name = relative_path(str(self.folder))
        learned = self.sampling.samples or f"{name}/{SAMPLES_FILE}"
        if not (self.sampling.samples or self.sampling.num_samples):
            learned = f"the gold answers of {train_location(self.tasks)}"
        say(
            f"\nWhat was learned:  {learned}\n"
            f"Is it better?      trl-hybrid eval --model {name} --base\n"
            f"Go on with GRPO:   python recipes/tinyllama_grpo.py --config CONFIG "
            f"--model_name_or_path {relative_path(str(start))}\n"
            f"Total time:        {duration(time.time() - self.started)}"
        )

    def _summary(self, start: Path, steps: int) -> dict[str, Any]:
        return {
            "model": relative_path(str(start)),
            "base_model": relative_path(str(self.model.model_name_or_path)),
            "problems": {"all": len(self.rows), "with_right_answers": _solved(self.rows)},
            "examples": len(cold_start_examples(self.rows, self.sampling.answers_per_problem)),
            "steps": steps,
            "seconds": round(time.time() - self.started, 1),
            "versions": package_versions(),
            "settings": self.started_with,
        }


def merge(folder: Path, dtype: str | None) -> Path:
    """Write the whole model that a saved adapter makes into `merged` beside it, and return that folder.

    An earlier one stays until the new one is whole.
    """
    with whole_weights():
        whole: Any = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    with being_written(folder) as part:
        whole.merge_and_unload().save_pretrained(part)
        AutoTokenizer.from_pretrained(folder).save_pretrained(part)
        shutil.rmtree(folder / MERGED, ignore_errors=True)
        part.rename(folder / MERGED)
    return folder / MERGED


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


def _solved(rows: list[dict[str, Any]]) -> int:
    return sum(bool(right_answers(row, 1)) for row in rows)
