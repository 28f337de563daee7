"""Faults of the rules themselves, on texts that nobody foresaw: no text may end a run."""

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar


logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def contained(rule: Callable[..., Result], *arguments: Any, instead: Result) -> Result:
    """Return what a rule says of some texts, and `instead` where it fails on them, which is logged once."""
    try:
        return rule(*arguments)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a rule of ours raises on a text, the text is not to blame
        report_fault(repr(error)[:500], *(argument for argument in arguments if isinstance(argument, str)))
        return instead


@lru_cache(maxsize=1024)
def report_fault(error: str, *texts: str) -> None:
    """Log a fault and the end of the texts, once: a run meets the same pair again and again."""
    logger.warning(
        "The verifier's rules failed (%s) on %s. The answer counts as wrong (reason: error). Please report it.",
        error,
        " and ".join(repr(text[-200:]) for text in texts),
    )
