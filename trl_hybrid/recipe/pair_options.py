"""What `recipes/train_reward_model.py` asks for beside TRL's own: whose answers are judged, and paired how."""

from dataclasses import dataclass, field

from trl_hybrid.errors import InputError
from trl_hybrid.policy.generation import Decoding


SHORT_HELP = (
    "model_name_or_path", "policies", "dataset_name", "dataset_config", "dataset_prompt_column",
    "dataset_solution_column", "system_prompt", "max_rows", "samples", "temperatures", "num_samples",
    "sample_batch_size", "max_completion_length", "pairs_per_problem", "balance_length", "gold_as_right",
    "near_misses", "held_out_share", "output_dir", "overwrite_output_dir", "resume_from_checkpoint",
    "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "head_learning_rate", "max_length", "use_peft", "push_to_hub", "report_to",
)  # fmt: skip


@dataclass
class PairArguments:
    """Whose answers the reward model learns from, and in which pairs.

    Raises:
        InputError: A value is out of its range.
    """

    policies: list[str] | None = field(
        default=None,
        metadata={
            "help": "Models that answer the problems: ids or folders, adapters and checkpoints too; by default "
            "model_name_or_path. Take the policy that is to be trained, as it is now and as it may become."
        },
    )
    samples: list[str] | None = field(
        default=None,
        metadata={
            "help": "Learn from these rows files instead of sampling: samples.jsonl of other runs, or the rows.jsonl "
            "that `trl-hybrid eval` writes."
        },
    )
    temperatures: list[float] = field(
        default_factory=lambda: [0.7, 1.0], metadata={"help": "At which each policy answers."}
    )
    num_samples: int = field(
        default=6, metadata={"help": "Answers to each problem by each policy at each temperature."}
    )
    sample_batch_size: int = field(default=16, metadata={"help": "Problems answered at once."})
    max_completion_length: int = field(default=384, metadata={"help": "Tokens after which an answer is cut off."})
    pairs_per_problem: int = field(default=8, metadata={"help": "Learn from at most so many pairs a problem."})
    balance_length: bool = field(
        default=True,
        metadata={
            "help": "Leave pairs out until right answers are as often longer as shorter than the wrong ones: length "
            "alone then tells nothing."
        },
    )
    gold_as_right: bool = field(
        default=False,
        metadata={
            "help": "Where no answer is right, take the gold in a box. Only for policies whose answers are a box and "
            "nothing else; others would be told from the gold by their form."
        },
    )
    near_misses: bool = field(
        default=False,
        metadata={
            "help": "Pair a wrong answer with those whose number is farther from the gold's, too. Only for problems "
            "in which a near miss is better work, as in sums; it is more than a verifier knows."
        },
    )
    held_out_share: float = field(
        default=0.2, metadata={"help": "Share of the problems that the reward model is measured on and never learns."}
    )

    shared_prompts: bool = field(
        default=True,
        metadata={
            "help": "Compute a problem once for all its answers in a batch: the same gradients, faster. The pairs of "
            "one problem then come one after the other."
        },
    )
    head_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Of the score head, which starts from random weights and often needs a higher one than the rest; "
            "by default learning_rate."
        },
    )

    def __post_init__(self) -> None:
        """Check what would fail only after the answering."""
        rules = {
            "temperatures": (bool(self.temperatures) and min(self.temperatures) > 0, "one or more numbers above 0"),
            "num_samples": (self.num_samples >= 1, "1 or more"),
            "sample_batch_size": (self.sample_batch_size >= 1, "1 or more"),
            "max_completion_length": (self.max_completion_length >= 1, "1 or more"),
            "pairs_per_problem": (self.pairs_per_problem >= 1, "1 or more"),
            "held_out_share": (0 < self.held_out_share < 1, "between 0 and 1"),
            "head_learning_rate": (self.head_learning_rate is None or self.head_learning_rate > 0, "above 0"),
        }
        for name, (kept, rule) in rules.items():
            if not kept:
                raise InputError(f"{name} must be {rule}; got {getattr(self, name)}.")

    def decoding(self, temperature: float, seed: int) -> Decoding:
        """Say how a policy answers."""
        return Decoding(
            num_samples=self.num_samples,
            greedy=False,
            max_completion_length=self.max_completion_length,
            temperature=float(temperature),
            seed=seed,
        )
