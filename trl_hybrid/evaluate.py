"""How often the policy is right on problems that it was not trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers import GenerationConfig, TrainerCallback
from trl.models import unwrap_model_for_generation

from trl_hybrid.run_folder import read_json, write_json
from trl_hybrid.verifier import MathVerifier


@torch.no_grad()
def generate_completions(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[dict[str, str]]],
    config: GenerationConfig,
    batch_size: int = 64,
    description: str | None = None,
) -> list[str]:
    """Answer each prompt `config.num_return_sequences` times.

    Args:
        model: A causal language model, on its device.
        tokenizer: Its tokenizer, with a chat template and a padding token.
        prompts: Chat messages, one list a prompt.
        config: Greedy or sampled, how many tokens, how many answers for each prompt.
        batch_size: Prompts a call of `generate`.
        description: Shown before a progress bar; no bar without it.

    Returns:
        Decoded completions, `len(prompts) * config.num_return_sequences`, those of one prompt contiguous.
    """
    completions = []
    for start in tqdm(range(0, len(prompts), batch_size), desc=description, disable=description is None, leave=False):
        batch = tokenizer.apply_chat_template(
            list(prompts[start : start + batch_size]),
            add_generation_prompt=True,
            tokenize=True,
            padding=True,
            padding_side="left",
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        answers = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=config
        )
        new_ids = answers[:, batch["input_ids"].shape[1] :]
        completions.extend(tokenizer.batch_decode(new_ids, skip_special_tokens=True))
    return completions


def accuracy(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[dict[str, Any]],
    verifier: MathVerifier,
    config: GenerationConfig,
    accelerator: Accelerator,
    seed: int = 0,
    batch_size: int = 64,
    description: str | None = None,
) -> float:
    """Measure the mean share of right answers, over all processes.

    With `config.num_return_sequences` n above 1 this is the mean of n samples, not pass@n. The global random state is
    left as it was found; what is sampled depends on the number of processes. Problems whose gold cannot be judged do
    not count.

    Args:
        model: The policy, unwrapped, in the same state on every process.
        tokenizer: The policy's tokenizer.
        tasks: Rows of `prompt` and `solution`, the same on every process.
        verifier: Judges the answers.
        config: How to generate.
        accelerator: Says which share of the problems is this process's.
        seed: Of the sampling.
        batch_size: Prompts a call of `generate`.
        description: Shown before the progress bar of the main process.

    Returns:
        A share in [0, 1], the same on every process.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    # Every process makes the same number of calls: under ZeRO-3 a process that stops early leaves the others waiting.
    count = -(-len(tasks) // world)
    own = [(index % len(tasks), index < len(tasks)) for index in range(rank, count * world, world)]
    rows = [tasks[index] for index, _ in own]
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed + rank)
        completions = generate_completions(
            model,
            tokenizer,
            [row["prompt"] for row in rows],
            config,
            batch_size,
            description if accelerator.is_main_process else None,
        )
    copies = config.num_return_sequences or 1
    verdicts = verifier.verify_batch(
        completions,
        [row["solution"] for row in rows for _ in range(copies)],
        [row["prompt"] for row in rows for _ in range(copies)],
    )
    counted = [real for _, real in own for _ in range(copies)]
    judged = [float(v.correct) for v, real in zip(verdicts, counted, strict=True) if real and v.correct is not None]
    everyone = gather_object(judged)
    return sum(everyone) / len(everyone) if everyone else float("nan")


class HeldOutAccuracy(TrainerCallback):
    """Measure greedy and sampled accuracy before the first and after the last training step.

    Args:
        trainer: The trainer to measure; its model, tokenizer, temperature and completion length are used.
        tasks: Held-out rows of `prompt` and `solution`.
        verifier: Judges the answers.
        folder: The run's folder; the first measurement is kept there.
        checkpoint: The checkpoint that this run goes on from. The first measurement is then the one that lies beside
            it; where there is none, or one on other problems, there is no figure of before.
        num_samples: Answers sampled for each problem.
    """

    FILE = "accuracy_before.json"

    def __init__(
        self,
        trainer: Any,
        tasks: Any,
        verifier: MathVerifier,
        folder: Path,
        checkpoint: str | None = None,
        num_samples: int = 8,
    ) -> None:
        self.trainer, self.tasks, self.verifier, self.num_samples = trainer, tasks, verifier, num_samples
        self.folder = folder
        self.resumed = checkpoint is not None
        earlier = read_json(Path(checkpoint).parent / self.FILE) if checkpoint else {}
        self.before: dict[str, float] = earlier["accuracy"] if earlier.get("rows") == len(tasks) else {}
        self.after: dict[str, float] = {}

    def figures(self) -> dict[str, dict[str, float | None]]:
        """Return `{"greedy": {"before": share, "after": share}, "mean_of_<num_samples>": {...}}`; `None`: unknown."""
        return {name: {"before": self.before.get(name), "after": after} for name, after in self.after.items()}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the policy as it is before the first step."""
        if self.resumed:
            return
        self.before = self._measure("before")
        if state.is_world_process_zero:
            write_json(self.folder / self.FILE, {"rows": len(self.tasks), "accuracy": self.before})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the policy as training leaves it."""
        self.after = self._measure("after")

    def _measure(self, when: str) -> dict[str, float]:
        trainer = self.trainer
        shared = {
            "max_new_tokens": trainer.max_completion_length,
            "eos_token_id": trainer.eos_token_ids,
            "pad_token_id": trainer.processing_class.pad_token_id,
            "bos_token_id": trainer.processing_class.bos_token_id,
            "repetition_penalty": trainer.repetition_penalty,
        }
        prompts = trainer.args.per_device_eval_batch_size
        modes = {
            "greedy": GenerationConfig(do_sample=False, **shared),
            f"mean_of_{self.num_samples}": GenerationConfig(
                do_sample=True,
                temperature=trainer.temperature,
                top_p=trainer.top_p,
                top_k=trainer.top_k,
                min_p=trainer.min_p,
                num_return_sequences=self.num_samples,
                **shared,
            ),
        }
        unwrapped: Any = unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator)
        with unwrapped as model:
            was_training = model.training
            model.eval()
            try:
                return {
                    name: accuracy(
                        model,
                        trainer.processing_class,
                        self.tasks,
                        self.verifier,
                        config,
                        trainer.accelerator,
                        seed=trainer.args.seed,
                        # As many sequences at a time either way.
                        batch_size=prompts if config.do_sample else prompts * self.num_samples,
                        description=f"Accuracy {when} training, {name.replace('_', ' ')}",
                    )
                    for name, config in modes.items()
                }
            finally:
                model.train(was_training)
