"""`trl-hybrid serve-command`: how to put the reward model behind a server."""

import argparse
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from trl_hybrid.reward_model.serve_commands import Served

SUMMARY = "print the command that serves the reward model by vLLM or SGLang"

USAGE = "[--config FILE] [--gpus N] [--port PORT] [--batch_invariant] [--OPTION VALUE ...]"

DESCRIPTION = """Print the exact commands that put the reward model behind a vLLM or SGLang server, and the option by
which training finds it there.

Takes the recipe's YAML file and all its options, and reads the reward model's config.json; nothing is started.
"""

EXAMPLES = """examples:
  trl-hybrid serve-command
  trl-hybrid serve-command --config recipes/configs/math_80gb.yaml --reward_model_max_length 2048
  trl-hybrid serve-command --reward_model_name_or_path nvidia/AceMath-72B-RM --gpus 4

For more speed start one server on each GPU, with CUDA_VISIBLE_DEVICES and a port of its own, and name all of them:
--reward_model_server_url http://host:8001,http://host:8002. They share the rows. A larger --gpus is for a model that
does not fit on one.

vLLM also runs on a machine without a GPU (--gpus 0). `pip install vllm` or `pip install sglang`, in an environment of
the server's own: training needs neither.

Servers listen on every address of their machine, unless --host says otherwise. Keep the port behind a firewall: vLLM's
--api-key does not guard the path that training asks. Where a key is asked for all the same, as by a proxy or SGLang,
training takes it from the environment variable TRL_HYBRID_SERVER_KEY.
"""


def add_options(serve: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    add = serve.add_argument
    add("--config", metavar="FILE", help="the recipe's YAML file; any option of the recipe may follow, over it")
    add("--gpus", type=_count, default=1, metavar="N", help="GPUs that share one copy; 0: a CPU (default: 1)")
    add("--port", type=_port, default=8001, help="where the server listens (default: 8001)")
    add("--batch_invariant", action="store_true", help="the same score whatever else is in the batch (vLLM, on a GPU)")
    serve.set_defaults(recipe_options=[])


def run(args: argparse.Namespace) -> int:
    """Print the commands."""
    from trl_hybrid.commands.recipe_options import parse_recipe_options
    from trl_hybrid.errors import InputError
    from trl_hybrid.reward_model.serve_commands import sglang_command, vllm_command

    if args.batch_invariant and args.gpus == 0:
        raise InputError("--batch_invariant needs a GPU: vLLM for the CPU has no such mode. Leave one of the two out.")
    _, judges, _, _ = parse_recipe_options(args.config, args.recipe_options)
    served = served_model(judges, args)
    print(f"vLLM:\n  {vllm_command(served)}")
    if not args.batch_invariant:
        print(f"SGLang:\n  {sglang_command(served)}")
    print(f"Training, on any machine that reaches it:\n  --reward_model_server_url http://HOST:{args.port}")
    return 0


def served_model(judges: Any, args: argparse.Namespace) -> "Served":
    """Return the reward model as the options want it served.

    Raises:
        InputError: Its configuration is no reward model's.
    """
    from trl_hybrid.models.check import check_model_found
    from trl_hybrid.reward_model.loading import Source, load_config, longest_row
    from trl_hybrid.reward_model.serve_commands import Served

    name, revision = judges.reward_model_name_or_path, judges.reward_model_revision
    trusted = judges.reward_model_trust_remote_code
    check_model_found(name, "reward model", revision, trusted, scores=True)
    return Served(
        name,
        longest_row(load_config(Source(name, revision, trusted)), judges.reward_model_max_length),
        judges.reward_model_dtype or ("bfloat16" if args.gpus else "float32"),
        revision,
        trusted,
        args.gpus,
        args.port,
        args.batch_invariant,
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be a port from 1 to 65535, got {text}")
    return int(text)
