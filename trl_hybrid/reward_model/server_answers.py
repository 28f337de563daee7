"""What servers that score are asked and what they must answer, for vLLM and SGLang. No network here.

A failure never becomes a number: an answer is what it must be, or a `ServerFault`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from trl_hybrid.reward_model.plan import Row


KINDS = ("vllm", "sglang")

TOO_MANY_REQUESTS = 429


class ServerFault(Exception):
    """A server did not score.

    Args:
        said: What it did, to go after its address, such as "answered 500: ...".
        passing: Whether to ask again makes sense: the server is away or busy.
        connected: Whether a connection came about; without one, nothing may ever listen there.
    """

    def __init__(self, said: str, passing: bool, connected: bool = True) -> None:
        super().__init__(said)
        self.said, self.passing, self.connected = said, passing, connected


@dataclass(frozen=True)
class Identity:
    """What a server says that it is.

    Attributes:
        kind: "vllm" or "sglang".
        model: Name by which it serves its model.
        source: Where it loaded the model from.
        max_length: Most tokens of a row, None where it does not say.
    """

    kind: str
    model: str
    source: str
    max_length: int | None


def read_json(status: int, text: str) -> Any:
    """Read an HTTP answer.

    Raises:
        ServerFault: Its status is not 200, or it is no JSON. Passing: 429 and from 500 on.
    """
    if status != 200:
        passing = status >= 500 or status == TOO_MANY_REQUESTS
        raise ServerFault(f"answered {status}: {excerpt(text)}", passing)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # lists within lists without end
        raise ServerFault(f"answered with no JSON: {excerpt(text)}", passing=False) from None


def read_identity(answer: Any) -> Identity:
    """Read what `/v1/models` says; both servers write their own name into it.

    Raises:
        ServerFault: It is neither vLLM nor SGLang, or names no model.

    Example:
        >>> read_identity({"data": [{"id": "a/rm", "root": "/w/rm", "owned_by": "vllm", "max_model_len": 2048}]})
        Identity(kind='vllm', model='a/rm', source='/w/rm', max_length=2048)
    """
    cards = answer.get("data") if isinstance(answer, dict) else None
    card = cards[0] if isinstance(cards, list) and cards and isinstance(cards[0], dict) else {}
    kind, model, length = card.get("owned_by"), card.get("id"), card.get("max_model_len")
    if kind not in KINDS or not isinstance(model, str):
        raise _misfit("/v1/models as neither vLLM nor SGLang does", answer)
    source = card.get("root")
    return Identity(
        kind, model, source if isinstance(source, str) else model, length if isinstance(length, int) else None
    )


def request_of(identity: Identity, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the body for `/classify`: token ids, and for vLLM the wish for logits, which it squashes otherwise."""
    ids = [list(row) for row in rows]
    if identity.kind == "vllm":
        return {"model": identity.model, "input": ids, "use_activation": False}
    return {"input_ids": ids}


def read_scores(identity: Identity, answer: Any, rows: int) -> list[float]:
    """Read what `/classify` answered, one finite number a row.

    Raises:
        ServerFault: It is of another model, or anything else than that.

    Example:
        >>> read_scores(Identity("sglang", "rm", "rm", None), [{"embedding": [1.5]}, {"embedding": [-2.0]}], rows=2)
        [1.5, -2.0]
    """
    entries, key = answer, "embedding"
    if identity.kind == "vllm":
        if not isinstance(answer, dict) or answer.get("model") != identity.model:
            raise _misfit(f"not as the model {identity.model!r}", answer)
        entries, key = _in_order(answer.get("data")), "probs"
    if not isinstance(entries, list) or len(entries) != rows:
        count = len(entries) if isinstance(entries, list) else "no"
        raise _misfit(f"{count} scores for {rows} rows", answer)
    return [_score(entry.get(key) if isinstance(entry, dict) else entry) for entry in entries]


def _in_order(entries: Any) -> Any:
    """Return a list whose entries count from 0; None where they do not."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    return entries if [entry.get("index") for entry in entries] == list(range(len(entries))) else None


def _score(labels: Any) -> float:
    if not isinstance(labels, list) or len(labels) != 1:
        raise _misfit("something else than one label's score for a row", labels)
    [score] = labels
    if isinstance(score, bool) or not isinstance(score, int | float) or not _fits_a_float(score):
        raise _misfit("a score that is no finite number", score)
    return float(score)


def _fits_a_float(number: float) -> bool:
    try:
        return isfinite(number)
    except OverflowError:  # an integer beyond every float
        return False


def _misfit(what: str, answer: Any) -> ServerFault:
    try:
        shown = json.dumps(answer)
    except RecursionError:  # that it could be read does not say that it can be written
        shown = "lists within lists, too deep to be shown"
    return ServerFault(f"answered {what}: {excerpt(shown)}", passing=False)


def excerpt(text: str, length: int = 200) -> str:
    r"""Return the beginning of a text on one line.

    Example:
        >>> excerpt("<html>\n  <body>\x1b[1mBad   gateway")
        '<html> <body>?[1mBad gateway'
    """
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text[: 4 * length].split()))
    return (line[:length] + " ..." if len(line) > length else line) or "(nothing)"
