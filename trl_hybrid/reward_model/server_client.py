"""One server that scores, over HTTP: each question has a deadline, and a failure is a `ServerFault`."""

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

from trl_hybrid.reward_model.plan import Row
from trl_hybrid.reward_model.server_answers import (
    Identity,
    ServerFault,
    read_identity,
    read_json,
    read_scores,
    request_of,
)


Result = TypeVar("Result")

LONGEST_REST = 15.0
"""Seconds after which a server that is away is asked again, at the latest."""


class RewardServer:
    """A server's address, and how it is doing.

    Args:
        url: Without a slash at its end.

    Attributes:
        identity: What it said that it is, None before it was asked.
        rests_until: By the event loop's clock: not asked before. Each failure in a row doubles the rest.
        away: Whether it failed since it last answered.
        said: What its last failure was.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.identity: Identity | None = None
        self.rests_until = 0.0
        self.away = False
        self.said = "was not asked"
        self._failures = 0

    async def identify(self, client: httpx.AsyncClient, seconds: float) -> Identity:
        """Ask what it is.

        Raises:
            ServerFault: It does not answer within so many seconds, or is no vLLM and no SGLang.
        """
        self.identity = read_identity(await self._ask(client, "/v1/models", seconds))
        return self.identity

    async def score(self, client: httpx.AsyncClient, rows: Sequence[Row], seconds: float) -> list[float]:
        """Have rows scored.

        Raises:
            ServerFault: It does not answer within so many seconds, or not with one finite number a row.
        """
        identity = self.identity or await self.identify(client, seconds)
        answer = await self._ask(client, "/classify", seconds, request_of(identity, rows))
        return read_scores(identity, answer, len(rows))

    def rest(self, fault: ServerFault, now: float) -> bool:
        """Leave it alone for a while, and return whether this is the first failure in a row."""
        self.said = fault.said
        if now < self.rests_until:  # another request to it failed at the same time
            return False
        self.rests_until = now + min(LONGEST_REST, 0.5 * 2**self._failures)
        self._failures += 1
        first, self.away = not self.away, True
        return first

    def recover(self) -> None:
        """Ask it again as any other."""
        self.away, self._failures, self.rests_until = False, 0, 0.0

    async def _ask(self, client: httpx.AsyncClient, path: str, seconds: float, body: Any = None) -> Any:
        try:
            # httpx's own limits are about each wait, and a server that sends a byte now and then keeps all of them.
            async with asyncio.timeout(seconds):
                method = "GET" if body is None else "POST"
                response = await client.request(method, self.url + path, json=body)
        except TimeoutError:
            raise ServerFault(f"gave no answer to {path} within {seconds:g} s", passing=True) from None
        except httpx.LocalProtocolError:  # its text holds what was to be sent, a key too
            raise ServerFault("cannot be asked: what it is to be sent is no HTTP", passing=False) from None
        except httpx.RequestError as error:
            said = f"does not answer ({type(error).__name__}: {error})"
            raise ServerFault(said, passing=True, connected=not isinstance(error, httpx.ConnectError)) from error
        refused = response.status_code != httpx.codes.OK
        return read_json(response.status_code, _without_key(response.text, client) if refused else response.text)


def _without_key(text: str, client: httpx.AsyncClient) -> str:
    """Hide the key in what is said of a refused request: some proxies repeat it."""
    key = client.headers.get("Authorization", "").removeprefix("Bearer ")
    return text.replace(key, "***") if key else text


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in an event loop of its own, also where the caller's thread runs one, as a notebook's does."""

    def run() -> Result:
        # With a factory of its own, the runner leaves the thread's current loop as it is.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(max_workers=1) as apart:
        return apart.submit(run).result()
