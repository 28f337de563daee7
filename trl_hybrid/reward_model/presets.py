"""What is known about a few published reward models: their system prompt, their licence, whether they judge maths."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import ModelCard


ACEMATH_SYSTEM_PROMPT = "Please reason step by step, and check your final answer within \\boxed{}."


@dataclass(frozen=True)
class Preset:
    """What a model card says about its reward model.

    Attributes:
        pattern: Hub id, with `*` for any run of characters.
        system_prompt: System prompt that the reward model was trained with, None for no system turn.
        licence: As the Hub names it, such as "apache-2.0"; empty where it is not the same for all that fit.
        prefers_solutions: Whether a right worked solution must beat an empty one (checked after loading).
    """

    pattern: str
    system_prompt: str | None = None
    licence: str = ""
    prefers_solutions: bool = True


PRESETS = (
    Preset("nvidia/AceMath-7B-RM", ACEMATH_SYSTEM_PROMPT, "cc-by-nc-4.0"),
    Preset("nvidia/AceMath-72B-RM", ACEMATH_SYSTEM_PROMPT, "cc-by-nc-4.0"),
    Preset("Skywork/Skywork-Reward-V2-*"),
)


def find_preset(model_name_or_path: str) -> Preset | None:
    r"""Return the preset of a Hub id, or of a local copy whose folder bears the model's name.

    Example:
        >>> find_preset("nvidia/AceMath-7B-RM").system_prompt
        'Please reason step by step, and check your final answer within \\boxed{}.'
        >>> find_preset("/models/AceMath-7B-RM").pattern
        'nvidia/AceMath-7B-RM'
        >>> find_preset("Skywork/Skywork-Reward-V2-Qwen3-0.6B").system_prompt is None
        True
        >>> find_preset("my/own-model") is None
        True
    """
    folder = Path(model_name_or_path).name
    for preset in PRESETS:
        if fnmatch(model_name_or_path, preset.pattern) or fnmatch(folder, preset.pattern.split("/")[1]):
            return preset
    return None


def known_licence(model_name_or_path: str) -> str | None:
    """Return the licence that is known without asking anybody, or None: a folder's own card's, a published model's.

    A folder's name says nothing: it may hold any weights.

    Example:
        >>> known_licence("nvidia/AceMath-7B-RM")
        'cc-by-nc-4.0'
        >>> known_licence("somebody/AceMath-7B-RM") is None
        True
    """
    if Path(model_name_or_path).is_dir():
        card = Path(model_name_or_path) / "README.md"
        named = ModelCard.load(card, ignore_metadata_errors=True).data.get("license") if card.is_file() else None
        return str(named) if named else None
    published = (preset for preset in PRESETS if fnmatch(model_name_or_path, preset.pattern))
    return next((preset.licence for preset in published if preset.licence), None)


def licence_note(licence: str | None) -> str:
    """Return what the user of weights under a licence has to know, empty where nothing is known to stand in the way.

    Example:
        >>> licence_note("cc-by-nc-4.0")
        'its weights are licensed CC-BY-NC-4.0: non-commercial use only'
        >>> licence_note("apache-2.0")
        ''
    """
    if licence is None or "-nc" not in licence.lower():
        return ""
    return f"its weights are licensed {licence.upper()}: non-commercial use only"
