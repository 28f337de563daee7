"""The card of a reward model that was trained here: what it learned from, and how well it ranks."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from trl_hybrid.hub.names import data_link, model_link, on_hub
from trl_hybrid.hub.tables import main_settings
from trl_hybrid.report.ranking import length_shortcut, ranking_rows
from trl_hybrid.runs.folder import SUMMARY_FILE, read_json
from trl_hybrid.runs.record import RunRecord


TEMPLATE = Path(__file__).with_name("reward_model_card.md.jinja")

TAGS = ["trl", "reward-trainer", "reward-model", "math"]

SETTINGS = (
    "temperatures", "num_samples", "max_completion_length", "pairs_per_problem", "balance_length", "gold_as_right",
    "near_misses", "held_out_share", "max_rows", "max_length", "learning_rate", "head_learning_rate",
    "lr_scheduler_type", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps",
    "center_rewards_coefficient", "max_grad_norm", "bf16", "seed", "dtype", "use_peft", "lora_r", "lora_alpha",
    "lora_dropout", "lora_target_modules",
)  # fmt: skip
"""What a reader needs to repeat the run."""


def make_reward_model_card(record: RunRecord, name: str, base_licence: str | None = None) -> ModelCard:
    """Describe a finished run that trained a reward model.

    Args:
        record: The run's.
        name: The repository that the card is for, such as "me/rm", or the folder.
        base_licence: As the Hub names it; `None` where not known.

    Returns:
        The card. Its metadata name no licence, and of base model and data only what is on the Hub.
    """
    summary = read_json(record.folder / SUMMARY_FILE)
    held_out = summary["held_out"]
    return ModelCard.from_template(
        ModelCardData(
            model_name=name.split("/")[-1],
            library_name="transformers",
            pipeline_tag="text-classification",
            base_model=record.base_model if on_hub(record.base_model) else None,
            datasets=[part for part in record.data if on_hub(part)] or None,
            tags=TAGS,
        ),
        template_path=str(TEMPLATE),
        title=name.split("/")[-1],
        name=name,
        base=model_link(record.base_model, record.commits.get("model") or record["model_revision"]),
        snippet=snippet(name),
        held_out=held_out,
        figures=ranking_rows(held_out["figures"]),
        shortcut=length_shortcut(held_out["figures"]),
        pairs=summary["pairs"],
        near_misses=record.asked.get("near_misses", False),
        policies=_answerers(record),
        data=data_link(record.data, record.asked.get("dataset_config")),
        steps=record.steps,
        settings=main_settings(record, SETTINGS),
        base_licence=base_licence,
        versions=sorted(record.versions.items()),
    )


def _answerers(record: RunRecord) -> str:
    """Name the models whose answers were learned from."""
    if record.asked.get("samples"):
        return "models whose answers were given as files"
    return ", ".join(model_link(name) for name in record.asked.get("policies") or [record.base_model])


def snippet(name: str) -> str:
    """Return code that scores two answers to a problem as in training."""
    return "\n".join(
        [
            "from trl_hybrid import RewardModel",
            "",
            f"reward_model = RewardModel({name!r})",
            'answers = ["10 + 30 = 40, and 2 more: \\\\boxed{42}.", "The answer is \\\\boxed{32}."]',
            'print(reward_model.compute_batch_reward("What is 12 + 30?", answers))',
        ]
    )
