"""Is a model's folder whole? Seen by file names, sizes and headers, in milliseconds, before anything is loaded."""

import json
from collections.abc import Collection, Sequence
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trl_hybrid.errors import InputError


WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state*.pth", "scaler.pt")

TOKENIZER = ("tokenizer*", "*.model", "vocab.*", "*.tiktoken", "tekken.json")

SAVED_MODEL = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", ADAPTER_CONFIG, *TOKENIZER,
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "merges.txt", "training_args.bin",
)  # fmt: skip
"""What a trainer's `save_model` writes, as patterns."""

SCORE_HEAD = "score.weight"

POINTER = b"version https://git-lfs"


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a saved adapter's weights, or else of a saved model's."""
    name = "adapter_model*.safetensors" if (folder / ADAPTER_CONFIG).exists() else "model*.safetensors"
    return sorted(folder.glob(name))


def check_model_folder(folder: Path, role: str, scores: bool = False) -> None:
    """Refuse a folder that could not be loaded, or whose weights would be random.

    Args:
        folder: What `save_pretrained` wrote, or a download.
        role: What the model is for, as the message says it: "policy", "reward model".
        scores: Whether it must be a sequence classifier with a score head, as a reward model is.

    Raises:
        InputError: It has no config.json, is an adapter, has no safetensors weights, a file of them was cut off or is
            missing, it has no tokenizer, or no score head where it should.
    """
    if (folder / ADAPTER_CONFIG).is_file() or not (folder / "config.json").is_file():
        raise InputError(_no_model(folder, role, scores))
    files = _loaded_files(folder, role, scores)
    names = {name for file in files for name in _names_of_weights(file, folder, role)}
    _check_tokenizer(folder, role)
    if scores and not any(name.endswith(SCORE_HEAD) for name in names):
        raise InputError(
            f"A reward model is a sequence classifier with a trained score head, but {str(folder)!r} has no weight "
            f"{SCORE_HEAD!r}: it would be random. Give the folder of a trained reward model, not of a causal language "
            "model."
        )


def check_adapter_folder(folder: Path) -> None:
    """Refuse an adapter's folder whose weights are not there or not whole.

    Raises:
        InputError: There are no safetensors weights, or their file was cut off.
    """
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        found = "other weights, which may hold code" if (folder / "adapter_model.bin").is_file() else "none"
        raise InputError(
            f"The weights of the adapter {str(folder)!r} must lie in {ADAPTER_WEIGHTS}; there are {found}. Copy them "
            "there, or save the adapter again by PEFT."
        )
    _names_of_weights(file, folder, "adapter")


def check_listing(files: Collection[str], name: str, role: str, scores: bool = False) -> None:
    """Refuse a repository of the Hub without safetensors weights, from its files' names.

    Raises:
        InputError: It holds an adapter alone, or no safetensors weights.
    """
    if ADAPTER_CONFIG in files and "config.json" not in files:
        raise InputError(adapter_message(name, role, None, scores))
    if not any(file.endswith(".safetensors") for file in files):
        raise InputError(_no_weights(files, name, role, scores))


def merge_command(adapter: str, scores: bool = False) -> str:
    """Return a shell command that merges an adapter into its base model; see [`merged_folder`]."""
    merged = merged_folder(adapter)
    loader = _loader(scores).replace("Auto", "AutoPeft")
    return (
        f'python -c "from peft import {loader} as M; from transformers import AutoTokenizer as T; '
        f"M.from_pretrained('{adapter}').merge_and_unload().save_pretrained('{merged}'); "
        f"T.from_pretrained('{adapter}').save_pretrained('{merged}')\""
    )


def merged_folder(adapter: str) -> str:
    """Name the folder of the whole model: below the adapter's own, where the cold start puts it, or beside."""
    return f"{adapter.rstrip('/')}/merged" if Path(adapter).is_dir() else f"{adapter.split('/')[-1]}-merged"


def adapter_message(name: str, role: str, base: str | None, scores: bool = False) -> str:
    """Say what to do with an adapter where a whole model is needed."""
    whole = merged_folder(name)
    way_on = f"Merge it once, and give {whole!r}:\n  {merge_command(name, scores)}"
    if (Path(whole) / "config.json").is_file():
        way_on = f"Its whole model lies in {whole!r}: give that."
    on = f" on {base!r}" if base else ""
    return f"The {role} must be a whole model; {name!r} is an adapter{on}. {way_on}"


def _names_of_weights(file: Path, folder: Path, role: str) -> list[str]:
    """List the tensors of a safetensors file, which says in its header how long it must be."""
    try:
        with safe_open(file, framework="numpy") as weights:
            return list(weights.keys())
    except SafetensorError as error:
        with file.open("rb") as content:
            is_pointer = content.read(len(POINTER)) == POINTER
        why = "Git LFS's pointer to the file and not the file (run `git lfs pull`)" if is_pointer else str(error)
        raise InputError(
            f"The weights of the {role} {str(folder)!r} are not whole: {file.name}: {why}. Copy or download the file "
            "again; `hf download` goes on where it stopped."
        ) from error


def _loaded_files(folder: Path, role: str, scores: bool) -> list[Path]:
    """Name the files that transformers would load."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise InputError(_no_weights([file.name for file in folder.iterdir()], str(folder), role, scores))
    try:
        parts = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{str(folder / INDEX)!r} must name the file of each weight and cannot be read. Copy or download it again."
        ) from error
    missing = [part for part in parts if not (folder / part).is_file()]
    if missing:
        raise InputError(
            f"The weights of the {role} {str(folder)!r} are not whole: {len(missing)} of {len(parts)} files are "
            f"missing, the first {missing[0]!r}. Copy or download them; `hf download` goes on where it stopped."
        )
    return [folder / part for part in parts]


def _check_tokenizer(folder: Path, role: str) -> None:
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER):
        raise InputError(
            f"The {role} {str(folder)!r} has no tokenizer (tokenizer.json, tokenizer_config.json ...). Copy these "
            "files from where the model came from, or write them there by AutoTokenizer's save_pretrained."
        )
    for file in folder.glob("tokenizer*.json"):
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"The tokenizer of the {role} {str(folder)!r} cannot be read: {file.name}: {error}. Copy or download "
                "the file again."
            ) from error


def _no_model(folder: Path, role: str, scores: bool) -> str:
    if (folder / ADAPTER_CONFIG).is_file():
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return adapter_message(str(folder), role, config.get("base_model_name_or_path"), scores)
    return (
        f"The {role}'s folder must hold a config.json, {str(folder)!r} has none. Give the folder that "
        "`save_pretrained` wrote or `hf download` made, or a model's id on the Hub."
    )


def _no_weights(files: Collection[str], name: str, role: str, scores: bool) -> str:
    pickles = sorted(file for file in files if _matches(file, PICKLES) and not _matches(file, NO_WEIGHTS))
    if not pickles:
        return f"The {role} {name!r} has no weights: there is neither {WEIGHTS} nor {INDEX}. Copy or download them."
    loader = _loader(scores)
    folder = name if Path(name).is_dir() else name.split("/")[-1]
    return (
        f"Only safetensors weights are read, as others may hold code; the {role} {name!r} has {pickles[0]}. If you "
        f"trust it, convert it once, and give {folder!r}:\n"
        f'  python -c "from transformers import AutoTokenizer as T, {loader} as M; '
        f"M.from_pretrained('{name}', use_safetensors=False).save_pretrained('{folder}'); "
        f"T.from_pretrained('{name}').save_pretrained('{folder}')\""
    )


def _loader(scores: bool) -> str:
    return "AutoModelForSequenceClassification" if scores else "AutoModelForCausalLM"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
