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
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import ProgressCallback
from trl import ModelConfig, get_peft_config, get_quantization_config

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.arguments import JudgeArguments, TaskArguments, parse_arguments, reward_model_settings
from trl_hybrid.checkpoint import SaveOnSigterm, Terminated
from trl_hybrid.defaults import RECIPE_DEFAULTS
from trl_hybrid.errors import plain_errors
from trl_hybrid.estimates import reserved_bytes
from trl_hybrid.evaluate import HeldOutAccuracy
from trl_hybrid.hub.saved import check_saved_model, trained_logits
from trl_hybrid.hub.upload import push_run
from trl_hybrid.launch import RunStart, check_folder, loading_arguments, prepare_folder, say, what_is_left
from trl_hybrid.preflight import check_judges, check_model_found, check_push, check_run_length
from trl_hybrid.report import StepLines
from trl_hybrid.run_history import RunHistory
from trl_hybrid.run_settings import settings_of
from trl_hybrid.splits import checked_splits
from trl_hybrid.summary import finish


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
        push, token = args.push_to_hub, args.hub_token
        if push:
            check_push(args)
        # TRL would push at each save, unchecked, with the completions, and keep the token in training_args.bin.
        args.push_to_hub, args.hub_token = False, None
        settings = settings_of(tasks=tasks, judges=judges, model=model, training=args)
        named_folder, checkpoint = check_folder(args, tasks.overwrite_output_dir, settings)
        verifier = MathVerifier(timeout=judges.verifier_timeout, num_workers=judges.verifier_num_workers)
        train_tasks, test_tasks = checked_splits(tasks, args, model, verifier)
        rows = len(train_tasks) if isinstance(train_tasks, Dataset) else None
        check_run_length(rows, prompts_per_step(args), args.max_steps)
        reserved = reserved_bytes(model, args, test_tasks is not None, PartialState().num_processes)
        reward_model = load_reward_model(judges, reserved)
        check_judges(verifier, reward_model, list(train_tasks.take(10)))
        folder = prepare_folder(named_folder, args)
        trainer = make_trainer(args, model, train_tasks, verifier, reward_model)
        settings = settings_of(tasks=tasks, judges=judges, model=model, training=args)
        trainer.add_callback(RunStart(folder, settings, checkpoint, tasks.overwrite_output_dir))

    held_out = None
    if test_tasks is not None:
        held_out = HeldOutAccuracy(trainer, test_tasks, verifier, folder, checkpoint, every=tasks.eval_accuracy_steps)
        trainer.add_callback(held_out)
    trainer.add_callback(RunHistory(folder))
    main_process = trainer.is_world_process_zero()
    try:
        with SaveOnSigterm(trainer):
            trainer.train(resume_from_checkpoint=checkpoint)
    except (KeyboardInterrupt, Terminated) as stop:
        say(f"\nInterrupted at step {trainer.state.global_step}. {what_is_left(folder)}")
        raise SystemExit(stop.code if isinstance(stop, Terminated) else 130) from None
    if main_process:
        (folder / "summary.json").unlink(missing_ok=True)  # it describes the weights that are written over now
    trainer.save_model()
    trained = trained_logits(trainer)

    if main_process:
        finish(folder, trainer, held_out, settings, seconds=time.time() - started)
    verifier.close()
    # A process that leaves while another one still talks to it takes that one down.
    trainer.accelerator.wait_for_everyone()
    trainer.end()
    if main_process:
        print("Checking that the saved model is the trained one.", flush=True)
        with plain_errors():
            check_saved_model(folder, trained, args.trust_remote_code)
            if push:
                print(f"Pushed: {push_run(folder, token=token)}", flush=True)


def check_models_found(judges: JudgeArguments, args: HybridGRPOConfig, model: ModelConfig) -> None:
    """Ask for both models' configurations before anything else, so that a wrong id costs seconds."""
    check_model_found(model.model_name_or_path, "policy", model.model_revision, args.trust_remote_code)
    check_model_found(
        judges.reward_model_name_or_path,
        "reward model",
        judges.reward_model_revision,
        judges.reward_model_trust_remote_code,
    )


def prompts_per_step(args: HybridGRPOConfig) -> int:
    """Count the problems that one generation answers, over all processes."""
    return (args.generation_batch_size or 0) // (args.num_generations or 1)


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
