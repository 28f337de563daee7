"""What a run's files say, laid out for its card."""

import logging
import math
from pathlib import Path
from typing import Any

import yaml

from trl_hybrid.hub.names import cell, data_link, model_link, on_hub
from trl_hybrid.policy.source import weights_digest
from trl_hybrid.reward_model.presets import find_preset
from trl_hybrid.runs.folder import read_json
from trl_hybrid.runs.settings import local_name


logger = logging.getLogger(__name__)

# What a reader needs to repeat the run; everything else is at its default, or in summary.json.
TRAINING_SETTINGS = (
    "learning_rate", "lr_scheduler_type", "max_steps", "num_train_epochs", "num_generations",
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_iterations", "temperature", "top_p", "top_k",
    "max_completion_length", "mask_truncated_completions", "loss_type", "scale_rewards", "beta", "epsilon",
    "epsilon_high", "max_grad_norm", "bf16", "seed",
)  # fmt: skip
MODEL_SETTINGS = ("dtype", "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "load_in_4bit")
TASK_SETTINGS = ("system_prompt", "max_question_chars", "max_rows")


def accuracy_figures(run: dict[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """Return (name, before, after) of each held-out accuracy; `None` where it is not known."""
    return [
        (name, _known(value.get("before")), _known(value.get("after")))
        for name, value in run.get("accuracy", {}).items()
    ]


def _known(share: float | None) -> float | None:
    return None if share is None or math.isnan(share) else share


def held_out_data(run: dict[str, Any]) -> str:
    """Name the held-out problems; of a local file without its folders."""
    tasks, location = run["settings"]["tasks"], run.get("test_file") or "unknown"
    if tasks.get("datasets"):
        return "split off the data named below"
    return f"`{cell(location if on_hub(tasks['dataset_name']) else Path(location).name)}`"


def reward_recipe(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what was paid: (name, value) for each part of the reward."""
    judges, training = run["settings"]["judges"], run["settings"]["training"]
    preset = find_preset(judges["reward_model_name_or_path"])
    prompt = judges["reward_model_system_prompt"]
    if prompt is None and preset is not None:  # an empty one was asked for
        prompt = preset.system_prompt
    method = judges.get("verifier_method", "math_verify")
    revision = loaded_revision(judges["reward_model_revision"], run, "reward_model")
    rows = [
        ("what is optimised (`reward_mode`)", f"`{training['reward_mode']}`"),
        ("verifier", f"`MathVerifier`, method `{method}`{_own_rewards(judges)}"),
        ("reward model", model_link(judges["reward_model_name_or_path"], revision)),
        ("its system prompt", f"`{cell(prompt)}`" if prompt else "none"),
    ]
    if training["reward_mode"] != "hybrid":
        return rows
    rows += [(label, f"{training[f'hybrid_{label}']}") for label in ("alpha", "beta", "eps", "bounds", "singleton")]
    return [*rows, ("difficulty weight", _difficulty_weight(training))]


def _own_rewards(judges: dict[str, Any]) -> str:
    right, form = judges.get("verifier_correct_reward", 1.0), judges.get("verifier_format_reward", 0.0)
    return (
        "" if (right, form) == (1.0, 0.0) else f", {right} for a right answer and {form} for the form of a wrong one"
    )


def _difficulty_weight(training: dict[str, Any]) -> str:
    if not training["hybrid_difficulty_weighting"]:
        return "off"
    low, high, steepness = (training[f"hybrid_{key}"] for key in ("w_min", "w_max", "k"))
    unit = " in running means of sigma" if training["hybrid_scale_free"] else ""
    mean = ", divided by the step's mean" if training["hybrid_weight_mean_one"] else ""
    return f"{low} to {high}, k = {steepness}{unit}, sigma of each {training['hybrid_sigma']}{mean}"


def loaded_revision(asked: str | None, run: dict[str, Any], role: str) -> str | None:
    """Name the commit that was loaded, or else the revision that was asked for."""
    return run.get("commits", {}).get(role) or asked


def main_settings(settings: dict[str, Any]) -> str:
    """Return the settings that a reader needs to repeat the run, as YAML that the recipe reads."""
    chosen = {
        name: settings[part][name]
        for part, names in (("training", TRAINING_SETTINGS), ("model", MODEL_SETTINGS), ("tasks", TASK_SETTINGS))
        for name in names
        if settings[part].get(name) is not None
    }
    return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=100).strip()


def own_evaluation(folder: Path) -> dict[str, Any]:
    """Read what `trl-hybrid eval` measured in a run's folder; empty where it measured other weights than lie there."""
    result = read_json(folder / "eval" / "eval.json")
    if result and weights_digest(str(folder)) not in result["model"]["weights"].values():
        logger.warning(
            "%s is of other weights than those in %s and is left out of the card. Measure these: "
            "trl-hybrid eval --model %s --overwrite",
            folder / "eval" / "eval.json", folder, folder,
        )  # fmt: skip
        return {}
    if result:
        problems = result["settings"]["problems"]
        problems["name"] = local_name(problems["name"], result.get("local", []))
    return result


def evaluation_table(result: dict[str, Any]) -> dict[str, Any] | None:
    """Lay out what `trl-hybrid eval` measured.

    Args:
        result: What its `eval.json` holds; empty where there is none.

    Returns:
        `problems` (how many), `data`, `columns` and `rows` of (name, cells); `None` without a measurement.
    """
    if not result:
        return None
    after = result["figures"]["lenient"]
    base = result.get("base", {}).get("figures", {}).get("lenient")
    columns = {"before": base, "after": after} if base else {"accuracy": after}
    rows = [
        (name.replace("_", " "), [_interval(figures.get(name)) for figures in columns.values()])
        for name in after
        if name != "pass@1"  # the mean of all samples
    ]
    problems = result["settings"]["problems"]
    link = data_link({"dataset_name": problems["name"], "dataset_config": problems.get("config")})
    data = f"{link}, split `{problems.get('split')}`"
    return {"problems": result["counts"]["problems"], "data": data, "columns": list(columns), "rows": rows}


def _interval(figure: dict[str, float | None] | None) -> str:
    if figure is None or figure["value"] is None:
        return "unknown"
    value, low, high = (100 * (figure[part] or 0.0) for part in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
