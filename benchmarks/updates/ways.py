"""The ways to compute an update, each a trainer; what is taken from training is TRL's `training_step`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from updates.cases import EMBEDDED, SHAPES, Batch, Case, make_rows, sorted_by_length

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer


TRL, SORTED, SHARED = "TRL", "TRL, sorted", "shared prompts"


class Update(HybridGRPOTrainer):
    """A trainer that takes the rows it is given as if it had generated and judged them."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        return inputs


class SortedUpdate(Update):
    """TRL's way with rows sorted by length instead of shuffled, and each micro-batch padded to its own longest."""

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        micro_batches = int(self.args.steps_per_generation or 1)
        place = self._step % micro_batches
        if place == 0:
            self._buffered_inputs = sorted_by_length(generation_batch, micro_batches)
        assert self._buffered_inputs is not None
        return self._buffered_inputs[place]


WAYS: dict[str, tuple[type[Update], bool]] = {
    TRL: (Update, False),
    SORTED: (SortedUpdate, False),
    SHARED: (Update, True),
}
"""The trainer of each way, and whether it shares prompts."""


@dataclass(frozen=True)
class Setting:
    """What is trained, and where; the same for all ways.

    Attributes:
        shape: Name of a shape of random weights, or a folder.
        layers: Fewer layers than the shape's; `None` for all.
        lora: Adapters on all linear layers are trained, else all weights.
        device: "cpu" or "cuda".
        bf16: Weights, and what is computed, are in bf16, else in fp32.
        threads: Of a process on the CPU.
        checkpointing: Whether layers are computed again in the backward.
    """

    shape: str
    layers: int | None
    lora: bool
    device: str
    bf16: bool
    threads: int
    checkpointing: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return torch.bfloat16 if self.bf16 else torch.float32


def make_policy(setting: Setting) -> nn.Module:
    """Load the embedded policy, or make random weights of a shape."""
    if setting.shape not in SHAPES:
        policy: Any = AutoModelForCausalLM.from_pretrained(setting.shape, dtype=setting.dtype)
        return policy.to(setting.device)
    torch.manual_seed(0)
    shape: dict[str, Any] = dict(SHAPES[setting.shape])
    shape["num_hidden_layers"] = setting.layers or shape["num_hidden_layers"]
    config = LlamaConfig(**shape)
    with torch.device(setting.device):
        return LlamaForCausalLM._from_config(config, dtype=setting.dtype)


def no_reward(completions: list[Any], **columns: Any) -> list[float]:
    """Stand in for the rewards, which are part of the rows."""
    return [0.0] * len(completions)


def make_trainer(way: str, setting: Setting, folder: Path) -> Update:
    """Make a way's trainer of a policy; the folder is where it may write."""
    trainer_class, shared = WAYS[way]
    args = HybridGRPOConfig(
        str(folder),
        shared_prompts=shared,
        use_cpu=setting.device == "cpu",
        bf16=setting.bf16,
        gradient_checkpointing=setting.checkpointing,
        num_generations=8,
        per_device_train_batch_size=8,
        report_to="none",
        save_strategy="no",
    )
    # Adapters that are drawn and not zero: all of their weights have a gradient.
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    trainer = trainer_class(
        make_policy(setting),
        no_reward,
        args,
        Dataset.from_dict({"prompt": ["1+1="] * 8}),
        processing_class=AutoTokenizer.from_pretrained(EMBEDDED),
        peft_config=lora if setting.lora else None,
    )
    if setting.checkpointing:  # as transformers does when training starts
        trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return trainer


class Worker:
    """A way's trainer, ready to update.

    Args:
        way: Its name.
        setting: What is trained.
        folder: Where the trainer may write.

    Raises:
        RuntimeError: It is to share prompts and does not.
    """

    def __init__(self, way: str, setting: Setting, folder: Path) -> None:
        self.trainer = make_trainer(way, setting, folder)
        self.device = setting.device
        self.tokens = 0
        self.trainer.model.get_input_embeddings().register_forward_pre_hook(self._count)
        # Brings in what libraries load late; the first batch is computed both ways where prompts are shared.
        first = Case("first", 9, (2, 4), group=2, rows=4, micro_batch=2)
        self.update(first, self.rows(first))
        if self.trainer.shares_prompts is not WAYS[way][1]:
            raise RuntimeError(f"{way}: the trainer computes each prompt once a completion; see its warning above.")

    def _count(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.tokens += inputs[0].numel()

    def update(self, case: Case, rows: Batch) -> int:
        """Compute the gradients of an optimizer step on a case's rows; return how many tokens the policy computed."""
        trainer, args = self.trainer, self.trainer.args
        args.steps_per_generation = args.gradient_accumulation_steps = case.micro_batches
        trainer.current_gradient_accumulation_steps = case.micro_batches
        trainer._step = self.tokens = 0
        trainer.model.zero_grad()
        torch.manual_seed(0)  # TRL's shuffle
        for _ in range(case.micro_batches):
            trainer.training_step(trainer.model, rows, rows["num_items_in_batch"])
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.tokens

    def rows(self, case: Case) -> Batch:
        """Make the case's rows where the policy is."""
        vocab_size = self.trainer.model.config.vocab_size
        return {name: value.to(self.device) for name, value in make_rows(case, vocab_size).items()}

    def gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Give the gradient of each parameter that is trained."""
        for name, parameter in self.trainer.model.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.grad
