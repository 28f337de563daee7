"""`trl-hybrid push`: a finished run's model, with its card, to the Hugging Face Hub."""

import argparse
from pathlib import Path


SUMMARY = "upload a finished run's model with its card"

DESCRIPTION = """Check the model that a run saved, write its model card and upload both to the Hugging Face Hub.

Goes for a run whose push failed, for one that was trained without push_to_hub, and again after `trl-hybrid eval`: what
is on the Hub already is not sent again. The card is written anew each time. Log in first: `hf auth login`.
"""

EXAMPLES = """examples:
  trl-hybrid push runs/tinyllama-grpo --hub_model_id my-name/tinyllama-maths
  trl-hybrid push runs/tinyllama-grpo --hub_model_id my-name/tinyllama-maths --private
"""


def add_options(push: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    add = push.add_argument
    add("run_folder", type=Path, metavar="RUN", help="the run's folder, as runs/tinyllama-grpo")
    add("--hub_model_id", metavar="NAME", help="repository, as you/name (default: the run's own, or its folder's)")
    private = "make the repository private (default: the run's hub_private_repo)"
    add("--private", "--hub_private_repo", action="store_true", default=None, help=private)
    add("--hub_revision", metavar="BRANCH", help="branch to push to (default: the run's hub_revision, or else main)")
    add("--trust_remote_code", action="store_true", help="run code of the base model's repository for the check")


def run(args: argparse.Namespace) -> int:
    """Check, push, and print the page."""
    from trl_hybrid.hub.saved import base_model, check_saved_model, check_saved_reward_model, check_weights, is_here
    from trl_hybrid.hub.upload import push_run, record_to_share
    from trl_hybrid.runs.settings import local_name

    record = record_to_share(args.run_folder)
    base = base_model(args.run_folder)
    if record.made_reward_model:
        check_saved_reward_model(args.run_folder, args.trust_remote_code)
    elif base is None or is_here(local_name(base[0], record.local), base[1]):
        check_saved_model(args.run_folder, trust_remote_code=args.trust_remote_code)
    else:
        check_weights(args.run_folder)
        print(f"Only the adapter's own weights were checked: {base[0]} is not on this machine.")
    print(f"Pushed: {push_run(args.run_folder, args.hub_model_id, args.private, args.hub_revision)}")
    return 0
