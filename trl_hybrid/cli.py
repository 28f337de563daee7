"""The command `trl-hybrid`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

from trl_hybrid.commands import check, configs, init, plan, push, report, score, verify
from trl_hybrid.commands import eval as evaluation
from trl_hybrid.commands.spelling import with_known_names
from trl_hybrid.errors import plain_errors


DESCRIPTION = "Tools around hybrid-reward GRPO. The training itself is `python recipes/tinyllama_grpo.py`."

EXAMPLES = """examples, in the order of a project:
  trl-hybrid init my-project && cd my-project
  trl-hybrid check --config recipes/configs/embedded.yaml
  trl-hybrid plan --config recipes/configs/tinyllama_grpo.yaml --gpu_memory 24
  trl-hybrid report runs/embedded
  trl-hybrid eval --model runs/embedded --base
  trl-hybrid push runs/embedded --hub_model_id me/tiny
Each command explains itself: trl-hybrid eval --help. Options are written with underscores or hyphens, and by the
names that the recipe has for them.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parsed = parse(args)
    with plain_errors():
        return parsed.run(parsed)


def parse(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, without doing anything yet.

    Raises:
        SystemExit: After `--help`, without any word, or where it is wrong.
    """
    words = sys.argv[1:] if args is None else list(args)
    parser = argparse.ArgumentParser(
        prog="trl-hybrid",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"trl-hybrid {version('trl-hybrid')}")
    # An abbreviation that works today would mean something else once there is another option.
    strict = partial(argparse.ArgumentParser, allow_abbrev=False)
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="command",
        parser_class=strict,  # pyright: ignore[reportArgumentType] - argparse only calls it
    )
    for command in (init, check, plan, evaluation, report, push, verify, score, configs):
        command.add_parser(commands)
    if not words:
        parser.print_help()
        raise SystemExit(0)
    parsed, unknown = parser.parse_known_args(with_known_names(words))
    if "recipe_options" in parsed:
        parsed.recipe_options = unknown
    elif unknown:
        commands.choices[parsed.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return parsed


if __name__ == "__main__":
    sys.exit(main())
