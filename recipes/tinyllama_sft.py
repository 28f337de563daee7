"""Teach TinyLlama its own right answers, so that GRPO starts from more than luck: rejection sampling, then SFT.

    python recipes/tinyllama_sft.py --config recipes/configs/gsm8k_sft.yaml      # TinyLlama, GSM8K
    python recipes/tinyllama_sft.py --config recipes/configs/embedded_sft.yaml   # offline, CPU, a minute

First the model answers each training problem several times, and the verifier says which answers are right; they lie
in samples.jsonl. Then it is trained on the right ones (TRL's SFTTrainer, LoRA). The run's folder holds the adapter,
and merged/ in it the whole model, from which recipes/tinyllama_grpo.py starts by --model_name_or_path. An interrupted
run goes on by --resume_from_checkpoint latest, in both parts.
"""

from pathlib import Path

from datasets import Dataset
from transformers.utils import is_torch_bf16_gpu_available

from trl_hybrid import MathVerifier
from trl_hybrid.recipe import COLD_START_DEFAULTS, ColdStartRun, ColdStartTrainer, cold_start_examples


DATA = Path(__file__).resolve().parent.parent / "data"

DEFAULTS = {
    **COLD_START_DEFAULTS,
    "dataset_name": str(DATA / "dummy_math_tasks.jsonl"),
    "bf16": is_torch_bf16_gpu_available(),
}

SUMMARY = "Teach TinyLlama its own right answers: rejection sampling by the verifier, then supervised fine-tuning."

EXAMPLES = """examples:
  python recipes/tinyllama_sft.py --config recipes/configs/embedded_sft.yaml
  python recipes/tinyllama_sft.py --dataset_name my_problems.jsonl --output_dir runs/mine-sft
  python recipes/tinyllama_sft.py --output_dir runs/mine-sft --resume_from_checkpoint latest
"""


def main() -> None:
    """Sample, keep what is right, train on it, and merge."""
    with ColdStartRun(DEFAULTS, SUMMARY, EXAMPLES) as run:
        with MathVerifier() as verifier:
            rows = run.sample(verifier)
        examples = cold_start_examples(rows, run.sampling.answers_per_problem)
        run.show(examples)
        trainer = ColdStartTrainer(
            str(run.model.model_name_or_path),
            args=run.args,
            train_dataset=Dataset.from_list(examples),
            peft_config=run.peft_config,
        )
        run.train(trainer)
        run.save(trainer)


if __name__ == "__main__":
    main()
