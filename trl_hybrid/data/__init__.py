"""Any data set becomes rows of `prompt` and `solution`, and is looked at before anything is paid for.

Importing this package is cheap: datasets and transformers load with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from trl_hybrid.data.files import split_location
    from trl_hybrid.data.mixture import load_mixture
    from trl_hybrid.data.tasks import TaskSource, load_tasks, load_test_tasks

_HOMES = {
    "TaskSource": "tasks",
    "load_mixture": "mixture",
    "load_tasks": "tasks",
    "load_test_tasks": "tasks",
    "split_location": "files",
}

__all__ = ["TaskSource", "load_mixture", "load_tasks", "load_test_tasks", "split_location"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
