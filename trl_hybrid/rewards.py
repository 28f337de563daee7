"""Ready reward functions for dotted paths, as TRL's own command line takes them.

    TRL_HYBRID_REWARD_MODEL=nvidia/AceMath-7B-RM trl grpo ... --reward_funcs trl_hybrid.rewards.hybrid_reward

The judges are made on first use from environment variables, once in a process, and shared: two of these functions in
one run load one reward model. docs/adapters.md has the table of the variables.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from threading import RLock
from typing import TYPE_CHECKING, Any, Self, cast

from trl_hybrid.errors import InputError
from trl_hybrid.verifier import MathVerifier


if TYPE_CHECKING:  # what weighs is loaded with the function that needs it
    from trl_hybrid.hybrid import HybridReward
    from trl_hybrid.reward_model import RewardModel

PREFIX = "TRL_HYBRID_"

MAKING = RLock()
"""Held while judges are made: harnesses ask from several threads."""


@dataclass(frozen=True)
class JudgeSettings:
    """What the environment says of the judges: each field is the variable of its name in capitals, behind the prefix.

    Attributes:
        reward_model: Hub id or local folder; "" for none.
        reward_model_placement: See [`~trl_hybrid.RewardModel`].
        reward_model_server_url: Addresses of servers of the reward model with commas between them; "" for none.
        reward_model_server_timeout: Seconds for one request to a server.
        verifier_method: See [`~trl_hybrid.MathVerifier`].
        alpha: Half width of the wrong band; see [`~trl_hybrid.HybridReward`].
        beta: Half width of the right band.
    """

    reward_model: str = ""
    reward_model_placement: str = "auto"
    reward_model_server_url: str = ""
    reward_model_server_timeout: float = 120.0
    verifier_method: str = "math_verify"
    alpha: float = 0.1
    beta: float = 0.1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables that are set.

        Raises:
            InputError: One is no number where it must be, or looks like another that is misspelt.

        Example:
            >>> JudgeSettings.of({"TRL_HYBRID_ALPHA": "0.05"}).alpha
            0.05
        """
        known = {variable_of(field.name): field for field in fields(cls)}
        for variable in environment.keys() - known:
            meant = get_close_matches(variable, known, n=1, cutoff=0.9) if variable.startswith(PREFIX) else None
            if meant:  # the value is not shown: it may be a key, or an address with a password
                raise InputError(
                    f"The environment variable {variable} means nothing. Did you mean {meant[0]}? Rename or unset it."
                )
        given: dict[str, Any] = {}
        for variable in known.keys() & environment:
            field, value = known[variable], environment[variable]
            given[field.name] = _number(variable, value) if isinstance(field.default, float) else value
        return cls(**given)


def variable_of(field: str) -> str:
    """Name the environment variable of a field of `JudgeSettings`.

    Example:
        >>> variable_of("verifier_method")
        'TRL_HYBRID_VERIFIER_METHOD'
    """
    return PREFIX + field.upper()


def math_verifier_reward(prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
    """Pay 1.0 for a right answer and 0.0 for a wrong one; see [`~trl_hybrid.MathVerifier`].

    Args:
        prompts: One per completion; strings or chat messages.
        completions: Strings or chat messages.
        **kwargs: The data set's column `solution`, and what else TRL passes.

    Returns:
        One reward per completion; `None` where the solution cannot be judged.

    Raises:
        InputError: An environment variable is wrong.
    """
    trainer = getattr(kwargs.get("log_extra"), "__self__", None)
    if hybrid_reward in getattr(trainer, "reward_funcs", ()):
        del kwargs["log_extra"]  # that one logs the same columns; given twice, TRL's table mixes up processes' rows
    return shared_verifier()(prompts=prompts, completions=completions, **kwargs)


def reward_model_reward(prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
    """Pay the reward model's raw score; see [`~trl_hybrid.RewardModel`].

    Args:
        prompts: One per completion; strings or chat messages.
        completions: Strings or chat messages.
        **kwargs: What else TRL passes.

    Returns:
        One score per completion, any real number; NaN where the model gave none.

    Raises:
        InputError: An environment variable is wrong or missing.
    """
    settings = JudgeSettings.of(os.environ)
    with MAKING:
        reward_model = _reward_model_of(settings)
    return reward_model(prompts=prompts, completions=completions, **kwargs)


def hybrid_reward(prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> Sequence[float | None]:
    """Pay verdict and score combined within each prompt's group; see [`~trl_hybrid.HybridReward`].

    Args:
        prompts: One per completion; those of one group are contiguous, whole and equal.
        completions: Strings or chat messages.
        **kwargs: The data set's column `solution`, and what else TRL passes.

    Returns:
        One reward per completion, in [-alpha, 1 + beta]; `None` where the solution cannot be judged.

    Raises:
        InputError: An environment variable is wrong or missing, or a group is not whole on this process.
    """
    return shared_hybrid_reward()(prompts, completions, **kwargs)


def shared_verifier() -> MathVerifier:
    """Return this process's verifier, by `TRL_HYBRID_VERIFIER_METHOD`; from any thread.

    Raises:
        InputError: The variable names no method.
    """
    settings = JudgeSettings.of(os.environ)
    with MAKING:
        return _verifier(settings.verifier_method)


def shared_hybrid_reward(num_generations: int | None = None) -> "HybridReward":
    """Return this process's hybrid reward, by all the variables; from any thread.

    Args:
        num_generations: Completions per prompt, where no TRL trainer calls that could be asked.

    Raises:
        InputError: A variable is wrong or missing.
    """
    settings = JudgeSettings.of(os.environ)
    with MAKING:
        return _hybrid_reward(settings, num_generations)


@cache
def _verifier(method: str) -> MathVerifier:
    with _told_of("verifier_method"):
        return MathVerifier(cast(Any, method))


def _reward_model_of(settings: JudgeSettings) -> "RewardModel":
    return _reward_model(
        settings.reward_model,
        settings.reward_model_placement,
        settings.reward_model_server_url,
        settings.reward_model_server_timeout,
    )


@cache
def _reward_model(name: str, placement: str, server_url: str, server_timeout: float) -> "RewardModel":
    if not name:
        raise InputError(
            f"The environment variable {variable_of('reward_model')} must name a reward model, it is not set. Set it "
            "to a Hub id such as nvidia/AceMath-7B-RM (CC-BY-NC-4.0) or Skywork/Skywork-Reward-V2-Qwen3-8B "
            "(Apache-2.0), or to a folder; trl_hybrid.rewards.math_verifier_reward needs none."
        )
    from trl_hybrid.reward_model import RewardModel

    servers = "reward_model_server_url", "reward_model_server_timeout"
    with _told_of("reward_model", *servers, "reward_model_placement"):
        return RewardModel(
            name, placement=cast(Any, placement), server_urls=server_url or None, server_timeout=server_timeout
        )


@cache
def _hybrid_reward(settings: JudgeSettings, num_generations: int | None) -> "HybridReward":
    from trl_hybrid.hybrid import HybridReward
    from trl_hybrid.hybrid.combine import check_bands

    with _told_of("alpha", "beta"):  # before gigabytes are loaded
        check_bands(settings.alpha, settings.beta, eps=1e-6)
    judges = shared_verifier(), _reward_model_of(settings)
    return HybridReward(*judges, num_generations, alpha=settings.alpha, beta=settings.beta)


@contextmanager
def _told_of(*fields_of_it: str) -> Iterator[None]:
    """Say from which environment variables it comes what is refused inside."""
    try:
        yield
    except InputError as error:
        *others, last = map(variable_of, fields_of_it)
        variables = f"{', '.join(others)} and {last}" if others else last
        raise InputError(f"From the environment, {variables}: {error}") from error


def _number(variable: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(
            f"The environment variable {variable} must be a number, got {value!r}. Set it to one such as 0.1, or "
            "unset it."
        ) from None
