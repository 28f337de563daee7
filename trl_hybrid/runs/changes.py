"""A run that goes on with other settings: what cannot fit is refused, everything else is said."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError
from trl_hybrid.runs.folder import judges_state, read_json, relative_path
from trl_hybrid.runs.record import read_record
from trl_hybrid.runs.settings import PLACES, SETTINGS_FILE


Changes = dict[str, tuple[Any, Any]]
"""By a setting's name: the run's value, and the one that is asked for now."""

GENERATION = (
    "num_generations", "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation",
    "generation_batch_size", "num_iterations",
)  # fmt: skip
LORA = (
    "lora_r", "lora_target_modules", "lora_target_parameters", "lora_modules_to_save", "lora_alpha", "use_rslora",
    "use_dora",
)  # fmt: skip

# What a checkpoint holds, and the settings that it would not fit otherwise. Those of LoRA count with use_peft only,
# those of a generation only where the checkpoint was saved within one, the processes only under DeepSpeed.
FIXED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("model_name_or_path", "model_revision"), "its weights are that model's, or an adapter to it"),
    (("use_peft",), "it holds an adapter with LoRA, all weights without"),
    (LORA, "its adapter has these matrices and was trained at this scale"),
    (
        ("optim", "optim_args", "optim_target_modules", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
        "its optimizer goes on as it was set up",
    ),
    (("head_learning_rate",), "its optimizer goes on as it was set up"),
    (
        ("reward_model_name_or_path", "reward_model_revision"),
        "its bounds and running means are in that model's units",
    ),
    (GENERATION, "it was saved within a generation and counts its batches"),
    (("under_deepspeed",), "DeepSpeed saves the optimizer in parts of its own"),
    (("processes",), "each process reads its own part of DeepSpeed's state"),
)

# Where a run lies and what it is called is no change of the run; secrets are masked, and TRL fills in the last ones.
NOT_COMPARED = {
    "output_dir", "logging_dir", "run_name", "resume_from_checkpoint", "overwrite_output_dir", "push_to_hub",
    "hub_token", "local_rank", "ddp_backend", "model_init_kwargs", "reward_weights",
}  # fmt: skip

LEFT_TO_THE_RUN = {"max_test_rows"}
"""Settings of which none given means what the run has had."""

# Everything else may change, and the change is said: how long a run is, what it logs and saves, its data, its reward.


def changes_since(checkpoint: Path, settings: dict[str, Any]) -> Changes:
    """Compare the settings that a checkpoint was made with to others.

    Args:
        checkpoint: Its folder. The run's settings lie beside it; of a run without them, the checkpoint tells a few.
        settings: `tasks`, `model` and the others, as they are asked for now; `launch` with `processes` and
            `under_deepspeed`, where those are to be compared.

    Returns:
        What both know and have differently.
    """
    step = read_json(checkpoint / "trainer_state.json")["global_step"]
    before = {**_told_by(checkpoint), **read_record(checkpoint.parent).at(step).asked}
    now = _flat(settings)
    passed = NOT_COMPARED if before["use_peft"] or now.get("use_peft") else {*NOT_COMPARED, *LORA, "lora_dropout"}
    return {
        name: (before[name], now[name])
        for name in now
        if name in before and name not in passed and not _same(name, before[name], now[name])
    }


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Put the groups' settings into one dictionary, as JSON has them; no two groups share a name."""
    groups = json.loads(json.dumps(settings)).values()
    return {name: value for group in groups for name, value in group.items()}


def _told_by(checkpoint: Path) -> dict[str, Any]:
    """Read from a checkpoint itself what its weights are, and how it was launched."""
    adapter = read_json(checkpoint / "adapter_config.json")
    known = {"lora_r": "r", "lora_alpha": "lora_alpha", "model_name_or_path": "base_model_name_or_path"}
    processes = len(list(checkpoint.glob("rng_state*.pth")))
    return {
        "use_peft": bool(adapter),
        "under_deepspeed": any(checkpoint.glob("global_step*")),
        **({"processes": processes} if processes else {}),
        **{name: adapter[key] for name, key in known.items() if key in adapter},
    }


def _same(name: str, before: Any, now: Any) -> bool:
    if name in PLACES and before and now and Path(before).exists() and Path(now).exists():
        return Path(before).resolve() == Path(now).resolve()
    return before == now or (now is None and name in LEFT_TO_THE_RUN)


def check_changes(checkpoint: Path, changes: Changes) -> None:
    """Refuse what cannot fit.

    Args:
        checkpoint: The one to go on from.
        changes: See [`changes_since`].

    Raises:
        InputError: A setting of `FIXED` has changed; the message names all of them.
    """
    within = judges_state(checkpoint).get("generation_step", 0)
    sharded = any(checkpoint.glob("global_step*"))
    passed = (
        *(() if within else GENERATION),
        *(LORA if "use_peft" in changes else ()),
        *(() if sharded and "under_deepspeed" not in changes else ("processes",)),
    )
    refused = {name: why for names, why in FIXED for name in names if name in changes and name not in passed}
    if refused:
        lines = "\n".join(f"{lines_of(changes, [name])[0]}   ({why})" for name, why in refused.items())
        raise InputError(
            f"These settings cannot change when a run goes on from {relative_path(str(checkpoint))!r}:\n{lines}\n"
            "Give the values that the run was started with, or start another run: leave resume_from_checkpoint out "
            f"and name another output_dir. For the same model in another place, write that into {SETTINGS_FILE}."
        )


def lines_of(changes: Changes, names: Iterable[str]) -> list[str]:
    """Write `name: before -> now` for some of the changes.

    >>> lines_of({"max_steps": (6, 8), "system_prompt": (None, "Think.")}, ["max_steps", "system_prompt"])
    ['  max_steps: 6 -> 8', "  system_prompt: None -> 'Think.'"]
    """
    return [f"  {name}: {changes[name][0]!r} -> {changes[name][1]!r}" for name in names]
