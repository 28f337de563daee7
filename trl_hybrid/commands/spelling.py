"""One name for one option in every command: the recipe's own works everywhere, with hyphens or underscores."""

import re
from collections.abc import Sequence


OPTION = re.compile(r"^--[a-z][a-z0-9_-]*(?==|$)")

SAME: dict[str, dict[str, str]] = {
    "eval": {
        "model_name_or_path": "model",
        "reward_model_name_or_path": "reward_model",
        "revision": "model_revision",
        "dataset_test_split": "dataset_split",
    },
    "verify": {"timeout": "verifier_timeout", "num_workers": "verifier_num_workers"},
    "score": {"reward_model": "reward_model_name_or_path", "batch_rows": "batch_size"},
    "push": {"revision": "hub_revision", "hub_private_repo": "private"},
    "check": {"model": "model_name_or_path", "reward_model": "reward_model_name_or_path"},
    "plan": {"model": "model_name_or_path", "reward_model": "reward_model_name_or_path"},
}
"""For each command, other names of its options: the recipe's, or an earlier version's."""


def with_known_names(words: Sequence[str]) -> list[str]:
    """Spell a command line's options as the command names them; values stay as they are.

    Args:
        words: The command first.

    Example:
        >>> with_known_names(["eval", "--model-name-or-path=a-b", "--max-rows", "-1"])
        ['eval', '--model=a-b', '--max_rows', '-1']
    """
    same = SAME.get(words[0], {}) if words else {}
    return [*words[:1], *(OPTION.sub(lambda found: _known(found[0], same), word) for word in words[1:])]


def _known(option: str, same: dict[str, str]) -> str:
    name = option.removeprefix("--").replace("-", "_")
    return f"--{same.get(name, name)}"
