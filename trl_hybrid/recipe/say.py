"""One voice for all processes."""

from accelerate import PartialState


def say(text: str) -> None:
    """Print once, whatever the number of processes."""
    if PartialState().is_main_process:
        print(text, flush=True)  # noqa: T201 - a recipe's own voice
