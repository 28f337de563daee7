"""The system prompt that a model was trained with, in a file beside its weights: whoever gets them knows it."""

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from trl_hybrid.runs.folder import read_json, write_json


logger = logging.getLogger(__name__)

CARRIED = "trl_hybrid.json"


def save_system_prompt(folder: Path, system_prompt: str | None) -> None:
    """Write what was put before each problem in training; `None` for nothing."""
    write_json(folder / CARRIED, {"system_prompt": system_prompt or None})


def carried_prompt(name: str, revision: str | None = None) -> dict[str, Any]:
    """Read what a model says of its own prompt.

    Args:
        name: A model's or an adapter's id on the Hub, or its folder.
        revision: Branch, tag or commit of an id.

    Returns:
        `system_prompt`, which may be `None`; empty where the model says nothing, or cannot be asked, which is logged.
    """
    if Path(name).is_dir():
        return _prompt(Path(name) / CARRIED)
    try:
        return _prompt(Path(hf_hub_download(name, CARRIED, revision=revision)))
    except (RemoteEntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return {}
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        logger.warning("Whether %s carries a system prompt of its own could not be asked: %s", name, error)
        return {}


def _prompt(file: Path) -> dict[str, Any]:
    found = read_json(file)
    return {"system_prompt": found["system_prompt"]} if "system_prompt" in found else {}
