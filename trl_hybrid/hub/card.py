"""The model card: what a run was paid for, what came of it, and how to use it."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from trl_hybrid.hub.names import data_link, model_link, on_hub
from trl_hybrid.hub.tables import (
    accuracy_figures,
    evaluation_table,
    held_out_data,
    loaded_revision,
    main_settings,
    own_evaluation,
    reward_recipe,
)
from trl_hybrid.models.files import ADAPTER_CONFIG
from trl_hybrid.report.terminal import percent
from trl_hybrid.reward_model.presets import licence_note
from trl_hybrid.runs.settings import data_names


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")

TAGS = ["trl", "grpo", "hybrid-reward", "math"]

BOUNDS = {
    "stratum": "over the completions of the same prompt with the same verdict",
    "group": "over all completions of the same prompt",
    "calibrated": "two numbers, found before the first step",
}


def make_card(folder: Path, run: dict[str, Any], name: str, licences: dict[str, str | None]) -> ModelCard:
    """Describe a finished run.

    Args:
        folder: The run's folder; says whether it holds an adapter, and whether there is a picture of the curves.
        run: What the run's `summary.json` holds.
        name: The repository that the card is for, such as "me/tiny".
        licences: Of the `model` and the `reward_model`, as the Hub names them; `None` where not known.

    Returns:
        The card. Its metadata name no licence, and of base model and data only what is on the Hub.
    """
    settings = run["settings"]
    tasks, judges, training = settings["tasks"], settings["judges"], settings["training"]
    base = settings["model"]["model_name_or_path"]
    adapter = (folder / ADAPTER_CONFIG).exists()
    return ModelCard.from_template(
        card_metadata(run, name, adapter),
        template_path=str(TEMPLATE),
        title=name.split("/")[-1],
        adapter=adapter,
        base=model_link(base, loaded_revision(settings["model"]["model_revision"], run, "model")),
        base_folder=base if adapter and not on_hub(base) else None,
        snippet=snippet(name, tasks.get("system_prompt"), training["max_completion_length"], adapter),
        figures=[
            (key.replace("_", " "), percent(before), percent(after)) for key, before, after in accuracy_figures(run)
        ],
        test_rows=run.get("test_rows"),
        test_data=held_out_data(run),
        evaluation=evaluation_table(own_evaluation(folder)),
        curves="curves.png" if (folder / "curves.png").exists() else None,
        reward=reward_recipe(run),
        bands=training["reward_mode"] == "hybrid",
        bounds=BOUNDS.get(training["hybrid_bounds"], training["hybrid_bounds"]),
        data=data_link(tasks),
        steps=run.get("steps"),
        minutes=round(run.get("seconds", {}).get("steps", 0) / 60, 1),
        settings=main_settings(settings),
        base_licence=licences.get("model"),
        reward_model=model_link(judges["reward_model_name_or_path"]),
        reward_model_licence=licences.get("reward_model"),
        reward_model_note=licence_note(licences.get("reward_model")),
        versions=sorted(run.get("versions", {}).items()),
    )


def card_metadata(run: dict[str, Any], name: str, adapter: bool) -> ModelCardData:
    """Return the card's header, which the Hub's search goes by.

    Args:
        run: What the run's `summary.json` holds.
        name: The repository.
        adapter: Whether it holds an adapter and not a whole model.
    """
    settings = run["settings"]
    base, data = settings["model"]["model_name_or_path"], data_names(settings["tasks"])
    single = len(data) == 1 and on_hub(data[0])
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Maths problems",
            dataset_type=data[0] if single else "custom",
            dataset_name=", ".join(part if on_hub(part) else Path(part).name for part in data),
            dataset_config=settings["tasks"].get("dataset_config"),
            dataset_split=settings["tasks"].get("dataset_test_split"),
            metric_type="accuracy",
            metric_name=f"held-out accuracy, {key.replace('_', ' ')}",
            metric_value=round(after, 4),
        )
        for key, _, after in accuracy_figures(run)
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


def snippet(name: str, system_prompt: str | None, max_new_tokens: int, adapter: bool) -> str:
    """Return code that loads what was pushed and answers as in training.

    Args:
        name: The repository.
        system_prompt: Put before each problem in training.
        max_new_tokens: The longest completion of training.
        adapter: Whether the repository holds an adapter and not a whole model.
    """
    loader = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    imports = (
        ["from peft import AutoPeftModelForCausalLM", "from transformers import AutoTokenizer"]
        if adapter
        else ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    )
    system = [f'    {{"role": "system", "content": {system_prompt!r}}},'] if system_prompt else []
    return "\n".join(
        [
            *imports,
            "",
            f"name = {name!r}",
            f'model = {loader}.from_pretrained(name, dtype="auto", device_map="auto")',
            "tokenizer = AutoTokenizer.from_pretrained(name)",
            "messages = [",
            *system,
            '    {"role": "user", "content": "What is 12 + 30?"},',
            "]",
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ").to(model.device)",
            f"output = model.generate(**inputs, max_new_tokens={max_new_tokens}, do_sample=False)",
            'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        ]
    )
