"""What is checked before anything large is loaded, and before the first step is paid for."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from trl_hybrid.errors import EMBEDDED_COMMAND, InputError
from trl_hybrid.models.files import check_listing, check_model_folder
from trl_hybrid.reward_model.loading import Source, load_config


def check_model_found(
    name: str | None,
    role: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    scores: bool = False,
) -> None:
    """Fetch a model's configuration, a few kilobytes, and nothing else.

    Args:
        name: Id on the Hub, or a folder.
        role: What the model is for, as the message says it: "policy", "reward model".
        revision: Branch, tag or commit.
        trust_remote_code: Run code that the model's repository holds.
        scores: Whether it is a sequence classifier, as a reward model is.

    Raises:
        InputError: There is no such model, the network does not answer, or the configuration cannot be read.
    """
    if not name:
        raise InputError(f"The {role} must be given as an id on the Hub or a folder, got {name!r}.")
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        check_model_folder(Path(name), role, scores)
    try:
        if not Path(name).is_dir():
            _ask_hub(name, role, revision, scores)
        AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except InputError:
        raise
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if Path(name).is_dir():
            raise InputError(
                f"The {role} {name!r} cannot be loaded: {reason}\nCopy or download its config.json again, whole."
            ) from error
        raise InputError(
            f"The {role} {name!r} cannot be loaded: {reason}\n"
            f"It is no folder below {Path.cwd()}, or not one with a model. Check the id or path, the network, and for "
            f"gated models `hf auth login`. Without network or account this runs:\n  {EMBEDDED_COMMAND}"
        ) from error


def check_model(name: str | None, role: str, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Look at a language model that is going to be loaded: its configuration, its folder's files and its tokenizer.

    Raises:
        InputError: It is a classifier, or as for `check_model_found`, `check_model_folder` and `check_vocabulary`.
    """
    check_model_found(name, role, revision, trust_remote_code)
    source = Source(str(name), revision, trust_remote_code)
    _check_files(source, _causal_config(source, role), role)


def check_reward_model(
    name: str | None, revision: str | None = None, trust_remote_code: bool = False, served: bool = False
) -> None:
    """Look at a reward model that is going to be loaded, as [`check_model`] does at a language model.

    Where it is `served` elsewhere, its folder here needs no weights.

    Raises:
        InputError: It is no classifier of one label, has no score head, or as for `check_model`.
    """
    check_model_found(name, "reward model", revision, trust_remote_code, scores=True)
    source = Source(str(name), revision, trust_remote_code)
    _check_files(source, load_config(source), "reward model", scores=True, weights=not served)


def _check_files(
    source: Source, config: PreTrainedConfig, role: str, scores: bool = False, weights: bool = True
) -> None:
    if Path(source.name).is_dir() and weights:
        check_model_folder(Path(source.name), role, scores)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is not None:
        check_vocabulary(AutoTokenizer.from_pretrained(source.name, **source.keywords()), rows, source.name, role)


def _causal_config(source: Source, role: str) -> PreTrainedConfig:
    config = AutoConfig.from_pretrained(source.name, **source.keywords())
    other = next((kind for kind in config.architectures or [] if kind.endswith("ForSequenceClassification")), None)
    if other:
        raise InputError(
            f"The {role} must be a language model that writes answers; {source.name!r} is a classifier ({other}), as "
            "a reward model is. Give a causal language model, and this one as reward_model_name_or_path."
        )
    return config


def check_vocabulary(tokenizer: Any, rows: int, name: str, role: str) -> None:
    """Refuse a tokenizer that makes ids for which the model has no embedding.

    Special tokens that nothing writes may lie beyond it: Gemma's text models have one for images.

    Raises:
        InputError: A word, a token of the chat template or the token that starts, ends or pads a text lies beyond.
    """
    unwritten = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    unwritten -= {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    template = str(tokenizer.chat_template or "")
    beyond = sorted(
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and (token not in unwritten or token in template)
    )
    if beyond:
        number, token = beyond[0]
        raise InputError(
            f"Every token of the {role} {name!r} must have a row in its embedding, which has {rows}; the tokenizer "
            f"goes beyond, first with {token!r}, whose id is {number}. Give the model the tokenizer that it was "
            "trained with, or make room and train again: model.resize_token_embeddings(len(tokenizer))."
        )


def _ask_hub(name: str, role: str, revision: str | None, scores: bool) -> None:
    """Ask the Hub for the model once; without an answer, a copy in the cache will do.

    Loading a file retries for half a minute before it says that there is no network.
    """
    try:
        files = HfApi().model_info(name, revision=revision, timeout=10).siblings
    except HfHubHTTPError:
        raise
    except (OSError, HTTPError) as error:
        if try_to_load_from_cache(name, "config.json", revision=revision) is None:
            raise OSError("the Hub does not answer, and there is no copy in the cache") from error
        return
    if files:
        check_listing([file.rfilename for file in files], name, role, scores)
