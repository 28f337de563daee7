"""Errors that the user can mend, and how they are shown."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


TRACEBACK_VARIABLE = "TRL_HYBRID_TRACEBACK"

LIBRARIES = ("accelerate", "datasets", "peft", "transformers", "trl")
"""Whose `ValueError`s are about settings that were handed on to them."""

EMBEDDED_COMMAND = "python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml"


class InputError(ValueError):
    """Something the user gave cannot be used; the message holds the rule, the value and the fix."""


def hide_known_warnings() -> None:
    """Hide what users can do nothing about: TRL and PEFT use names that transformers 5.23 renames."""
    warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show bad input as one message on standard error and exit with status 2.

    Only what a person can mend is caught: `InputError`, `OSError` (files, network, the Hub's errors), `ImportError`
    (packages that a setting asks for), and a `ValueError` by which a library refuses a setting. Any other error, also
    a plain `ValueError` of this package, is a mistake in code and shows its trace.
    Wrap the preparation of a run in it, not the run. With the environment variable `TRL_HYBRID_TRACEBACK` set, the
    exception goes on with its stack trace. What the terminal's encoding does not have is shown by its number.

    Raises:
        SystemExit: With status 2, in place of the exception; with 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        raise SystemExit(130) from None
    except (ValueError, OSError, ImportError) as error:
        mendable = isinstance(error, InputError | OSError | ImportError) or _is_refused_by_a_library(error)
        if os.environ.get(TRACEBACK_VARIABLE) or not mendable:
            raise
        rank = os.environ.get("RANK", "0")
        sys.stderr.write(f"\n{'' if rank == '0' else f'[process {rank}] '}error: {error}\n")
        if not isinstance(error, InputError):
            sys.stderr.write(f"(set {TRACEBACK_VARIABLE}=1 to see where)\n")
        sys.stderr.flush()
        raise SystemExit(2) from None


def _is_refused_by_a_library(error: Exception) -> bool:
    """Say whether an error was raised in code that checks what users ask for, and not in ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in LIBRARIES
