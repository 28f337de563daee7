"""Run `trl-hybrid` commands, or code, one after the other in a process that knows a Hub by its environment only.

Each line of standard input is a JSON object: `args` for `trl-hybrid` or `code` to execute, and `env` to set first
(`None` to unset). Each line of standard output is one with `status` and `shown`, all that was printed.
"""

import contextlib
import io
import json
import os
import sys

from trl_hybrid.cli import main


def execute(order):
    """Run one order and return its exit status, None for code that ended well."""
    try:
        return exec(order["code"], {}) if "code" in order else main(order["args"])
    except SystemExit as stop:
        return stop.code


if __name__ == "__main__":
    answers = sys.stdout
    for line in sys.stdin:
        order = json.loads(line)
        for name, value in order.get("env", {}).items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            status = execute(order)
        print(json.dumps({"status": status, "shown": shown.getvalue()}), file=answers, flush=True)
