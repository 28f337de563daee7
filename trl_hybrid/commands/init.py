"""`trl-hybrid init`: a folder with the recipes, their configurations and the embedded models, to run and to change."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError
from trl_hybrid.shipped import shipped_folder


DESCRIPTION = (
    "Copy the recipes, their configurations, the launch configurations and the embedded tiny models into a folder, "
    "so that `accelerate launch recipes/...` works there. Files that are there already stay as they are."
)

EXAMPLES = """examples:
  trl-hybrid init my-project
  cd my-project && accelerate launch recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml
"""

FOLDERS = ("recipes", "accelerate_configs", "data")


def add_parser(commands: Any) -> None:
    """Describe the command to the command line."""
    init = commands.add_parser(
        "init",
        help="copy the recipes and their configurations into a folder",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    init.add_argument("folder", type=Path, help="made where it does not exist")
    init.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Copy every shipped file that is not there yet, and say what to do next."""
    if args.folder.exists() and not args.folder.is_dir():
        raise InputError(f"FOLDER must be a folder or not exist yet, got the file {str(args.folder)!r}.")
    files = [(source, args.folder / name / part) for name in FOLDERS for source, part in _files(name)]
    new = [(source, target) for source, target in files if not target.exists()]
    for source, target in new:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    kept = f"; {len(files) - len(new)} were there already and stay as they are" if len(new) < len(files) else ""
    print(f"Copied {len(new)} files into {args.folder}{kept}.\nGo on there, for example with")
    print("  accelerate launch recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml")
    return 0


def _files(name: str) -> list[tuple[Path, Path]]:
    """List the files of a shipped folder, each with its path below that folder.

    Raises:
        InputError: The folder is not where it was installed.
    """
    folder = shipped_folder(name)
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    if not found:
        raise InputError(f"There are no files in {str(folder)!r}: install trl-hybrid again.")
    return [(path, path.relative_to(folder)) for path in found]
