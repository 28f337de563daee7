"""Train TinyLlama by GRPO with the hybrid reward: a rule-based verifier and a 7B reward model.

    python recipes/tinyllama_grpo.py                                             # TinyLlama + AceMath-7B-RM
    python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml      # offline, CPU, minutes
    python recipes/tinyllama_grpo.py --dataset_name openai/gsm8k --dataset_config main
    accelerate launch --num_processes 4 recipes/tinyllama_grpo.py                # several GPUs

Settings come from the command line, over a flat YAML file (--config), over RECIPE_DEFAULTS in
trl_hybrid/recipe/defaults.py, over TRL's own defaults.
Everything that a run makes lies in its folder, runs/<run_name> unless --output_dir says otherwise.
"""

import time
import warnings
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import ProgressCallback
from trl import ModelConfig, get_peft_config, get_quantization_config

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.errors import plain_errors
from trl_hybrid.hub.saved import trained_logits
from trl_hybrid.hub.upload import push_run
from trl_hybrid.memory.estimates import policy_of, reserved_bytes
from trl_hybrid.models.check import check_model, check_reward_model
from trl_hybrid.recipe.asked_for import check_asked_for
from trl_hybrid.recipe.closing import finish
from trl_hybrid.recipe.defaults import RECIPE_DEFAULTS
from trl_hybrid.recipe.disk import check_room, check_writable, run_bytes
from trl_hybrid.recipe.endings import plain_ends
from trl_hybrid.recipe.folder import RunStart, check_folder, prepare_folder
from trl_hybrid.recipe.loading import loading_arguments
from trl_hybrid.recipe.options import (
    CPU_DEFAULTS,
    JudgeArguments,
    TaskArguments,
    parse_arguments,
    reward_model_settings,
)
from trl_hybrid.recipe.outlook import outlook, work_of
from trl_hybrid.recipe.preflight import check_judges, check_push, check_run_length
from trl_hybrid.recipe.say import say
from trl_hybrid.recipe.splits import checked_splits
from trl_hybrid.report import StepLines
from trl_hybrid.reward_model.footprint import Need
from trl_hybrid.runs.carried_prompt import save_system_prompt
from trl_hybrid.runs.folder import RUNS
from trl_hybrid.runs.history import RunHistory
from trl_hybrid.runs.settings import settings_of
from trl_hybrid.training.attention import turn_off_cudnn_attention
from trl_hybrid.training.checkpoint import check_save_strategy
from trl_hybrid.training.held_out_accuracy import ANSWERS, HeldOutAccuracy
from trl_hybrid.training.reward_columns import check_aggregation
from trl_hybrid.training.stop_signals import StopSignals


REPOSITORY = Path(__file__).resolve().parent.parent

DEFAULTS = {**RECIPE_DEFAULTS, "dataset_name": str(REPOSITORY / "data" / "dummy_math_tasks.jsonl")}

SUMMARY = "Train TinyLlama by GRPO with the hybrid reward: a rule-based verifier and a 7B reward model."

EXAMPLES = """examples:
  python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml
  python recipes/tinyllama_grpo.py --dataset_name my_problems.jsonl --output_dir runs/mine
  python recipes/tinyllama_grpo.py --output_dir runs/mine --resume_from_checkpoint latest
  python recipes/tinyllama_grpo.py --push_to_hub --hub_model_id my-name/tinyllama-maths
several GPUs:
  accelerate launch --config_file accelerate_configs/multi_gpu.yaml --num_processes 4 recipes/tinyllama_grpo.py
"""


# TRL's configs set the name that transformers 5.23 renames.
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)


def main() -> None:
    """Check everything that is cheap to check, load the judges and the policy, train, and show what came of it."""
    started = time.time()
    turn_off_cudnn_attention()
    with plain_errors():
        tasks, judges, args, model = parse_arguments(
            (TaskArguments, JudgeArguments, HybridGRPOConfig, ModelConfig),
            DEFAULTS,
            cpu_defaults=CPU_DEFAULTS,
            description=SUMMARY,
            epilog=EXAMPLES,
        )
        check_aggregation(args)
        check_save_strategy(args)
        check_asked_for(args, model, judges)
        check_models(judges, args, model)
        push, token = args.push_to_hub, args.hub_token
        if push:
            check_push(args)
        # TRL would push at each save, unchecked, with the completions, and keep the token in training_args.bin.
        args.push_to_hub, args.hub_token = False, None
        settings = settings_of(tasks=tasks, judges=judges, model=model, training=args)
        named_folder, checkpoint = check_folder(args, tasks.overwrite_output_dir, settings)
        check_writable(named_folder or RUNS)
        verifier = MathVerifier(timeout=judges.verifier_timeout, num_workers=judges.verifier_num_workers)
        train_tasks, test_tasks = checked_splits(tasks, args, model, verifier, checkpoint)
        rows = len(train_tasks) if isinstance(train_tasks, Dataset) else None
        check_run_length(rows, prompts_per_step(args), args.max_steps)
        work = work_of(args, rows, PartialState().num_processes)
        needed = run_bytes(policy_of(model, args), args, work.steps)
        check_room(named_folder or RUNS, needed, resumed=checkpoint is not None)
        say(outlook(work, args, model, len(test_tasks or ()), ANSWERS))
        reserved = reserved_bytes(model, args, test_tasks is not None, PartialState().num_processes)
        reward_model = load_reward_model(judges, reserved)
        check_judges(verifier, reward_model, list(train_tasks.take(10)))
        folder = prepare_folder(named_folder, args)
        trainer = make_trainer(args, model, train_tasks, verifier, reward_model)
        settings = settings_of(tasks=tasks, judges=judges, model=model, training=args)
        trainer.add_callback(RunStart(folder, settings, checkpoint, tasks.overwrite_output_dir))

    held_out, stop = None, StopSignals(trainer)
    if test_tasks is not None:
        held_out = HeldOutAccuracy(
            trainer, test_tasks, verifier, folder, checkpoint, every=tasks.eval_accuracy_steps, stop=stop
        )
        trainer.add_callback(held_out)
    trainer.add_callback(RunHistory(folder))
    main_process = trainer.is_world_process_zero()
    with plain_ends(folder, trainer):
        with stop:
            trainer.train(resume_from_checkpoint=checkpoint)
        if main_process:
            (folder / "summary.json").unlink(missing_ok=True)  # it describes the weights that are written over now
        trainer.save_model()
        if main_process:
            save_system_prompt(folder, tasks.system_prompt)
        trained = trained_logits(trainer)
    verifier.close()
    # A process that leaves while another one still talks to it takes that one down.
    trainer.accelerator.wait_for_everyone()
    trainer.end()
    if main_process:
        with plain_errors(), plain_ends(folder, trainer):
            finish(folder, trainer, held_out, settings, trained, started)
            if push:
                say(f"Pushed: {push_run(folder, token=token)}")


def check_models(judges: JudgeArguments, args: HybridGRPOConfig, model: ModelConfig) -> None:
    """Look at both models' files before anything else, so that a wrong id or a broken copy costs seconds."""
    check_model(model.model_name_or_path, "policy", model.model_revision, args.trust_remote_code)
    name, revision = judges.reward_model_name_or_path, judges.reward_model_revision
    check_reward_model(name, revision, judges.reward_model_trust_remote_code)


def prompts_per_step(args: HybridGRPOConfig) -> int:
    """Count the problems that one generation answers, over all processes."""
    return (args.generation_batch_size or 0) // (args.num_generations or 1)


def load_reward_model(judges: JudgeArguments, reserved: Need) -> RewardModel:
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
    args.model_init_kwargs = loading_arguments(args, model)
    peft_config: Any = get_peft_config(model)
    if peft_config is not None:
        # Whoever loads the adapter gets the base model that it was trained on.
        peft_config.revision = model.model_revision
    trainer = HybridGRPOTrainer(
        model.model_name_or_path,
        args=args,
        verifier=verifier,
        reward_model=reward_model,
        train_dataset=train_tasks,
        peft_config=peft_config,
        quantization_config=get_quantization_config(model),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(StepLines())
    return trainer


if __name__ == "__main__":
    main()
