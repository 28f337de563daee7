"""Python and the packages, against what the installed package's metadata ask for."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from trl_hybrid.checks.finding import Finding


PACKAGE = "trl-hybrid"

OPTIONAL = {
    "deepspeed": "reward_model_placement zero3 and the launch configurations zero2, zero3",
    "vllm": "use_vllm",
    "trackers": "report_to tensorboard, trackio or wandb",
}
"""The package's extras, and what needs them."""

BITSANDBYTES = "load_in_4bit and load_in_8bit"


def check_packages() -> Iterator[Finding]:
    """Compare Python and the installed packages with what this package asks for."""
    wanted = SpecifierSet(metadata(PACKAGE)["Requires-Python"])
    found = platform.python_version()
    fix = f"Make a virtual environment with Python {wanted}."
    yield Finding("ok", f"Python {found}") if found in wanted else Finding("problem", f"Python {found}", fix)
    yield from map(_compare, requirements(PACKAGE))
    for extra, use in OPTIONAL.items():
        yield from _compare_extra(list(requirements(PACKAGE, extra)), use, f"'{PACKAGE}[{extra}]'")
    yield from _compare_extra([Requirement("bitsandbytes")], BITSANDBYTES, "bitsandbytes")


def requirements(distribution: str, extra: str = "") -> Iterator[Requirement]:
    """Yield what an installed distribution asks for, or what one of its extras adds.

    An extra of another distribution in it, as in `trl[vllm]`, stands for what that one adds.

    Raises:
        PackageNotFoundError: There is no such distribution.
    """
    for requirement in map(Requirement, requires(distribution) or []):
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if always if not extra else not always and marker is not None and marker.evaluate({"extra": extra}):
            if not requirement.extras:
                yield requirement
            for further in requirement.extras:
                yield from requirements(requirement.name, further)


def _compare(requirement: Requirement) -> Finding:
    wanted = str(requirement.specifier) or "any version"
    found = _installed(requirement)
    if found is not None and requirement.specifier.contains(found, prereleases=True):
        return Finding("ok", f"{requirement.name} {found}")
    state = f"{requirement.name} {found} is installed" if found else f"{requirement.name} is not installed"
    fix = f"pip install '{requirement.name}{requirement.specifier}'"
    return Finding("problem", f"{state}, {wanted} is needed", fix)


def _compare_extra(wanted: list[Requirement], use: str, install: str) -> Iterator[Finding]:
    """Look at packages that may be missing."""
    missing = [requirement for requirement in wanted if _installed(requirement) is None]
    yield from (_compare(requirement) for requirement in wanted if requirement not in missing)
    if missing:
        names = ", ".join(requirement.name for requirement in missing)
        yield Finding("note", f"Not installed: {names}; only for {use} (pip install {install})")


def _installed(requirement: Requirement) -> str | None:
    try:
        return version(requirement.name)
    except PackageNotFoundError:
        return None
