"""What is checked before anything large is loaded, and before the first step is paid for."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, TrainingArguments
from transformers.trainer_utils import HubStrategy

from trl_hybrid.errors import EMBEDDED_COMMAND, InputError
from trl_hybrid.model_files import check_listing, check_model_folder
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.loading import Source, load_config
from trl_hybrid.verifier import MathVerifier


def check_model_found(
    name: str | None, role: str, revision: str | None = None, trust_remote_code: bool = False
) -> None:
    """Fetch a model's configuration, a few kilobytes, and nothing else.

    Args:
        name: Id on the Hub, or a folder.
        role: What the model is for, as the message says it: "policy", "reward model".
        revision: Branch, tag or commit.
        trust_remote_code: Run code that the model's repository holds.

    Raises:
        InputError: There is no such model, the network does not answer, or the configuration cannot be read.
    """
    if not name:
        raise InputError(f"The {role} must be given as an id on the Hub or a folder, got {name!r}.")
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        check_model_folder(Path(name), role)
    try:
        if not Path(name).is_dir():
            _ask_hub(name, role, revision)
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
    """Look at a model that is going to be loaded: its configuration, its folder's files and its tokenizer.

    Args:
        name: Id on the Hub, or a folder.
        role: What it is for, as the message says it; "reward model" for one that scores.
        revision: Branch, tag or commit.
        trust_remote_code: Run code that the model's repository holds.

    Raises:
        InputError: As for `check_model_found`, `check_model_folder` and `check_vocabulary`.
        ValueError: As for `load_config`, for what is no reward model.
    """
    check_model_found(name, role, revision, trust_remote_code)
    name = str(name)
    shared = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = load_config(Source(name, **shared)) if role == "reward model" else _causal_config(name, role, **shared)
    if Path(name).is_dir():
        check_model_folder(Path(name), role)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is not None:
        check_vocabulary(AutoTokenizer.from_pretrained(name, **shared), rows, name, role)


def _causal_config(name: str, role: str, **shared: Any) -> PreTrainedConfig:
    config = AutoConfig.from_pretrained(name, **shared)
    other = next((kind for kind in config.architectures or [] if kind.endswith("ForSequenceClassification")), None)
    if other:
        raise InputError(
            f"The {role} must be a language model that writes answers; {name!r} is a classifier ({other}), as a "
            "reward model is. Give a causal language model, and this one as reward_model_name_or_path."
        )
    return config


def check_vocabulary(tokenizer: Any, rows: int, name: str, role: str) -> None:
    """Refuse a tokenizer that makes ids for which the model has no embedding.

    Special tokens that nothing writes may lie beyond it: Gemma's text models have one for images.

    Args:
        tokenizer: The model's.
        rows: Of its embedding.
        name: The model, for messages.
        role: What it is for.

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


def check_push(args: TrainingArguments) -> None:
    """Ask the Hub who pushes, before a run is paid for that could not be pushed. Nothing is made there yet.

    Args:
        args: `hub_model_id`, `hub_token` and `hub_strategy` are looked at.

    Raises:
        InputError: There is no network, nobody is logged in, or who is may not write there; or checkpoints are to be
            pushed, which the recipe does not do.
    """
    if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise InputError(
            f"The recipe pushes once, when the run has ended, and no checkpoints: hub_strategy must be 'end', got "
            f"{HubStrategy(args.hub_strategy).value!r}. Leave it out."
        )
    try:
        user = HfApi().whoami(token=args.hub_token)
    except (OSError, HTTPError) as error:
        raise InputError(
            f"push_to_hub needs the network and a login: {str(error).splitlines()[0]}\n"
            "Log in by `hf auth login`, or leave push_to_hub out and run `trl-hybrid push` on the run's folder later."
        ) from error
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    wanted = args.hub_model_id or "your account"
    owner = wanted.split("/")[0] if "/" in wanted else user["name"]
    owners = [user["name"], *(org["name"] for org in user.get("orgs", []))]
    # A fine-grained token does not say here what it may do.
    if role == "read" or (role == "write" and owner not in owners):
        raise InputError(
            f"The token of {user['name']!r} may not write to {wanted!r}. Log in by `hf auth login` with a token that "
            f"may write, and name a repository of {' or '.join(owners)}."
        )


def check_run_length(rows: int | None, prompts_per_step: int, max_steps: int) -> None:
    """Refuse a run that could not make a single step.

    Args:
        rows: Problems to train on; `None` where they are streamed and nobody knows.
        prompts_per_step: Problems that are answered before each generation's first step.
        max_steps: The run's bound; 0 or less for none.

    Raises:
        InputError: Fewer problems than a step takes, or streaming without a bound.
    """
    if rows is None and max_steps <= 0:
        raise InputError(
            f"With dataset_streaming the run's length must be given: set max_steps above 0, got {max_steps}."
        )
    if rows is not None and rows < prompts_per_step:
        raise InputError(
            f"A step needs {prompts_per_step} problems (per_device_train_batch_size x gradient_accumulation_steps x "
            f"processes / num_generations), got {rows}. Train on more problems, or lower the batch."
        )


def _ask_hub(name: str, role: str, revision: str | None) -> None:
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
        check_listing([file.rfilename for file in files], name, role)


def check_judges(
    verifier: MathVerifier, reward_model: RewardModel, tasks: Sequence[dict[str, Any]], rows: int = 10
) -> dict[str, float]:
    """Let both judges work once on known answers, so that a silent judge is found before an hour is spent.

    The gold answers of the first rows are handed in as completions, and so is a box that holds no answer.

    Args:
        verifier: Must call every gold answer right and the other answers wrong.
        reward_model: Must give finite scores that are not all the same.
        tasks: Rows of `prompt` and `solution`.
        rows: How many of them are tried.

    Returns:
        `min_score` and `max_score` over the gold answers.

    Raises:
        InputError: A judge fails; the message holds the first row that shows it.
    """
    sample = [tasks[index] for index in range(min(rows, len(tasks)))]
    golds = [row["solution"] for row in sample]
    right = [_boxed(gold) for gold in golds]
    wrong = [_boxed("no answer")] * len(golds)
    _check_verdicts(verifier, right, golds, expected=True)
    _check_verdicts(verifier, wrong, golds, expected=False)

    scores = reward_model.compute_batch_reward([row["prompt"] for row in sample] * 2, right + wrong)
    for text, score in zip(right + wrong, scores, strict=True):
        if not math.isfinite(score):
            raise InputError(
                f"The reward model gives {score} for the completion {text!r}; every score must be finite. Check its "
                "weights and dtype (bfloat16 or float32)."
            )
    if len(set(scores)) == 1:
        raise InputError(
            f"The reward model gives every one of {len(scores)} different completions the same score {scores[0]}: it "
            "cannot rank. Check that it is a trained reward model and not a bare language model."
        )
    return {"min_score": min(scores[: len(golds)]), "max_score": max(scores[: len(golds)])}


def _check_verdicts(verifier: MathVerifier, completions: list[str], golds: list[str], expected: bool) -> None:
    for row, verdict in enumerate(verifier.verify_batch(completions, golds)):
        if verdict.correct is expected:
            continue
        what = (
            "cannot judge the gold answer" if verdict.correct is None else f"judges {completions[row]!r} for the gold"
        )
        raise InputError(
            f"The verifier {what} {golds[row]!r} of row {row} ({verdict.reason}); it must call a gold answer right "
            "and another answer wrong. Correct the row, or check that the column holds final answers."
        )


def _boxed(answer: str) -> str:
    return f"The answer is \\boxed{{{answer}}}."
