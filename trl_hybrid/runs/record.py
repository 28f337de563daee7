"""What a run says of itself in its folder: one record, and the one reader of it."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError
from trl_hybrid.runs.folder import SUMMARY_FILE, read_json
from trl_hybrid.runs.settings import SETTINGS_FILE, mark_local


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it: finished, under way, or killed. What it does not tell is empty or `None`.

    Attributes:
        folder: The run's.
        settings: By group, as the run was last started: `tasks`, `judges`, `model` and `training`; in place of
            `judges`, `sampling` of a cold start and `pairs` of a run that trained a reward model. Models and data that
            were local to the run and are not here have `./` before them.
        changes: What was set otherwise until a step: `step`, and `settings` of (before, then) by name; oldest first.
        versions: Package names and versions.
        local: Models and data that were folders or files where the run began.
        steps: After how many the saved model was saved; `None` where the run never got to its end.
        accuracy: Of the saved model, by name: held-out accuracy before and after training, in [0, 1].
        test_rows: How many problems that was measured on.
        test_file: Where they lie.
        seconds: In steps, of all attempts.
        commits: What was loaded from the Hub as `model` and `reward_model`, 40 hexadecimal digits each.
    """

    folder: Path
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    local: list[str] = field(default_factory=list)
    steps: int | None = None
    accuracy: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    test_rows: int | None = None
    test_file: str | None = None
    seconds: float = 0.0
    commits: dict[str, str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def asked(self) -> dict[str, Any]:
        """All settings by name: no two groups share one."""
        return {name: value for group in self.settings.values() for name, value in group.items()}

    def __getitem__(self, setting: str) -> Any:
        """Return a setting that every run has.

        Raises:
            InputError: This one, of an older version or another program, has it not.
        """
        if setting not in self.asked:
            raise InputError(
                f"The settings of a run must say its {setting}, and those in {str(self.folder)!r} do not. Add it to "
                f"{SETTINGS_FILE} there, with the value that the run had."
            )
        return self.asked[setting]

    @property
    def base_model(self) -> str:
        """What the run started from: an id on the Hub, or a folder."""
        return self.asked.get("model_name_or_path") or ""

    @property
    def reward_model(self) -> str:
        """Who gave the scores: an id on the Hub, or a folder."""
        return self.asked.get("reward_model_name_or_path") or ""

    @property
    def made_reward_model(self) -> bool:
        """Whether what was trained is a reward model."""
        return "pairs" in self.settings

    @property
    def data(self) -> list[str]:
        """The data sets that were trained on: the parts of a mixture, or the one."""
        parts = [part["path"] for part in self.asked.get("datasets") or []]
        return parts or [name for name in [self.asked.get("dataset_name")] if name]

    def at(self, step: int | None) -> "RunRecord":
        """Return the record with the settings that a step was trained with; `None` for those of the last start."""
        if step is None:
            return self
        before: dict[str, Any] = {}
        for change in reversed(self.changes):
            if change["step"] >= step:
                before |= {name: value for name, (value, _) in change["settings"].items()}
        settings = {
            group: {name: before.get(name, value) for name, value in own.items()}
            for group, own in self.settings.items()
        }
        return replace(self, settings=mark_local(settings, self.local))


def read_record(folder: Path) -> RunRecord:
    """Read what a run says of itself.

    Each start writes `settings.json`, the end `summary.json`. Where both tell the same, the former goes first: it is
    the newer one while a run goes on. Older runs, and other people's copies, may lack either.

    Args:
        folder: The run's folder.

    Raises:
        InputError: There is no such folder, or one of the two files holds no JSON object.
    """
    if not folder.is_dir():
        raise InputError(
            f"A run's folder must be given, got {str(folder)!r}, which is none below {Path.cwd()}. Try: ls runs"
        )
    summary = read_json(folder / SUMMARY_FILE)
    told = {**summary, **read_json(folder / SETTINGS_FILE)}
    seconds = summary.get("seconds")
    return RunRecord(
        folder,
        settings=mark_local(_groups(told.get("settings")), told.get("local", [])),
        changes=told.get("changes", []),
        versions=told.get("versions", {}),
        local=told.get("local", []),
        steps=summary.get("steps"),
        accuracy={
            name: (_known(shares.get("before")), _known(shares.get("after")))
            for name, shares in summary.get("accuracy", {}).items()
        },
        test_rows=summary.get("test_rows"),
        test_file=summary.get("test_file"),
        seconds=seconds.get("steps", 0.0) if isinstance(seconds, dict) else 0.0,  # a cold start's is a number
        commits=summary.get("commits", {}),
    )


def record_of_model(name: str) -> RunRecord:
    """Read what the run says in whose folder, or in a folder of which, a model lies.

    Args:
        name: A model's: a folder, or an id on the Hub.

    Returns:
        The record, with the settings that this model was trained with; one that tells nothing where there is no run.

    Raises:
        InputError: As [`read_record`].
    """
    folder = Path(name)
    for place in (folder, folder.parent) if folder.is_dir() else ():
        record = read_record(place)
        if record.settings:
            return record.at(read_json(folder / "trainer_state.json").get("global_step", record.steps))
    return RunRecord(folder)


def _groups(settings: Any) -> dict[str, dict[str, Any]]:
    """Keep what is settings by group: a file of this name may be another program's."""
    named = settings.items() if isinstance(settings, dict) else ()
    return {name: group for name, group in named if isinstance(group, dict)}


def _known(share: float | None) -> float | None:
    return None if share is None or math.isnan(share) else share
