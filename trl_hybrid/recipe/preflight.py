"""What is checked before anything large is loaded, and before the first step is paid for."""

import math
from collections.abc import Sequence
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from trl_hybrid.data.golds import boxed
from trl_hybrid.errors import InputError
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.verifier import MathVerifier


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
    right = [_given(gold, verifier.method) for gold in golds]
    wrong = [_given("no answer", verifier.method)] * len(golds)
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
        if verdict.correct is expected or verdict.reason == "starved":  # which the verifier has warned of
            continue
        what = (
            "cannot judge the gold answer" if verdict.correct is None else f"judges {completions[row]!r} for the gold"
        )
        raise InputError(
            f"The verifier {what} {golds[row]!r} of row {row} ({verdict.reason}); it must call a gold answer right "
            "and another answer wrong. Correct the row, or check that the column holds final answers."
        )


def _given(answer: str, method: str) -> str:
    """Give an answer in a form that the verifier's method reads."""
    return f"#### {answer}" if method == "strict" else boxed(answer)
