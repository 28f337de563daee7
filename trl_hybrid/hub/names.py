"""Names of models and data as a card shows them: a link where something is on the Hub, no more than a name else."""

from pathlib import Path
from typing import Any

from huggingface_hub.utils import HFValidationError, validate_repo_id

from trl_hybrid.runs.settings import data_names


def on_hub(name: str) -> bool:
    """Say whether a name can be an id on the Hub and is nothing that lies here.

    >>> on_hub("openai/gsm8k"), on_hub("tests"), on_hub("/models/mine"), on_hub("a/b.jsonl")
    (True, False, False, False)
    """
    if Path(name).exists() or name.count("/") > 1 or Path(name).suffix in (".json", ".jsonl", ".csv", ".parquet"):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def model_link(name: str, revision: str | None = None) -> str:
    """Link to a model on the Hub, or name a local folder."""
    if not on_hub(name):
        return f"`{cell(Path(name).name)}` (a local folder)"
    return f"[{name}](https://huggingface.co/{name})" + (f", revision `{revision}`" if revision else "")


def data_link(tasks: dict[str, Any]) -> str:
    """Link to the data sets, as [`data_names`] finds them."""
    links = [
        f"[{name}](https://huggingface.co/datasets/{name})" if on_hub(name) else f"`{cell(Path(name).name)}` (local)"
        for name in data_names(tasks)
    ]
    config = tasks.get("dataset_config")
    return ", ".join(links) + (f", configuration `{config}`" if config and len(links) == 1 else "")


def cell(text: str) -> str:
    """Keep a text within one cell of a table."""
    return text.replace("\n", " ").replace("|", "\\|").replace("`", "'")
