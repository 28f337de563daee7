"""The command `trl-hybrid`."""

import argparse
import difflib
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from trl_hybrid.commands import check, configs, init, plan, push, report, score, serve_command, verify
from trl_hybrid.commands import eval as evaluation
from trl_hybrid.errors import hide_known_warnings, plain_errors


COMMANDS: dict[str, Any] = {
    "init": init,
    "check": check,
    "plan": plan,
    "eval": evaluation,
    "report": report,
    "push": push,
    "verify": verify,
    "score": score,
    "configs": configs,
    "serve-command": serve_command,
}
"""Modules of SUMMARY, DESCRIPTION, EXAMPLES and maybe USAGE, `add_options(parser)` and `run(args) -> exit status`."""

DESCRIPTION = "Tools around hybrid-reward GRPO. The training itself is `python recipes/tinyllama_grpo.py`."

EXAMPLES = """examples, in the order of a project:
  trl-hybrid init my-project && cd my-project
  trl-hybrid check --config recipes/configs/embedded.yaml
  trl-hybrid plan --config recipes/configs/tinyllama_grpo.yaml --gpu_memory 24
  trl-hybrid report runs/embedded
  trl-hybrid eval --model runs/embedded --base
  trl-hybrid push runs/embedded --hub_model_id me/tiny
Each command explains itself: trl-hybrid eval --help. Options have the names that the recipe has for them.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parsed = parse(args)
    with plain_errors(), warnings.catch_warnings():
        hide_known_warnings()
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
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        own = commands.add_parser(
            name,
            help=command.SUMMARY,
            usage=f"trl-hybrid {name} {command.USAGE}" if hasattr(command, "USAGE") else None,
            description=command.DESCRIPTION,
            epilog=command.EXAMPLES,
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=33),
            allow_abbrev=False,  # what works today would mean something else once there is another option
        )
        if words[:1] == [name]:  # those of others may need packages that this command does without
            command.add_options(own)
        own.set_defaults(run=command.run)
    if not words:
        parser.print_help()
        raise SystemExit(0)
    parsed, unknown = parser.parse_known_args(words)
    if "recipe_options" in parsed:
        parsed.recipe_options = unknown
    elif unknown:
        own = commands.choices[parsed.command]
        own.error(f"unrecognized arguments: {' '.join(unknown)}{_hint(unknown[0], own)}")
    return parsed


def _hint(option: str, parser: argparse.ArgumentParser) -> str:
    """Name the options that were perhaps meant."""
    known = [name for action in parser._actions for name in action.option_strings]
    near = difflib.get_close_matches(option.partition("=")[0], known)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


if __name__ == "__main__":
    sys.exit(main())
