"""Where the models of a run come from: the commit that was loaded, and the licence."""

from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from transformers.utils import extract_commit_hash

from trl_hybrid.hub.names import on_hub
from trl_hybrid.reward_model.presets import known_licence


def commit_of(name: str, revision: str | None = None) -> str | None:
    """Return the commit of a model that was loaded from the Hub, as the cache knows it; no network.

    Args:
        name: Id on the Hub, or a folder.
        revision: Branch, tag or commit.

    Returns:
        40 hexadecimal digits; `None` for what is no id, or where the cache does not hold the model.
    """
    if not on_hub(name):
        return None
    file = try_to_load_from_cache(name, "config.json", revision=revision)
    return extract_commit_hash(file, None) if isinstance(file, str) else None


def licence_of(name: str, api: HfApi) -> str | None:
    """Return a model's licence as its card names it, such as "apache-2.0".

    Args:
        name: Id on the Hub, or a folder.
        api: Client that asks for a card on the Hub.

    Returns:
        `None` where the card names no licence or cannot be had; nothing is guessed.
    """
    known = known_licence(name)
    if known is not None or Path(name).is_dir():
        return known
    try:
        card_data = api.model_info(name, timeout=10).card_data
    except (HfHubHTTPError, HTTPError, OSError, ValueError):
        # A card that cannot be read leaves the licence unknown, and the text says so.
        return None
    return card_data.license if card_data else None
