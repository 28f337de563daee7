"""What a check finds, and how a failure becomes a finding."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from trl_hybrid.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        status: "ok"; "problem", which has a fix; "note", which stops nothing; "skipped".
        text: What was found.
        fix: What to do about a problem.
    """

    status: Literal["ok", "problem", "note", "skipped"]
    text: str
    fix: str = ""


def findings(check: Callable[..., Iterable[Finding]], *args: Any, fix: str) -> Iterator[Finding]:
    """Yield what a check finds; what a person can mend and stops the check is a problem too.

    Args:
        check: Yields findings.
        *args: Its arguments.
        fix: What to do when it raises and its message has but one line; further lines are the fix, and an
            [`InputError`] names its own.
    """
    try:
        yield from check(*args)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        text, _, rest = str(error).partition("\n")
        own = rest or isinstance(error, InputError)
        yield Finding("problem", text or type(error).__name__, rest if own else fix)
