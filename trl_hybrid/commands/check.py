"""`trl-hybrid check`: is everything there that a run needs?"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from textwrap import indent
from typing import TYPE_CHECKING, Any

from trl_hybrid.commands.recipe_options import parse_recipe_options


if TYPE_CHECKING:
    from trl_hybrid.checks.finding import Finding

SUMMARY = "check the installation, the machine, the data, the judges and, after asking, the models"

USAGE = "[--yes | --no] [--config FILE] [--OPTION VALUE ...]"

DESCRIPTION = """Check the installation, the machine, the verifier, the hybrid reward and the data; then, after asking,
load the policy and the reward model and score one completion.

Takes the recipe's YAML file and all its options, and checks what they name. Exits with 1 where there is a problem and
with 0 where there is none.
"""

EXAMPLES = """examples:
  trl-hybrid check
  trl-hybrid check --no                                                what is cheap, without asking: a few seconds
  trl-hybrid check --yes --config recipes/configs/embedded.yaml        everything, offline, with the tiny models
  trl-hybrid check --dataset_name openai/gsm8k --dataset_config main --reward_model_placement streamed
"""

DATA_FIX = "Check --dataset_name, the split and the columns; without a network a file or folder does."
MODEL_FIX = (
    "Check the name, the network and `hf auth login`; a model in a folder needs no network. Out of memory: a smaller "
    "model, or --reward_model_placement streamed."
)
INSTALL_FIX = "Install the package again: pip install -c constraints.txt -e . in a checkout."


def add_options(check: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    check.add_argument("--config", metavar="FILE", help="the recipe's YAML file; any option of the recipe may follow")
    either = check.add_mutually_exclusive_group()
    either.add_argument("--yes", action="store_true", help="load the models without asking")
    either.add_argument(
        "--no", action="store_true", help="do not load the models, and do not ask; so it is without a terminal"
    )
    check.set_defaults(recipe_options=[])


class Report:
    """Prints findings as they come, and counts them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, title: str, found: Iterable["Finding"]) -> None:
        """Print a section."""
        print(f"\n{title}", flush=True)
        for finding in found:
            self.counts[finding.status] += 1
            print(f"  {finding.status:8} {finding.text}", flush=True)
            if finding.status == "problem" and finding.fix:
                print(indent(finding.fix, " " * 11).replace(" " * 11, "       fix ", 1), flush=True)

    @property
    def status(self) -> int:
        """The exit status."""
        return 1 if self.counts["problem"] else 0

    def total(self) -> str:
        """Sum up."""
        problems = self.counts["problem"]
        skipped = f", {self.counts['skipped']} skipped" if self.counts["skipped"] else ""
        return f"\n{problems or 'No'} problem{'s' * (problems != 1)}, {self.counts['ok']} checks passed{skipped}."


def run(args: argparse.Namespace) -> int:
    """Check, print, and return 1 where there is a problem."""
    from trl_hybrid.checks.finding import findings
    from trl_hybrid.checks.packages import check_packages

    report = Report()
    report.add("Python and packages", findings(check_packages, fix=INSTALL_FIX))
    if report.status == 0:
        _check_the_rest(args, report)
    else:
        report.add("Everything else", _skipped("Not checked until the packages are right"))
    print(report.total())
    return report.status


def _check_the_rest(args: argparse.Namespace, report: Report) -> None:
    from trl_hybrid.checks.finding import findings
    from trl_hybrid.checks.judges import check_hybrid_reward, check_verifier
    from trl_hybrid.checks.machine import check_hub, check_machine
    from trl_hybrid.checks.problems import check_data
    from trl_hybrid.verifier import MathVerifier

    tasks, judges, training, model = parse_recipe_options(args.config, args.recipe_options)
    report.add("Machine", findings(check_machine, fix=INSTALL_FIX))
    rows: list[dict[str, Any]] = []
    with MathVerifier(timeout=judges.verifier_timeout, num_workers=judges.verifier_num_workers) as verifier:
        report.add("Verifier", findings(check_verifier, verifier, fix=INSTALL_FIX))
        report.add("Hybrid reward", findings(check_hybrid_reward, fix=INSTALL_FIX))
        report.add("Data", findings(check_data, tasks, verifier, rows, fix=DATA_FIX))
        report.add("Hub", findings(check_hub, fix=INSTALL_FIX))
        if not args.yes and (args.no or not sys.stdin.isatty()):
            why = "--no was given" if args.no else "there is no terminal to ask; add --yes to load them"
            report.add("Models", _skipped(f"No model was loaded and no completion was scored: {why}"))
            return
        from trl_hybrid.checks.models import ModelChecks

        models = ModelChecks(judges, training, model, rows, verifier, ask=_yes if args.yes else _ask)
        report.add("Policy", findings(models.policy, fix=MODEL_FIX))
        report.add("Reward model", findings(models.reward_model, fix=MODEL_FIX))


def _skipped(text: str) -> list["Finding"]:
    from trl_hybrid.checks.finding import Finding

    return [Finding("skipped", text)]


def _ask(question: str) -> bool:
    try:
        return input(f"  {question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _yes(question: str) -> bool:
    print(f"  {question} yes", flush=True)
    return True
