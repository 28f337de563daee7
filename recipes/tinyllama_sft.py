"""Teach TinyLlama its own right answers, so that GRPO starts from more than luck: rejection sampling, then SFT.

    python recipes/tinyllama_sft.py --config recipes/configs/gsm8k_sft.yaml      # TinyLlama, GSM8K
    python recipes/tinyllama_sft.py --config recipes/configs/embedded_sft.yaml   # offline, CPU, a minute

First the model answers each training problem several times, and the verifier says which answers are right; they lie
in samples.jsonl. Then it is trained on the right ones (TRL's SFTTrainer, LoRA). The run's folder holds the adapter,
and merged/ in it the whole model, from which recipes/tinyllama_grpo.py starts by --model_name_or_path. An interrupted
run goes on by --resume_from_checkpoint latest, in both parts.
"""

import os
import shutil
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer, ProgressCallback
from transformers.utils import is_torch_bf16_gpu_available
from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config, get_quantization_config

from trl_hybrid import MathVerifier
from trl_hybrid.data import load_tasks
from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.data.usable_tasks import check_tasks
from trl_hybrid.errors import InputError, plain_errors
from trl_hybrid.evaluation.cold_start import check_samples, cold_start_examples, right_answers
from trl_hybrid.evaluation.read_rows import read_rows
from trl_hybrid.evaluation.samples import Judges, sample_rows, samples_file
from trl_hybrid.memory.estimates import policy_of
from trl_hybrid.models.files import adapter_message
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.policy.source import PolicySource, find_policy
from trl_hybrid.policy.transformers_sampler import TransformersSampler
from trl_hybrid.recipe.asked_for import check_installed
from trl_hybrid.recipe.defaults import RECIPE_DEFAULTS
from trl_hybrid.recipe.disk import check_room, check_writable, run_bytes
from trl_hybrid.recipe.endings import plain_ends
from trl_hybrid.recipe.folder import RunStart, check_folder, prepare_folder
from trl_hybrid.recipe.loading import loading_arguments
from trl_hybrid.recipe.options import CPU_DEFAULTS, TaskArguments, parse_arguments
from trl_hybrid.recipe.say import say
from trl_hybrid.recipe.splits import mapping_of, train_location
from trl_hybrid.report import StepLines, cold_start_line
from trl_hybrid.report.headline import duration
from trl_hybrid.reward_model.loading import whole_weights
from trl_hybrid.runs.carried_prompt import save_system_prompt
from trl_hybrid.runs.folder import (
    RUNS,
    checkpoint_to_resume,
    goes_on,
    newest_whole_checkpoint,
    package_versions,
    relative_path,
    write_json,
)
from trl_hybrid.runs.history import RunHistory
from trl_hybrid.runs.overwrite import SAMPLES_FILE
from trl_hybrid.runs.settings import SETTINGS_FILE, settings_of, write_settings
from trl_hybrid.training.attention import turn_off_cudnn_attention
from trl_hybrid.training.checkpoint import TrainsToTheLastStep, check_save_strategy
from trl_hybrid.training.stop_signals import StopSignals


REPOSITORY = Path(__file__).resolve().parent.parent

MERGED = "merged"
FIELDS = ("prompt", "solution", "samples")

SHARED = (
    "model_name_or_path", "dtype", "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules",
    "system_prompt", "max_grad_norm", "report_to",
)  # fmt: skip

DEFAULTS = {
    **{name: RECIPE_DEFAULTS[name] for name in SHARED},
    "run_name": "tinyllama-sft",
    "dataset_name": str(REPOSITORY / "data" / "dummy_math_tasks.jsonl"),
    # As the paper: two passes over the answers.
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "learning_rate": 1e-4,
    "warmup_steps": 10,
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "logging_steps": 1,
    "bf16": is_torch_bf16_gpu_available(),
}

SHORT_HELP = (
    "model_name_or_path", "dataset_name", "dataset_config", "dataset_prompt_column", "dataset_solution_column",
    "system_prompt", "max_rows", "samples", "num_samples", "sample_batch_size", "temperature", "max_completion_length",
    "answers_per_problem", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "num_train_epochs",
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "use_peft", "report_to",
)  # fmt: skip

SUMMARY = "Teach TinyLlama its own right answers: rejection sampling by the verifier, then supervised fine-tuning."

EXAMPLES = """examples:
  python recipes/tinyllama_sft.py --config recipes/configs/embedded_sft.yaml
  python recipes/tinyllama_sft.py --dataset_name my_problems.jsonl --output_dir runs/mine-sft
  python recipes/tinyllama_sft.py --output_dir runs/mine-sft --resume_from_checkpoint latest
"""

# TRL's configs set the name that transformers 5.23 renames.
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)


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


def main() -> None:
    """Sample, keep what is right, train on it, and merge."""
    started = time.time()
    turn_off_cudnn_attention()
    with plain_errors():
        tasks, sampling, args, model = parse_arguments(
            (TaskArguments, SamplingArguments, SFTConfig, ModelConfig),
            DEFAULTS,
            cpu_defaults=CPU_DEFAULTS,
            short_help=SHORT_HELP,
            description=SUMMARY,
            epilog=EXAMPLES,
        )
        refuse_what_is_not_done(tasks, args)
        check_installed(args, model)
        source = find_policy(str(model.model_name_or_path), model.model_revision)
        if source.adapter is not None:
            raise InputError(adapter_message(source.name, "policy", source.base))
        settings = settings_of(tasks=tasks, sampling=sampling, model=model, training=args)
        named, checkpoint = check_folder(args, tasks.overwrite_output_dir, settings, checkpoint_to_start_from)
        check_writable(named or RUNS)
        policy = policy_of(model, args)
        merged = policy.base_bytes if model.use_peft else 0
        check_room(named or RUNS, run_bytes(policy, args) + merged, resumed=checkpoint is not None)
        # What is wrong with the problems or their samples is said before a folder is made or cleared.
        problems = [] if sampling.samples else load_problems(tasks, sampling, source)
        rows = read_rows(Path(sampling.samples), FIELDS, "--samples") if sampling.samples else []
        check_samples(rows, sampling.samples or SAMPLES_FILE)
        anew = tasks.overwrite_output_dir and not goes_on(args.resume_from_checkpoint)
        folder = prepare_folder(named, args, clear=anew)
        if PartialState().is_main_process and not (folder / SETTINGS_FILE).exists():
            write_settings(folder, settings)
        try:
            rows = rows or sampled_rows(folder, problems, sampling, model, args.seed, source)
        except KeyboardInterrupt:
            say(f"\nInterrupted while sampling. {way_on(folder)}")
            raise SystemExit(130) from None
        examples = cold_start_examples(rows, sampling.answers_per_problem)
        without = sum(not right_answers(row, 1) for row in rows)
        say(f"{len(examples)} right answers to {len(rows) - without} of {len(rows)} problems; {without} have none.")
        if not examples:
            raise InputError(
                f"There is nothing to learn from: no answer to {len(rows)} problems is right. Raise num_samples, take "
                "easier problems, or a stronger model."
            )
        trainer = make_trainer(args, model, examples)
        settings = settings_of(tasks=tasks, sampling=sampling, model=model, training=args)
        trainer.add_callback(RunStart(folder, settings, checkpoint, overwrite=False))
        trainer.add_callback(RunHistory(folder))

    with plain_ends(folder, trainer, way_on):
        with StopSignals(trainer):
            trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            finish(folder, trainer, settings, rows, time.time() - started)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


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


def load_problems(tasks: TaskArguments, sampling: SamplingArguments, source: PolicySource) -> list[dict[str, Any]]:
    """Load the training problems, and leave out what cannot be judged or answered."""
    problems = load_tasks(
        tasks.dataset_name,
        tasks.dataset_config,
        tasks.dataset_train_split,
        max_rows=tasks.max_rows,
        **mapping_of(tasks),
    )
    reader = PromptReader(source.base, sampling.max_completion_length, revision=source.revision)
    with MathVerifier() as verifier:
        problems, report = check_tasks(problems, verifier, reader, train_location(tasks))
    say(report.text())
    return [dict(problem) for problem in problems]


def sampled_rows(
    folder: Path,
    problems: list[dict[str, Any]],
    sampling: SamplingArguments,
    model: ModelConfig,
    seed: int,
    source: PolicySource,
) -> list[dict[str, Any]]:
    """Answer the problems that have no answers yet, and judge the answers."""
    decoding = Decoding(
        num_samples=sampling.num_samples,
        greedy=False,
        max_completion_length=sampling.max_completion_length,
        temperature=sampling.temperature,
        seed=seed,
    )
    way_out = "To sample anew, add --overwrite_output_dir and leave resume_from_checkpoint out."
    made_by = {**source.describe(), **asdict(decoding), "dtype": model.dtype}
    file = samples_file(folder / SAMPLES_FILE, problems, made_by, way_out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and len(file.read()[0]) < len(problems):
        raise InputError(
            "Problems are answered by one process. Start with --num_processes 1, or give --samples FILE with answers "
            "that another run or `trl-hybrid eval --dataset_split train` made."
        )
    with MathVerifier() as verifier:
        return sample_rows(
            file,
            lambda: (TransformersSampler(source, model.dtype), Judges(verifier)),
            decoding,
            sampling.sample_batch_size,
            description="Answers to training problems",
        )


class ColdStartTrainer(TrainsToTheLastStep, SFTTrainer):
    """TRL's trainer; a run that is resumed after its last step is only saved and merged."""


def make_trainer(args: SFTConfig, model: ModelConfig, examples: list[dict[str, Any]]) -> ColdStartTrainer:
    """Load the model and bring it together with the examples."""
    args.model_init_kwargs = loading_arguments(args, model)
    quantization = get_quantization_config(model)
    if quantization is not None:
        args.model_init_kwargs["quantization_config"] = quantization
    trainer = ColdStartTrainer(
        str(model.model_name_or_path),
        args=args,
        train_dataset=Dataset.from_list(examples),
        peft_config=get_peft_config(model),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(StepLines(cold_start_line, needs="loss"))
    return trainer


def finish(
    folder: Path, trainer: SFTTrainer, settings: dict[str, Any], rows: list[dict[str, Any]], seconds: float
) -> None:
    """Merge the adapter, write the summary, and say how to go on."""
    start, name = folder, relative_path(str(folder))
    examples = len(cold_start_examples(rows, settings["sampling"]["answers_per_problem"]))
    shutil.rmtree(folder / MERGED, ignore_errors=True)  # an earlier run's
    if settings["model"]["use_peft"]:
        start = folder / MERGED
        with whole_weights():
            whole: Any = AutoPeftModelForCausalLM.from_pretrained(
                folder, dtype=settings["model"]["dtype"], use_safetensors=True
            )
        whole.merge_and_unload().save_pretrained(start)
        AutoTokenizer.from_pretrained(folder).save_pretrained(start)
    for home in {folder, start}:
        save_system_prompt(home, settings["tasks"]["system_prompt"])
    write_json(
        folder / "summary.json",
        {
            "model": relative_path(str(start)),
            "base_model": relative_path(settings["model"]["model_name_or_path"]),
            "problems": {"all": len(rows), "with_right_answers": sum(bool(right_answers(row, 1)) for row in rows)},
            "examples": examples,
            "steps": trainer.state.global_step,
            "seconds": round(seconds, 1),
            "versions": package_versions(),
            "settings": settings,
        },
    )
    whole_model = relative_path(str(start))
    say(
        f"\nWhat was learned:  {settings['sampling']['samples'] or f'{name}/{SAMPLES_FILE}'}\n"
        f"Is it better?      trl-hybrid eval --model {name} --base\n"
        f"Go on with GRPO:   python recipes/tinyllama_grpo.py --config CONFIG "
        f"--model_name_or_path {whole_model}\n"
        f"Total time:        {duration(seconds)}"
    )


def way_on(folder: Path) -> str:
    """Say how to go on with an interrupted run, with or without a checkpoint."""
    return (
        "To go on, give the same command and add: "
        f"--output_dir {relative_path(str(folder))} --resume_from_checkpoint latest"
    )


if __name__ == "__main__":
    main()
