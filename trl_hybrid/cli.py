"""The command `trl-hybrid`."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from trl_hybrid.commands import configs, plan, score, verify
from trl_hybrid.errors import plain_errors


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="trl-hybrid", description="Tools around hybrid-reward GRPO.")
    parser.add_argument("--version", action="version", version=f"trl-hybrid {version('trl-hybrid')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in (verify, score, plan, configs):
        command.add_parser(commands)
    parsed, unknown = parser.parse_known_args(args)
    if "recipe_options" in parsed:
        parsed.recipe_options = unknown
    elif unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    with plain_errors():
        return parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
