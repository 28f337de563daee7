"""Which weights a model's name stands for (an id, a folder, an adapter, a finished run), and sampling from them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_torch_bf16_gpu_available
from transformers.utils.peft_utils import find_adapter_config_file

from trl_hybrid.errors import InputError
from trl_hybrid.models.check import check_model
from trl_hybrid.models.files import check_adapter_folder
from trl_hybrid.reward_model.placement import local_device
from trl_hybrid.runs.folder import RUNS, newest_whole_checkpoint, read_json, relative_path
from trl_hybrid.runs.record import record_of_model


@dataclass(frozen=True)
class PolicySource:
    """Where a policy comes from.

    Attributes:
        name: As the user gave it.
        base: The model with the weights, and without adapter `name` itself: id on the Hub or folder.
        adapter: The adapter on it, None for none.
        revision: The base model's branch, tag or commit.
        adapter_revision: The adapter's own.
    """

    name: str
    base: str
    adapter: str | None = None
    revision: str | None = None
    adapter_revision: str | None = None

    def describe(self) -> dict[str, Any]:
        """Say what decides about the answers, as JSON's types: names, and a digest of the weights in local folders."""
        parts = {"base_model": self.base, **({"adapter": self.adapter} if self.adapter else {})}
        known = {name: relative_path(part) for name, part in parts.items()}
        revisions = {"revision": self.revision, "adapter_revision": self.adapter_revision}
        named = {name: revision for name, revision in revisions.items() if revision}
        return {**known, **named, "weights": {name: weights_digest(part) for name, part in parts.items()}}


def find_policy(name: str, revision: str | None = None) -> PolicySource:
    """Find out whether a name is a whole model's or an adapter's, and ask for what it needs before anything is loaded.

    Args:
        name: Id on the Hub, or a folder: a model's, an adapter's, a finished run's or a checkpoint's.
        revision: Branch, tag or commit of an id.

    Raises:
        InputError: There is no such model, an adapter's base cannot be had, or a run is not finished.
    """
    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in ("adapter_config.json", "config.json")):
        checkpoint = newest_whole_checkpoint(folder)
        hint = f"The run is not finished; its newest checkpoint is {relative_path(str(checkpoint))!r}."
        raise InputError(
            f"A model's folder holds a config.json or an adapter_config.json, {name!r} has none. "
            + (hint if checkpoint else "Give a model's folder, a finished run's or an id on the Hub.")
        )
    if not folder.is_dir():
        if "/" in name and (name.startswith((".", "/", f"{RUNS}/")) or name.count("/") > 1):
            raise InputError(f"The folder {name!r} does not exist (looked in {Path.cwd()}). Check the path.")
        adapter_file = _adapter_config(name, revision)
    else:
        adapter_file = find_adapter_config_file(name)
    if adapter_file is None:
        check_model(name, "model", revision)
        return PolicySource(name, name, None, revision)
    adapter = read_json(Path(adapter_file))
    base = adapter["base_model_name_or_path"]
    if not base:
        raise InputError(f"The adapter {name!r} must say its base model as base_model_name_or_path, got {base!r}.")
    if folder.is_dir() and base in record_of_model(name).local and not Path(base).exists():
        raise InputError(
            f"The base model of the adapter {name!r} was the folder {base!r} where the run began, and there is none "
            f"below {Path.cwd()}. Start from the folder in which the run was started, or write the base's whole path "
            f"into {adapter_file}."
        )
    check_model(base, f"base model of the adapter {name!r},", adapter.get("revision"))
    if folder.is_dir():
        check_adapter_folder(folder)
    return PolicySource(name, base, name, adapter.get("revision"), revision)


def weights_digest(name: str) -> str | None:
    """Return a digest of a folder's weights, so that others under the same name show; None for what is no folder."""
    folder = Path(name)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def has_bfloat16() -> bool:
    """Return whether the accelerator itself computes in bfloat16: torch says so too where it is emulated, slowly."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return is_torch_bf16_gpu_available()


def default_dtype() -> str:
    """Name the number type for this machine."""
    # Not float16 elsewhere: a model that was trained in bfloat16 can leave its range, and then samples from NaN.
    return "bfloat16" if local_device().type != "cpu" and has_bfloat16() else "float32"


def tokenizer_home(source: PolicySource) -> str:
    """Name the adapter where it has a tokenizer of its own, otherwise the base model."""
    own = source.adapter is not None and (Path(source.adapter) / "tokenizer_config.json").is_file()
    return source.adapter if own and source.adapter else source.base


def _adapter_config(name: str, revision: str | None) -> str | None:
    try:
        return find_adapter_config_file(name, revision=revision)
    except OSError:
        return None  # `check_model` says what is wrong, with what to do
