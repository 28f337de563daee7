"""`trl-hybrid report`: one page to look into a run."""

import argparse
from pathlib import Path


SUMMARY = "write a page to look into a run"

DESCRIPTION = """Write one self-contained page about a run: its figures and curves, where the time went, the settings,
and every completion with its verdict, score, reward and advantage, to be searched and sorted. The run may go on, or
have been killed. The page opens from a file and needs no network."""

EXAMPLES = """examples:
  trl-hybrid report runs/embedded
  trl-hybrid report runs/embedded --output embedded.html --open
"""


def add_options(report: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    add = report.add_argument
    add("run_folder", type=Path, metavar="RUN", help="the run's folder, such as runs/embedded")
    add("--output", type=Path, metavar="FILE", help="page to write (default: report.html in the run's folder)")
    most = "of more than so many completions show whole steps at even distances (default: %(default)s)"
    add("--max_completions", type=int, default=20_000, metavar="N", help=most)
    add("--open", action="store_true", help="open the page in the browser")


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from trl_hybrid.errors import InputError
    from trl_hybrid.report import write_report

    if args.max_completions < 1:
        raise InputError(f"--max_completions must be at least 1, got {args.max_completions}.")
    if args.output is not None and args.output.is_dir():
        raise InputError(f"--output must be a file, got the folder {str(args.output)!r}. Add a name, as report.html.")
    page = write_report(args.run_folder, args.output, args.max_completions)
    print(f"Open in a browser: {page}")
    if args.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 0
