"""The model card: what a run was paid for, what came of it, and how to use it."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from trl_hybrid.hub.names import data_link, model_link, on_hub
from trl_hybrid.hub.tables import (
    evaluation_table,
    held_out_data,
    main_settings,
    own_evaluation,
    reward_recipe,
)
from trl_hybrid.models.files import ADAPTER_CONFIG
from trl_hybrid.report.terminal import percent
from trl_hybrid.reward_model.presets import licence_note
from trl_hybrid.runs.record import RunRecord


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")

TAGS = ["trl", "grpo", "hybrid-reward", "math"]

BOUNDS = {
    "stratum": "over the completions of the same prompt with the same verdict",
    "group": "over all completions of the same prompt",
    "calibrated": "two numbers, found before the first step",
}


def make_card(record: RunRecord, name: str, licences: dict[str, str | None]) -> ModelCard:
    """Describe a finished run.

    Args:
        record: The run's; its folder says whether it holds an adapter, and whether there is a picture of the curves.
        name: The repository that the card is for, such as "me/tiny".
        licences: Of the `model` and the `reward_model`, as the Hub names them; `None` where not known.

    Returns:
        The card. Its metadata name no licence, and of base model and data only what is on the Hub.
    """
    folder, base = record.folder, record.base_model
    adapter = (folder / ADAPTER_CONFIG).exists()
    return ModelCard.from_template(
        card_metadata(record, name, adapter),
        template_path=str(TEMPLATE),
        title=name.split("/")[-1],
        name=name,
        adapter=adapter,
        base=model_link(base, record.commits.get("model") or record["model_revision"]),
        base_folder=base if adapter and not on_hub(base) else None,
        system_prompt=record.asked.get("system_prompt"),
        max_new_tokens=record["max_completion_length"],
        figures=[
            (key.replace("_", " "), percent(before), percent(after))
            for key, (before, after) in record.accuracy.items()
        ],
        test_rows=record.test_rows,
        test_data=held_out_data(record),
        evaluation=evaluation_table(own_evaluation(folder)),
        curves="curves.png" if (folder / "curves.png").exists() else None,
        reward=reward_recipe(record),
        bands=record["reward_mode"] == "hybrid",
        bounds=BOUNDS.get(record["hybrid_bounds"], record["hybrid_bounds"]),
        data=data_link(record.data, record.asked.get("dataset_config")),
        steps=record.steps,
        minutes=round(record.seconds / 60, 1),
        settings=main_settings(record),
        base_licence=licences.get("model"),
        reward_model=model_link(record.reward_model),
        reward_model_licence=licences.get("reward_model"),
        reward_model_note=licence_note(licences.get("reward_model")),
        versions=sorted(record.versions.items()),
    )


def card_metadata(record: RunRecord, name: str, adapter: bool) -> ModelCardData:
    """Return the card's header, which the Hub's search goes by.

    Args:
        record: The run's.
        name: The repository.
        adapter: Whether it holds an adapter and not a whole model.
    """
    base, data = record.base_model, record.data
    single = len(data) == 1 and on_hub(data[0])
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Maths problems",
            dataset_type=data[0] if single else "custom",
            dataset_name=", ".join(part if on_hub(part) else Path(part).name for part in data),
            dataset_config=record.asked.get("dataset_config"),
            dataset_split=record.asked.get("dataset_test_split"),
            metric_type="accuracy",
            metric_name=f"held-out accuracy, {key.replace('_', ' ')}",
            metric_value=round(after, 4),
        )
        for key, (_, after) in record.accuracy.items()
        if after is not None
    ]
    return ModelCardData(
        model_name=name.split("/")[-1],
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=base if on_hub(base) else None,
        datasets=[part for part in data if on_hub(part)] or None,
        tags=TAGS,
        eval_results=results or None,
    )
