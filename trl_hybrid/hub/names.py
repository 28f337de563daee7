"""Names of models and data as a card shows them: a link where something is on the Hub, no more than a name else."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id

from trl_hybrid.data.generated import PREFIX, is_generated


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


def data_link(names: Sequence[str], config: str | None = None) -> str:
    """Link to data sets; of a single one the configuration is named too."""
    return ", ".join(map(_data_link, names)) + (f", configuration `{config}`" if config and len(names) == 1 else "")


def _data_link(name: str) -> str:
    if is_generated(name):
        return f"[reasoning-gym](https://github.com/open-thought/reasoning-gym)'s `{cell(name.removeprefix(PREFIX))}`"
    if on_hub(name):
        return f"[{name}](https://huggingface.co/datasets/{name})"
    return f"`{cell(Path(name).name)}` (local)"


def cell(text: str) -> str:
    """Keep a text within one cell of a table."""
    return text.replace("\n", " ").replace("|", "\\|").replace("`", "'")
