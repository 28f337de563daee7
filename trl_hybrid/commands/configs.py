"""`trl-hybrid configs`: where the shipped launch configurations lie, and when to use each."""

import argparse
from pathlib import Path

from trl_hybrid.errors import InputError
from trl_hybrid.shipped import shipped_folder


SUMMARY = "list the shipped accelerate and DeepSpeed configurations"

DESCRIPTION = "Print the paths of the shipped accelerate and DeepSpeed configurations, and when to use each."

EXAMPLES = """examples:
  trl-hybrid configs
  accelerate launch --config_file "$(trl-hybrid configs zero2)" --num_processes 4 recipes/tinyllama_grpo.py
"""

# JSON has no comments.
DEEPSPEED_USES = {
    "rm_zero3_offload": (
        "Goes with any of the above: the reward model's own, shared by all processes in host memory "
        "(--reward_model_placement zero3)."
    ),
}


def add_options(configs: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    configs.add_argument("name", nargs="?", help="print only the path of this one, such as zero2 or zero2.yaml")


def run(args: argparse.Namespace) -> int:
    """Print every configuration's path and use, or one path."""
    found = find_configs()
    if args.name is None:
        for path in found:
            print(f"{path}\n    {when_to_use(path)}")
    else:
        print(_named(args.name, found))
    return 0


def find_configs() -> list[Path]:
    """Return the shipped configurations: those for `accelerate launch`, then DeepSpeed's.

    Raises:
        InputError: They are not where they were installed.
    """
    folder = shipped_folder("accelerate_configs").resolve()
    found = [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("deepspeed/*.json"))]
    if not found:
        raise InputError(f"There are no configurations in {str(folder)!r}: install trl-hybrid again.")
    return found


def when_to_use(config: Path) -> str:
    """Return what a configuration's first line, a comment, says; of a JSON file what is known of it here."""
    if config.suffix == ".json":
        return DEEPSPEED_USES[config.stem]
    with config.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def _named(name: str, found: list[Path]) -> Path:
    for path in found:
        if name in (path.name, path.stem):
            return path
    raise InputError(f"There is no configuration {name!r}. Choose one of: {', '.join(path.stem for path in found)}.")
