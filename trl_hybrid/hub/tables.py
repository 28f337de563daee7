"""What a run's files say, laid out for its card."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trl_hybrid.hub.names import cell, data_link, model_link, on_hub
from trl_hybrid.policy.source import weights_digest
from trl_hybrid.reward_model.presets import find_preset
from trl_hybrid.runs.folder import read_json
from trl_hybrid.runs.record import RunRecord
from trl_hybrid.runs.settings import local_name


logger = logging.getLogger(__name__)

# What a reader needs to repeat the run; everything else is at its default, or in summary.json.
MAIN_SETTINGS = (
    "learning_rate", "lr_scheduler_type", "max_steps", "num_train_epochs", "num_generations",
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_iterations", "temperature", "top_p", "top_k",
    "max_completion_length", "mask_truncated_completions", "loss_type", "scale_rewards", "beta", "epsilon",
    "epsilon_high", "max_grad_norm", "bf16", "seed",
    "dtype", "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "load_in_4bit",
    "system_prompt", "max_question_chars", "max_rows",
)  # fmt: skip


def held_out_data(record: RunRecord) -> str:
    """Name the held-out problems; of a local file without its folders."""
    location = record.test_file or "unknown"
    if record.asked.get("datasets"):
        return "split off the data named below"
    return f"`{cell(location if on_hub(record.data[0]) else Path(location).name)}`"


def reward_recipe(record: RunRecord) -> list[tuple[str, str]]:
    """Say what was paid: (name, value) for each part of the reward."""
    prompt, preset = record["reward_model_system_prompt"], find_preset(record.reward_model)
    if prompt is None and preset is not None:  # an empty one was asked for
        prompt = preset.system_prompt
    method = record.asked.get("verifier_method", "math_verify")
    revision = record.commits.get("reward_model") or record["reward_model_revision"]
    rows = [
        ("what is optimised (`reward_mode`)", f"`{record['reward_mode']}`"),
        ("verifier", f"`MathVerifier`, method `{method}`{_own_rewards(record.asked)}"),
        ("reward model", model_link(record.reward_model, revision)),
        ("its system prompt", f"`{cell(prompt)}`" if prompt else "none"),
    ]
    if record["reward_mode"] != "hybrid":
        return rows
    rows += [(label, f"{record[f'hybrid_{label}']}") for label in ("alpha", "beta", "eps", "bounds", "singleton")]
    return [*rows, ("difficulty weight", _difficulty_weight(record))]


def _own_rewards(asked: Mapping[str, Any]) -> str:
    right, form = asked.get("verifier_correct_reward", 1.0), asked.get("verifier_format_reward", 0.0)
    return (
        "" if (right, form) == (1.0, 0.0) else f", {right} for a right answer and {form} for the form of a wrong one"
    )


def _difficulty_weight(record: RunRecord) -> str:
    if not record["hybrid_difficulty_weighting"]:
        return "off"
    low, high, steepness = (record[f"hybrid_{key}"] for key in ("w_min", "w_max", "k"))
    unit = " in running means of sigma" if record["hybrid_scale_free"] else ""
    mean = ", divided by the step's mean" if record["hybrid_weight_mean_one"] else ""
    return f"{low} to {high}, k = {steepness}{unit}, sigma of each {record['hybrid_sigma']}{mean}"


def main_settings(record: RunRecord, names: Sequence[str] = MAIN_SETTINGS) -> str:
    """Return the settings that a reader needs to repeat the run, as YAML that the recipe reads."""
    asked = record.asked
    chosen = {name: asked[name] for name in names if asked.get(name) is not None}
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
    link = data_link([problems["name"]], problems.get("config"))
    data = f"{link}, split `{problems.get('split')}`"
    return {"problems": result["counts"]["problems"], "data": data, "columns": list(columns), "rows": rows}


def _interval(figure: dict[str, float | None] | None) -> str:
    if figure is None or figure["value"] is None:
        return "unknown"
    value, low, high = (100 * (figure[part] or 0.0) for part in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
