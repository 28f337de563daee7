"""What is asked of a server before it is trusted, at the start and whenever it was away: is this our reward model?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from trl_hybrid.reward_model.first_scores import PROBLEM, SOLUTION
from trl_hybrid.reward_model.forwards import agree
from trl_hybrid.reward_model.plan import Row
from trl_hybrid.reward_model.prompts import RowRenderer
from trl_hybrid.reward_model.serve_commands import Served
from trl_hybrid.reward_model.server_answers import Identity, ServerFault
from trl_hybrid.reward_model.server_client import RewardServer


IDENTITY_SECONDS = 10.0

ANSWERS = (
    SOLUTION, "", "\\boxed{42}", "\\boxed{41}", "I do not know.", "17 + 25 = 17 + 20 + 5 = 42", "42 42 42 42",
    "Because 7 + 5 = 12, the last digit is 2.",
)  # fmt: skip
"""Answers of all kinds to one problem: logits for them spread, and hardly all of them lie between 0 and 1."""


def probe_rows(renderer: RowRenderer) -> list[Row]:
    """Render the answers by which servers are tried."""
    rendered = renderer.render([PROBLEM] * len(ANSWERS), ANSWERS, [False] * len(ANSWERS))
    return [row.ids for row in rendered]


async def try_server(
    server: RewardServer,
    client: httpx.AsyncClient,
    rows: Sequence[Row],
    served: Served,
    tolerance: float,
    seconds: float,
) -> list[float]:
    """Ask a server what it is, and have rows scored together and one by one.

    Args:
        server: Which.
        client: The connections.
        rows: See [`probe_rows`].
        served: What it must serve.
        tolerance: See [`agree`].
        seconds: For each question.

    Returns:
        The rows' scores.

    Raises:
        ServerFault: It does not answer, serves something else, applies an activation, or a score depends on its batch.
    """
    # Not a matter of work: a server that does not say so at once is away.
    check_identity(await server.identify(client, min(seconds, IDENTITY_SECONDS)), served)
    together = await server.score(client, rows, seconds)
    check_raw(together)
    alone = [score for row in rows for score in await server.score(client, [row], seconds)]
    if not agree(together, alone, tolerance):
        raise ServerFault(
            f"scores rows otherwise in a batch, {shown(together)}, than alone, {shown(alone)}; they may be "
            f"{tolerance:g} of the largest (or of 1) apart",
            passing=False,
        )
    return together


def check_identity(identity: Identity, served: Served) -> None:
    """Refuse another model, and one that takes only shorter rows.

    Raises:
        ServerFault: It is so.

    Example:
        >>> check_identity(Identity("vllm", "a/rm", "a/rm", 4096), Served("a/rm", max_length=4096))
    """
    if not any(_same_model(name, served.name) for name in (identity.model, identity.source)):
        raise ServerFault(
            f"serves {identity.model!r} and not {served.name!r}; if that is the same model, start it with "
            f"--served-model-name {served.name}",
            passing=False,
        )
    if identity.max_length is not None and served.max_length is not None and identity.max_length < served.max_length:
        raise ServerFault(
            f"takes rows of at most {identity.max_length} tokens, but they may have {served.max_length}; start it "
            f"with that length, or set reward_model_max_length (`max_length`) to {identity.max_length}",
            passing=False,
        )


def check_raw(scores: Sequence[float]) -> None:
    """Refuse scores that are probabilities, or all the same.

    Raises:
        ServerFault: All lie in [0, 1], or are equal.
    """
    if len(set(scores)) == 1 or all(0 <= score <= 1 for score in scores):
        raise ServerFault(
            f"gives {shown(scores)} for {len(scores)} very different answers: the server applies an activation (a "
            "sigmoid or softmax), or its score head is random. Raw logits are needed",
            passing=False,
        )


def check_alike(scores: Mapping[str, Sequence[float]], tolerance: float) -> None:
    """Refuse a server that gives other scores than the first, or than it gave before.

    Args:
        scores: Of the same rows, by who gave them.
        tolerance: See [`agree`].

    Raises:
        ServerFault: They differ.
    """
    (first, expected), *others = scores.items()
    for name, own in others:
        if not agree(own, expected, tolerance):
            raise ServerFault(
                f"scores the same rows {shown(own)} ({name}) and {shown(expected)} ({first}): its weights, number "
                "type or score head are not the same",
                passing=False,
            )


def shown(scores: Sequence[float]) -> str:
    """Show a few scores.

    Example:
        >>> shown([1.25, -3.0, 2, 7])
        '1.25, -3, 2, ...'
    """
    return ", ".join(f"{score:.4g}" for score in scores[:3]) + (", ..." if len(scores) > 3 else "")


def _same_model(theirs: str, ours: str) -> bool:
    folders = Path(theirs), Path(ours)
    return theirs == ours or (all(map(Path.is_dir, folders)) and folders[0].resolve() == folders[1].resolve())
