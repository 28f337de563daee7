"""Train TinyLlama by GRPO with the hybrid reward: a rule-based verifier and a 7B reward model.

    accelerate launch recipes/tinyllama_grpo.py                                             # TinyLlama + AceMath-7B-RM
    accelerate launch recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml      # offline, CPU, minutes
    accelerate launch recipes/tinyllama_grpo.py --dataset_name openai/gsm8k --dataset_config main

Settings come from the command line, over a flat YAML file (--config), over RECIPE_DEFAULTS in
trl_hybrid/defaults.py, over TRL's own defaults.
Everything that a run makes lies in its folder, runs/<run_name> unless --output_dir says otherwise.
"""

import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, IterableDataset
from transformers import ProgressCallback
from trl import ModelConfig, get_peft_config, get_quantization_config

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.arguments import JudgeArguments, TaskArguments, parse_arguments, reward_model_settings
from trl_hybrid.checkpoint import SaveOnSigterm, Terminated
from trl_hybrid.data import load_tasks, load_test_tasks, split_location
from trl_hybrid.defaults import RECIPE_DEFAULTS
from trl_hybrid.errors import plain_errors
from trl_hybrid.estimates import reserved_bytes
from trl_hybrid.evaluate import HeldOutAccuracy
from trl_hybrid.preflight import check_golds, check_hub_login, check_judges, check_model_found, check_run_length
from trl_hybrid.report import StepLines, accuracy_table, alarm_step, draw_curves, sample_completions
from trl_hybrid.run_folder import (
    check_run_folder,
    checkpoint_to_resume,
    claim_run_folder,
    clear_run_folder,
    newest_whole_checkpoint,
    package_versions,
    relative_path,
    write_json,
)


# What transformers makes of an output_dir that was not given.
UNNAMED_FOLDER = "trainer_output"

REPOSITORY = Path(__file__).resolve().parent.parent

DEFAULTS = {**RECIPE_DEFAULTS, "dataset_name": str(REPOSITORY / "data" / "dummy_math_tasks.jsonl")}

SUMMARY = "Train TinyLlama by GRPO with the hybrid reward: a rule-based verifier and a 7B reward model."

EXAMPLES = """examples:
  accelerate launch recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml
  accelerate launch recipes/tinyllama_grpo.py --dataset_name my_problems.jsonl --output_dir runs/mine
  accelerate launch recipes/tinyllama_grpo.py --output_dir runs/mine --resume_from_checkpoint latest
  accelerate launch recipes/tinyllama_grpo.py --push_to_hub --hub_model_id my-name/tinyllama-maths
"""


# TRL's configs set the name that transformers 5.23 renames.
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)


def main() -> None:
    """Check everything that is cheap to check, load the judges and the policy, train, and show what came of it."""
    started = time.time()
    with plain_errors():
        tasks, judges, args, model = parse_arguments(
            (TaskArguments, JudgeArguments, HybridGRPOConfig, ModelConfig),
            DEFAULTS,
            description=SUMMARY,
            epilog=EXAMPLES,
        )
        check_models_found(judges, args, model)
        if args.push_to_hub:
            check_hub_login()
        named_folder, checkpoint = check_folder(tasks, args)
        train_tasks, test_tasks = load_splits(tasks)
        rows = len(train_tasks) if isinstance(train_tasks, Dataset) else None
        check_run_length(rows, prompts_per_step(args), args.max_steps)
        verifier = MathVerifier(timeout=judges.verifier_timeout, num_workers=judges.verifier_num_workers)
        reserved = reserved_bytes(model, args, test_tasks is not None, PartialState().num_processes)
        reward_model = load_reward_model(judges, reserved)
        check_golds(verifier, list(train_tasks.take(1000)))
        check_judges(verifier, reward_model, list(train_tasks.take(10)))
        folder = prepare_folder(named_folder, args, clear=tasks.overwrite_output_dir and checkpoint is None)
        trainer = make_trainer(args, model, train_tasks, verifier, reward_model)

    held_out = None
    if test_tasks is not None:
        held_out = HeldOutAccuracy(trainer, test_tasks, verifier, folder, checkpoint)
        trainer.add_callback(held_out)
    try:
        with SaveOnSigterm(trainer):
            trainer.train(resume_from_checkpoint=checkpoint)
    except (KeyboardInterrupt, Terminated) as stop:
        say(f"\nInterrupted at step {trainer.state.global_step}. {what_is_left(folder)}")
        raise SystemExit(stop.code if isinstance(stop, Terminated) else 130) from None
    trainer.save_model()

    if trainer.is_world_process_zero():
        settings = {
            "tasks": asdict(tasks),
            "judges": asdict(judges),
            "model": asdict(model),
            "training": args.to_dict(),
        }
        finish(folder, trainer, held_out, settings, seconds=time.time() - started)
    if args.push_to_hub:
        on_hub = not Path(tasks.dataset_name).exists()
        trainer.push_to_hub(dataset_name=tasks.dataset_name if on_hub else None)
    verifier.close()
    # A process that leaves while another one still talks to it takes that one down.
    trainer.accelerator.wait_for_everyone()
    trainer.end()


def check_models_found(judges: JudgeArguments, args: HybridGRPOConfig, model: ModelConfig) -> None:
    """Ask for both models' configurations before anything else, so that a wrong id costs seconds."""
    check_model_found(model.model_name_or_path, "policy", model.model_revision, args.trust_remote_code)
    check_model_found(
        judges.reward_model_name_or_path,
        "reward model",
        judges.reward_model_revision,
        judges.reward_model_trust_remote_code,
    )


def check_folder(tasks: TaskArguments, args: HybridGRPOConfig) -> tuple[Path | None, str | None]:
    """Look at the folder that was named, if any, and for the checkpoint to go on from where one was asked for."""
    resume = args.resume_from_checkpoint
    named = None if args.output_dir == UNNAMED_FOLDER else args.output_dir
    folder = check_run_folder(named, resume is not None, tasks.overwrite_output_dir)
    return folder, checkpoint_to_resume(resume, folder, args.max_steps) if folder else None


def prepare_folder(folder: Path | None, args: HybridGRPOConfig, clear: bool) -> Path:
    """Make or clear the run's folder, in the main process; all processes write into the same one."""
    # Every process has to have looked at the folder before one of them changes it.
    PartialState().wait_for_everyone()
    choice = [folder]
    if PartialState().is_main_process:
        choice = [folder or claim_run_folder(args.run_name or "run")]
        if clear and folder:
            clear_run_folder(folder)
    chosen = broadcast_object_list(choice)[0]
    assert chosen is not None
    args.output_dir = str(chosen)
    return chosen


def prompts_per_step(args: HybridGRPOConfig) -> int:
    """Count the problems that one generation answers, over all processes."""
    return (args.generation_batch_size or 0) // (args.num_generations or 1)


def load_splits(tasks: TaskArguments) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """Load the problems to train on, and those to measure on where there are any."""
    shared = {"system_prompt": tasks.system_prompt, "max_question_chars": tasks.max_question_chars}
    name, config = tasks.dataset_name, tasks.dataset_config
    train = load_tasks(
        name, config, tasks.dataset_train_split, tasks.dataset_streaming, max_rows=tasks.max_rows, **shared
    )
    test = load_test_tasks(name, config, tasks.dataset_test_split, max_rows=tasks.max_test_rows, **shared)
    if test is None:
        say("Held-out accuracy is not measured: there is no test split, or max_test_rows is 0.")
    return train, test


def load_reward_model(judges: JudgeArguments, reserved: int) -> RewardModel:
    """Load the reward model, leaving room for what training will take of the GPU."""
    return RewardModel(judges.reward_model_name_or_path, reserved_memory=reserved, **reward_model_settings(judges))


def make_trainer(
    args: HybridGRPOConfig,
    model: ModelConfig,
    train_tasks: Dataset | IterableDataset,
    verifier: MathVerifier,
    reward_model: RewardModel,
) -> HybridGRPOTrainer:
    """Load the policy and bring it together with the judges."""
    own_kwargs = args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **own_kwargs,
    }
    trainer = HybridGRPOTrainer(
        model.model_name_or_path,
        args=args,
        verifier=verifier,
        reward_model=reward_model,
        train_dataset=train_tasks,
        peft_config=get_peft_config(model),
        quantization_config=get_quantization_config(model),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(StepLines())
    return trainer


def finish(
    folder: Path,
    trainer: HybridGRPOTrainer,
    held_out: HeldOutAccuracy | None,
    settings: dict[str, Any],
    seconds: float,
) -> None:
    """Write the summary and the picture, and say what the run did and what to do next."""
    tasks, model = settings["tasks"], settings["model"]
    accuracy = held_out.figures() if held_out else {}
    write_json(
        folder / "summary.json",
        {
            "accuracy": accuracy,
            "test_rows": len(held_out.tasks) if held_out else 0,
            "model": relative_path(str(folder)),
            "base_model": relative_path(model["model_name_or_path"]),
            "train_file": split_location(tasks["dataset_name"], tasks["dataset_train_split"]),
            "test_file": split_location(tasks["dataset_name"], tasks["dataset_test_split"]) if held_out else None,
            "seed": trainer.args.seed,
            "steps": trainer.state.global_step,
            "seconds": {"total": round(seconds, 1), "training": trainer.state.log_history[-1].get("train_runtime")},
            "versions": package_versions(),
            "settings": settings,
        },
    )
    draw_curves(trainer.state.log_history, accuracy, folder / "curves.png")
    table = folder / "completions" / f"completions_{trainer.state.global_step:05d}.parquet"
    if table.exists():
        say(f"\nFrom the last step, best paid to worst paid:\n\n{sample_completions(pd.read_parquet(table))}")
    alarm = alarm_step(trainer.state.log_history)
    if alarm is not None:
        say(
            f"The alarm for reward hacking fired at step {alarm}: the score of wrong answers climbed while the pass "
            "rate fell. Read the completions marked `disagreement`.\n"
        )
    if held_out:
        say(f"Accuracy on {len(held_out.tasks)} problems that training did not see:\n{accuracy_table(accuracy)}\n")
    say(next_steps(relative_path(str(folder)), model))


def next_steps(folder: str, model: dict[str, Any]) -> str:
    """Say where the results lie and what to try next."""
    load = "AutoPeftModelForCausalLM" if model["use_peft"] else "AutoModelForCausalLM"
    package = "peft" if model["use_peft"] else "transformers"
    tinyllama = (
        "Then train TinyLlama:   accelerate launch --quiet recipes/tinyllama_grpo.py   "
        "(a GPU, with room for 16 GB of weights)"
    )
    return (
        f"Look at the curves:     {folder}/curves.png\n"
        f"Read the completions:   {folder}/completions/*.parquet   (prompt, completion, verdict, score, reward)\n"
        f"Use the model:          from {package} import {load}; {load}.from_pretrained({folder!r})\n"
        + (tinyllama if model["model_name_or_path"] != DEFAULTS["model_name_or_path"] else "")
    )


def what_is_left(folder: Path) -> str:
    """Say how to go on with an interrupted run, or how to start it anew."""
    name = relative_path(str(folder))
    if newest_whole_checkpoint(folder) is None:
        return f"There is no checkpoint yet. To start anew, add: --output_dir {name} --overwrite_output_dir"
    return f"To go on, add: --output_dir {name} --resume_from_checkpoint latest"


def say(text: str) -> None:
    """Print once, whatever the number of processes."""
    if PartialState().is_main_process:
        print(text, flush=True)


if __name__ == "__main__":
    main()
