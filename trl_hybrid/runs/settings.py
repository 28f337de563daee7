"""What a run was asked to do, as its folder keeps it."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trl_hybrid.runs.folder import package_versions, write_json


SETTINGS_FILE = "settings.json"

SECRET = re.compile(r"(?:^|_)(?:token|password|secret|api_key|authorization)$", re.IGNORECASE)

PLACES = ("model_name_or_path", "reward_model_name_or_path", "dataset_name", "path")
"""Settings that name a model or a data set: on the Hub, or a folder or file."""


def settings_of(**groups: Any) -> dict[str, Any]:
    """Gather settings as a run's folder keeps them: each group as a dictionary, without secrets.

    Args:
        **groups: Dataclasses, as `tasks`, `judges`, `model` and `training`.
    """
    from transformers import TrainingArguments  # with torch, which reading a run does not need

    return without_secrets(
        {
            name: group.to_dict() if isinstance(group, TrainingArguments) else asdict(group)
            for name, group in groups.items()
        }
    )


def write_settings(folder: Path, settings: dict[str, Any], changes: Sequence[dict[str, Any]] = ()) -> None:
    """Write `settings.json`: the settings, the packages' versions, and which models and data are not on the Hub.

    Args:
        folder: The run's folder.
        settings: `tasks`, `model` and the others, without secrets; see [`settings_of`].
        changes: What was changed at which step, where the run went on with other settings.
    """
    content = {"settings": settings, "versions": package_versions(), "local": local_names(settings)}
    write_json(folder / SETTINGS_FILE, {**content, **({"changes": list(changes)} if changes else {})})


def without_secrets(settings: Any) -> Any:
    """Copy settings with what is named as a secret masked, at any depth.

    >>> without_secrets({"training": {"model_init_kwargs": {"token": "hf_x"}, "hub_token": None, "token_budget": 8}})
    {'training': {'model_init_kwargs': {'token': '<masked>'}, 'hub_token': None, 'token_budget': 8}}
    """
    return _changed(settings, lambda key, value: "<masked>" if value and SECRET.search(key) else value)


def local_names(settings: dict[str, Any]) -> list[str]:
    """Return the models and data that settings name and that are folders or files here, sorted."""
    return sorted({value for key, value in texts(settings) if key in PLACES and Path(value).exists()})


def texts(settings: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in settings, at any depth, with the key that it stands under.

    >>> list(texts({"model": {"name": "a", "rank": 8}, "datasets": [{"path": "b"}], "files": ["c"]}))
    [('name', 'a'), ('path', 'b'), ('files', 'c')]
    """
    if isinstance(settings, str):
        yield key, settings
    elif isinstance(settings, dict):
        for name, value in settings.items():
            yield from texts(value, str(name))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from texts(value, key)


def mark_local(settings: dict[str, Any], local: list[str]) -> dict[str, Any]:
    """Copy settings with `./` before what was local to the run and is not here.

    Elsewhere than in the folder that the run was started in, `data/policy` reads as an id on the Hub.

    Args:
        settings: A run's.
        local: What [`local_names`] said when the run began.

    >>> mark_local({"model": {"model_name_or_path": "mine/policy"}, "tasks": {"dataset_name": "a/b"}}, ["mine/policy"])
    {'model': {'model_name_or_path': './mine/policy'}, 'tasks': {'dataset_name': 'a/b'}}
    """
    return _changed(settings, lambda key, value: local_name(value, local) if key in PLACES else value)


def local_name(name: str, local: list[str]) -> str:
    """Return a name, with `./` before it if it was local to a run and is not here.

    >>> local_name("mine/policy", ["mine/policy"]), local_name("lab/policy", ["mine/policy"])
    ('./mine/policy', 'lab/policy')
    """
    moved = name in local and not name.startswith((".", "/")) and not Path(name).exists()
    return f"./{name}" if moved else name


def _changed(settings: Any, change: Callable[[str, str], str]) -> Any:
    """Copy settings with each text that stands under a key changed, at any depth."""
    if isinstance(settings, list):
        return [_changed(value, change) for value in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        key: change(str(key), value) if isinstance(value, str) else _changed(value, change)
        for key, value in settings.items()
    }
