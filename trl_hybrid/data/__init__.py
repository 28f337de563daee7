"""Any data set becomes rows of `prompt` and `solution`, and is looked at before anything is paid for."""

from trl_hybrid.data.files import split_location
from trl_hybrid.data.mixture import load_mixture
from trl_hybrid.data.tasks import TaskSource, load_tasks, load_test_tasks


__all__ = ["TaskSource", "load_mixture", "load_tasks", "load_test_tasks", "split_location"]
