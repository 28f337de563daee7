"""`trl-hybrid init`: a folder with recipes, configurations, tiny models and documentation, to run and to change."""

import argparse
import re
import shlex
import shutil
from pathlib import Path

from trl_hybrid.errors import InputError
from trl_hybrid.shipped import shipped_folder


SUMMARY = "copy the recipes and their configurations into a folder"

DESCRIPTION = (
    "Copy the recipes, their configurations, the launch configurations, the embedded tiny models and the "
    "documentation into a folder, so that `python recipes/...` works there. Files that are there already stay as they "
    "are."
)

EXAMPLES = """examples:
  trl-hybrid init my-project
  cd my-project && python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml
"""

SHIPPED = ("recipes", "accelerate_configs", "data", "docs", "README.md", ".gitignore")

NEXT = """Next, a first run offline, a minute or two on a CPU (README.md says what else there is):
  cd {folder}
  python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml"""


def add_options(init: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    init.add_argument("folder", type=Path, help="made where it does not exist")


def run(args: argparse.Namespace) -> int:
    """Copy every shipped file that is not there yet, and say what to do next."""
    if args.folder.exists() and not args.folder.is_dir():
        raise InputError(f"FOLDER must be a folder or not exist yet, got the file {str(args.folder)!r}.")
    files = [pair for name in SHIPPED for pair in shipped_files(name, args.folder)]
    new = [(source, target) for source, target in files if not target.exists()]
    for source, target in new:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    readme = args.folder / "README.md"
    if readme in [target for _, target in new]:
        readme.write_text(without_dead_links(readme.read_text(encoding="utf-8"), args.folder), encoding="utf-8")
    kept = f"; {len(files) - len(new)} were there already and stay as they are" if len(new) < len(files) else ""
    print(f"Copied {len(new)} files into {args.folder}{kept}.")
    print(NEXT.format(folder=shlex.quote(str(args.folder))))
    return 0


def without_dead_links(text: str, folder: Path) -> str:
    """Leave of links and pictures whose files a folder does not have their words.

    >>> without_dead_links("[Tests](NO_SUCH_FILE.md), [TRL](https://github.com/huggingface/trl)", Path())
    'Tests, [TRL](https://github.com/huggingface/trl)'
    """

    def kept(link: re.Match[str]) -> str:
        return link[0] if link[2].startswith("http") or (folder / link[2]).exists() else link[1]

    return re.sub(r"!?\[([^\[\]]*)\]\(([^()#]+)(?:#[^()]*)?\)", kept, text)


def shipped_files(name: str, into: Path) -> list[tuple[Path, Path]]:
    """List the files of a shipped folder, or the one of this name, each with where it goes.

    Raises:
        InputError: They are not where they were installed.
    """
    source = shipped_folder(name)
    if source.is_file():
        return [(source, into / name)]
    found = [path for path in sorted(source.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    if not found:
        raise InputError(f"There are no files in {str(source)!r}: install trl-hybrid again.")
    return [(path, into / name / path.relative_to(source)) for path in found]
