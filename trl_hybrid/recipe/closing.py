"""What a run leaves when it is over: its summary, its pictures and a few closing words."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from trl_hybrid.hub.origin import commit_of
from trl_hybrid.hub.saved import Trained, check_saved_model
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.say import say
from trl_hybrid.recipe.splits import test_location, train_location
from trl_hybrid.report import accuracy_table, alarm_step, draw_curves, sample_completions, write_report
from trl_hybrid.report.headline import duration, seconds_by_part
from trl_hybrid.runs.folder import package_versions, relative_path, write_json
from trl_hybrid.training.held_out_accuracy import HeldOutAccuracy


# What a drawing library, a template or a broken table may raise: none of it is worth the end of a run.
ANYTHING = (
    ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def finish(
    folder: Path,
    trainer: Any,
    held_out: HeldOutAccuracy | None,
    settings: dict[str, Any],
    trained: Trained,
    started: float,
) -> None:
    """Write `summary.json`, `curves.png` and `report.html`, check the saved model, and say what the run did.

    Args:
        folder: The run's folder, with the saved model.
        trainer: The trainer, after training.
        held_out: What was measured, `None` if nothing was.
        settings: Those that the run wrote at its start: `tasks`, `judges`, `model` and `training`.
        trained: What the model in memory said.
        started: When the run began, in seconds since the epoch.

    Raises:
        InputError: The saved model is not the trained one.
        OSError: The summary could not be written; the saved model is checked all the same. Pictures and the page that
            cannot be made are said, no more.
    """
    accuracy = held_out.figures() if held_out else {}
    fault = None
    try:
        summary = summary_of(folder, trainer, held_out, settings, seconds=time.time() - started)
        write_json(folder / "summary.json", summary)
    except OSError as error:
        fault = error
    show(folder, trainer.state, accuracy)
    if held_out:
        say(f"Accuracy on {len(held_out.tasks)} problems that training did not see:\n{accuracy_table(accuracy)}\n")
    say("Checking that the saved model is the trained one.")
    check_saved_model(folder, trained, trainer.args.trust_remote_code)
    say("Saved model checked: ok\n")
    if fault is not None:
        raise fault
    say(next_steps(relative_path(str(folder)), settings["model"]))
    say(f"Total time:          {duration(time.time() - started)}")


def show(folder: Path, state: Any, accuracy: dict[str, dict[str, float | None]]) -> None:
    """Draw the curves, write the page, and show a few completions; what cannot be made costs nothing else.

    Args:
        folder: The run's folder.
        state: The trainer's.
        accuracy: See [`~trl_hybrid.training.held_out_accuracy.HeldOutAccuracy.figures`].
    """
    name = relative_path(str(folder))
    with _may_fail("curves.png", f"The curves are in {name}/report.html too."):
        draw_curves(state.log_history, accuracy, folder / "curves.png")
    with _may_fail("report.html", f"To write it again: trl-hybrid report {name}"):
        write_report(folder)
    table = folder / "completions" / f"completions_{state.global_step:05d}.parquet"
    with _may_fail("A sample of the completions", f"They are in {relative_path(str(table))}."):
        if table.exists():
            samples = sample_completions(pd.read_parquet(table))
            say(f"\nFrom the last step, from the highest reward to the lowest:\n\n{samples}")
    alarm = alarm_step(state.log_history)
    if alarm is not None:
        say(
            f"The alarm for reward hacking fired at step {alarm}: the score of wrong answers climbed while the pass "
            "rate fell. Read the completions marked `disagreement`.\n"
        )


@contextmanager
def _may_fail(what: str, way_out: str) -> Iterator[None]:
    """Say what could not be shown. A trained model is not less trained for it."""
    try:
        yield
    except ANYTHING as error:
        say(f"{what} could not be made ({type(error).__name__}: {error}). {way_out}")


def summary_of(
    folder: Path, trainer: Any, held_out: HeldOutAccuracy | None, settings: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Gather what `summary.json` holds; the arguments are those of `finish`."""
    tasks, model, judges = TaskArguments(**settings["tasks"]), settings["model"], settings["judges"]
    return {
        "accuracy": held_out.figures() if held_out else {},
        "test_rows": len(held_out.tasks) if held_out else 0,
        "model": relative_path(str(folder)),
        "base_model": relative_path(model["model_name_or_path"]),
        "train_file": train_location(tasks),
        "test_file": test_location(tasks) if held_out else None,
        "seed": trainer.args.seed,
        "steps": trainer.state.global_step,
        "seconds": {
            "total": round(seconds, 1),
            "training": trainer.state.log_history[-1].get("train_runtime"),
            # Of all attempts; the two above are the last one's.
            "steps": round(sum(seconds_by_part(trainer.state.log_history).values()), 1),
        },
        "versions": package_versions(),
        "commits": {
            "model": commit_of(model["model_name_or_path"], model["model_revision"]),
            "reward_model": commit_of(judges["reward_model_name_or_path"], judges["reward_model_revision"]),
        },
        "settings": settings,
    }


def next_steps(folder: str, model: dict[str, Any]) -> str:
    """Say where the results lie and what to try next."""
    adapter = model["use_peft"]
    load, package = ("AutoPeftModelForCausalLM", "peft") if adapter else ("AutoModelForCausalLM", "transformers")
    base = "" if adapter else f" {model['model_name_or_path']}"  # an adapter names its own
    return (
        f"Look at the run:     {folder}/report.html   (curves, settings, every completion; open it in a browser)\n"
        f"Measure the model:   trl-hybrid eval --model {folder} --base{base}\n"
        f"Use it:              from {package} import {load}; {load}.from_pretrained({folder!r})\n"
        f"Share it:            trl-hybrid push {folder} --hub_model_id YOUR_NAME/MODEL"
    )
