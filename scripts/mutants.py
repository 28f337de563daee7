"""Break the core in small ways, one at a time, and see whether the tests that belong to it notice: `make mutants`.

mutmut makes the mutants. Its own runner starts pytest anew for each of them, some seconds beside the tests themselves;
this one collects the tests once, learns which of them reach which function, and forks a process for each mutant that
runs those, the fastest first, until one fails.

    .venv/bin/python scripts/mutants.py                    # every module of [tool.mutants.tests] in pyproject.toml
    .venv/bin/python scripts/mutants.py metrics generation # the modules whose path contains one of the words

What survives is printed as the lines that changed. A mutant that no test can tell from the original is listed in
tests/equal_mutants.toml with the reason. The exit status is 1 where as many as [tool.mutants] `survivors` survive, and
2 where a test fails without a mutant.
"""

import argparse
import contextlib
import difflib
import math
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation import file_mutation
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name


KEPT_DECORATORS = ("torch.no_grad()", "torch.inference_mode()")
"""Decorators that may stand around mutmut's switch between mutants; it leaves out functions with any other."""

LONGEST = 300.0
"""Seconds that a mutant has, most of which it waits: one that computes for ever is ended sooner."""

NOT_COPIED = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", ".hypothesis")


@dataclass(frozen=True)
class Mutant:
    """A function with one change.

    Attributes:
        name: mutmut's, such as `trl_hybrid.evaluation.metrics.x_vote__mutmut_3`.
        file: The module's path.
        change: The changed lines, as `old => new`.
    """

    name: str
    file: str
    change: str

    @property
    def function(self) -> str:
        """Name of the function in mutmut, under which it remembers which tests reach it."""
        return mangled_name_from_mutant_name(self.name)


class DecoratedToo(file_mutation.MutationVisitor):
    """mutmut's choice of what to mutate, and functions under [`KEPT_DECORATORS`]."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and len(node.decorators) == 1:
            decorator = cst.Module([]).code_for_node(node.decorators[0].decorator)
            if decorator in KEPT_DECORATORS:
                return False
        return super()._skip_node_and_children(node)


def make_mutants(file: Path) -> list[Mutant]:
    """Put all mutants of a module into its file, beside the original and a switch between them."""
    mutated = file_mutation.mutate_file_contents(str(file), file.read_text())
    file.write_text(mutated.code)
    lines = mutated.code.splitlines()
    spans = mutated.line_span_by_function_name
    module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")

    def source(name: str) -> list[str]:
        body = lines[spans[name].start - 1 : spans[name].end]
        return [line.strip().replace(name, "f") for line in body]

    return [
        Mutant(f"{module}.{name}", str(file), changed(source(f"{name.rpartition('_')[0]}_orig"), source(name)))
        for name in mutated.mutant_names
    ]


def counts(change: str, left_alone: Sequence[str]) -> bool:
    r"""Say whether lines differ in more than the parts that are left alone.

    >>> counts("zip(a, b, strict=True) => zip(a, b, )", [r",( strict=\w+| )(?=\))"])
    False
    """
    old, new = (re.sub("|".join(left_alone), "", side) for side in change.split(" => "))
    return old != new


def changed(before: Sequence[str], after: Sequence[str]) -> str:
    """Describe a change by its lines.

    >>> changed(["a = 1", "return a"], ["a = 2", "return a"])
    'a = 1 => a = 2'
    """
    lines = [line for line in difflib.ndiff(before, after) if line[0] in "-+"]
    return " => ".join(" ".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")


class MutationLoop:
    """In place of pytest's own loop over the collected tests.

    Args:
        mutants: To be tried.
        tests: The tests that belong to each module's path.
        equal: The changes of each function that make no difference.
        jobs: Processes at a time.

    Attributes:
        outcomes: How many mutants of each module were `killed`, `hung`, `survived` or are `equal`.
    """

    def __init__(
        self, mutants: Sequence[Mutant], tests: dict[str, list[str]], equal: dict[str, dict[str, str]], jobs: int
    ) -> None:
        self.mutants, self.tests, self.equal, self.jobs = mutants, tests, equal, jobs
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests once as they are, then once more for each mutant as far as they reach it."""
        # Doctests stand in every copy of a function; the original's are enough.
        items = {i.nodeid: i for i in session.items if "__mutmut_" not in i.nodeid or "__mutmut_orig" in i.nodeid}
        seconds, reached = in_child(lambda: measure(list(items.values())))
        running: dict[int, tuple[Mutant, float]] = {}
        for mutant in self.mutants:
            near = [test for test in reached[mutant.function] if test.startswith(tuple(self.tests[mutant.file]))]
            if not near:
                self._count(mutant, "survived")
                continue
            chosen = [items[test] for test in sorted(near, key=seconds.__getitem__)]
            while len(running) >= self.jobs:
                self._collect(running)
            limit = 5 + math.ceil(5.0 * sum(seconds[test] for test in near))
            process = start(lambda chosen=chosen: first_failure(chosen), mutant.name, limit)
            running[process] = mutant, time.monotonic()
        while running:
            self._collect(running)
        return True

    def _collect(self, running: dict[int, tuple[Mutant, float]]) -> None:
        """Take the outcomes of processes that have ended, and end those that hang."""
        time.sleep(0.005)
        for process, (mutant, begin) in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            hung = not ended and time.monotonic() > begin + LONGEST
            if not ended and not hung:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)  # and what it started
            if hung:
                os.waitpid(process, 0)
            looped = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
            self._count(mutant, "hung" if hung or looped else "killed" if status else "survived")
            del running[process]

    def _count(self, mutant: Mutant, outcome: str) -> None:
        """Count an outcome, and show a mutant that survives."""
        if outcome == "survived" and mutant.change in self.equal.get(readable(mutant.function), {}):
            outcome = "equal"
        self.outcomes[mutant.file][outcome] += 1
        if outcome == "survived":
            print(f"{readable(mutant.function)}\n    {mutant.change}", flush=True)
        done = sum(counts.total() for counts in self.outcomes.values())
        if done % 100 == 0:
            print(f"{done} of {len(self.mutants)} mutants", flush=True)


def measure(items: Sequence[pytest.Item]) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Run all tests on the original: seconds of each, and which of them reach each function."""
    set_mutant_under_test("stats")
    seconds: dict[str, float] = {}
    reached: dict[str, list[str]] = defaultdict(list)
    for item, following in with_next(items):
        state()._stats.clear()
        begin = time.process_time()
        failed = [report for report in runtestprotocol(item, nextitem=following, log=False) if report.failed]
        if failed:
            raise SystemExit(f"{item.nodeid} fails without a mutant:\n{failed[0].longreprtext}")
        seconds[item.nodeid] = time.process_time() - begin
        for function in state()._stats:
            reached[function].append(item.nodeid)
    return seconds, reached


def first_failure(items: Sequence[pytest.Item]) -> int:
    """Run tests until one fails; 1 if one does."""
    for item, following in with_next(items):
        if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
            return 1
    return 0


def with_next(items: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Yield each test with the one that follows, for which pytest keeps shared fixtures."""
    return zip(items, [*items[1:], None], strict=True)


def start(work: Callable[[], int], mutant: str, limit: int) -> int:
    """Fork a process, the leader of a group of its own, that works with a mutant in silence; return its number.

    After `limit` seconds of computing the system ends it.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        silence = os.open(os.devnull, os.O_RDWR)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        set_mutant_under_test(mutant)
        status = work()
    finally:
        os._exit(status)


def in_child(work: Callable[[], Any]) -> Any:
    """Return what a forked process finds, so that its tests leave no trace here."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            found = pickle.dumps(work())
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(found)
        except SystemExit as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    os.waitpid(process, 0)
    if not found:
        pytest.exit("The tests must pass before they are tried on mutants.", returncode=2)
    return pickle.loads(found)


def report(outcomes: dict[str, Counter[str]]) -> float:
    """Print a line a module; return the share that survives of those that are not equal."""
    total = sum(outcomes.values(), Counter[str]())
    for name, counts in [*sorted(outcomes.items()), ("all", total)]:
        print(f"{name:40}" + "".join(f"{counts[kind]:6d} {kind}" for kind in ("killed", "hung", "survived", "equal")))
    tried = total.total() - total["equal"]
    share = total["survived"] / max(1, tried)
    print(f"{share:.1%} of {tried} mutants survive.")
    return share


def readable(function: str) -> str:
    """Turn mutmut's name of a function into Python's.

    >>> readable("trl_hybrid.evaluation.metrics.x_vote"), readable("trl_hybrid.training.calibration.xǁCalibrateǁdue")
    ('trl_hybrid.evaluation.metrics.vote', 'trl_hybrid.training.calibration.Calibrate.due')
    """
    module, _, name = function.rpartition(".")
    return f"{module}." + (name[2:].replace("ǁ", ".") if name.startswith("xǁ") else name[2:])


def not_copied(folder: str, names: list[str]) -> set[str]:
    """Name what is left out of the copy; of the folders called runs the one at the top, where training writes."""
    return {*NOT_COPIED(folder, names), *(["runs"] if folder == "." else [])}


def main() -> int:
    """Try the mutants of the modules that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of the modules' paths; all of them by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    options = parser.parse_args()
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutants"]
    equal = tomllib.loads(Path("tests/equal_mutants.toml").read_text())
    wanted = {
        modules: tests
        for modules, tests in settings["tests"].items()
        if not options.words or any(word in modules.removeprefix("trl_hybrid/") for word in options.words)
    }
    os.environ |= {"PY_IGNORE_IMPORTMISMATCH": "1", "MUTMUT_DEPENDENCY_DEPTH": "-1"}
    file_mutation.MutationVisitor = DecoratedToo
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(".", copy, ignore=not_copied)
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        files = {str(file): tests for pattern, tests in wanted.items() for file in sorted(Path().glob(pattern))}
        set_mutant_under_test("mutant_generation")
        made = [mutant for file in files for mutant in make_mutants(Path(file))]
        mutants = [mutant for mutant in made if counts(mutant.change, settings["left_alone"])]
        loop = MutationLoop(mutants, files, equal, options.jobs)
        chosen = sorted({test for tests in files.values() for test in tests})
        status = pytest.main(["-q", "--hypothesis-profile=mutants", "-p", "no:cacheprovider", *chosen], plugins=[loop])
    return int(status) or int(report(loop.outcomes) >= settings["survivors"])


if __name__ == "__main__":
    sys.exit(main())
