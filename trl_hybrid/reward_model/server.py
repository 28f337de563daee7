"""The reward model behind servers: which rows go to which, and what is done when one does not answer."""

import asyncio
import logging
import os
import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import httpx
import torch
from transformers import PreTrainedConfig

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.forwards import score_tolerance
from trl_hybrid.reward_model.loading import Source, checkpoint_dtype
from trl_hybrid.reward_model.placement import body_dtype
from trl_hybrid.reward_model.plan import Row, cut_requests
from trl_hybrid.reward_model.prompts import RowRenderer
from trl_hybrid.reward_model.serve_commands import Served, sglang_command, vllm_command
from trl_hybrid.reward_model.server_address import server_key
from trl_hybrid.reward_model.server_answers import ServerFault
from trl_hybrid.reward_model.server_client import RewardServer, run_to_end
from trl_hybrid.reward_model.server_preflight import check_alike, probe_rows, try_server


logger = logging.getLogger(__name__)

REQUEST_TOKENS = 4096
"""Tokens of one request where the user names none: servers batch what waits anew, and a lost one costs little."""

REQUESTS_AT_ONCE = 16
"""To one server, of all training processes together."""

PATIENCE = 5
"""All rows of a call may take so many times what one request may."""

WAY_ON = "A training run goes on from its last checkpoint by --resume_from_checkpoint latest; no score was made up."


class RewardServerError(OSError):
    """The reward model's servers gave no scores; the message says what they said and how to go on."""


class ServedModel:
    """Scores rows of token ids by asking servers.

    Rows that start alike travel together, so that a server computes their start once. Request i of process r goes
    first to server r + i. A server that is away or busy rests, and the others get its rows; before it is used again
    it must give the scores that it gave at the start.

    Args:
        urls: The servers'.
        served: What they must serve.
        probes: Rows by which each server is tried.
        tolerance: How far two scores of a row may be apart; see `agree`.
        token_budget: Most tokens of a request, None for the default. A longer row goes alone.
        timeout: Seconds for one request. All rows of a call have five times that.

    Raises:
        InputError: A server does not answer, or does not serve this reward model, or its key cannot be sent.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        urls: Sequence[str],
        served: Served,
        probes: Sequence[Row],
        tolerance: float,
        token_budget: int | None = None,
        timeout: float = 120.0,
    ) -> None:
        if token_budget is not None and token_budget < 1:
            raise InputError(f"`token_budget` must be at least 1 token, but got {token_budget}.")
        if not timeout > 0:
            raise InputError(f"`server_timeout` must be above 0 seconds, but got {timeout}.")
        self.servers = [RewardServer(url) for url in urls]
        self.served, self.probes, self.tolerance = served, list(probes), tolerance
        self.token_budget = token_budget or REQUEST_TOKENS
        self.timeout = timeout
        self.rank = int(os.environ.get("RANK", "0"))
        self.at_once = max(1, REQUESTS_AT_ONCE // int(os.environ.get("WORLD_SIZE", "1")))
        self._key = server_key(os.environ)
        self._certificates = ssl.create_default_context()
        self._expected: dict[str, list[float]] = {}
        run_to_end(self._try_all())

    def score(self, rows: Sequence[Row]) -> list[float]:
        """Score rows of token ids; see [`ScoringBackend`]. A score that is not finite is a fault here.

        Raises:
            RewardServerError: No server scored them in time, or one answered something else than scores.
        """
        return run_to_end(self._score(rows)) if rows else []

    async def _try_all(self) -> None:
        async with self._client() as client:
            for server in self.servers:
                try:
                    own = await self._try_until_answered(client, server)
                    check_alike({**self._expected, server.url: own}, self.tolerance)
                except ServerFault as fault:
                    raise InputError(
                        f"The reward model's server {server.url} {fault.said}.\nThe reward model {self.served.name!r} "
                        f"is served by\n  {vllm_command(self.served)}\nor\n  {sglang_command(self.served)}"
                    ) from fault
                self._expected[server.url] = own

    async def _try_until_answered(self, client: httpx.AsyncClient, server: RewardServer) -> list[float]:
        """Try a server that may be busy or still loading for as long as a request may take; the last fault goes on."""
        clock = asyncio.get_running_loop().time
        until = clock() + self.timeout
        while True:
            try:
                own = await self._try(client, server)
            except ServerFault as fault:
                if not fault.passing or not fault.connected:
                    raise
                if server.rest(fault, clock()):
                    logger.warning("The reward model's server %s %s; it is asked again.", server.url, fault.said)
                if server.rests_until > until:
                    raise
                await asyncio.sleep(server.rests_until - clock())
            else:
                server.recover()
                return own

    async def _try(self, client: httpx.AsyncClient, server: RewardServer) -> list[float]:
        return await try_server(server, client, self.probes, self.served, self.tolerance, self.timeout)

    async def _score(self, rows: Sequence[Row]) -> list[float]:
        requests = cut_requests(rows, self.token_budget)
        slots = {server.url: asyncio.Semaphore(self.at_once) for server in self.servers}
        try:
            limit = asyncio.timeout(PATIENCE * self.timeout)
            async with limit, self._client() as client, asyncio.TaskGroup() as group:
                parts = [
                    group.create_task(self._request(client, slots, [rows[row] for row in request], self.rank + number))
                    for number, request in enumerate(requests)
                ]
        except TimeoutError:
            raise RewardServerError(self._gave_up(len(rows))) from None
        except ExceptionGroup as faults:  # the first ended the others
            raise faults.exceptions[0] from None
        scored = {
            row: score
            for request, part in zip(requests, parts, strict=True)
            for row, score in zip(request, part.result(), strict=True)
        }
        return [scored[row] for row in range(len(rows))]

    async def _request(
        self, client: httpx.AsyncClient, slots: dict[str, asyncio.Semaphore], rows: Sequence[Row], turn: int
    ) -> list[float]:
        """Ask one server after the other until one scores."""
        while True:
            server = await self._choose(turn)
            turn += 1
            async with slots[server.url]:
                scores = await self._ask(client, server, rows)
            if scores is not None:
                return scores

    async def _ask(self, client: httpx.AsyncClient, server: RewardServer, rows: Sequence[Row]) -> list[float] | None:
        """Ask a server; None where it is away or busy, and rests now."""
        clock = asyncio.get_running_loop().time
        if server.rests_until > clock():  # it failed while this request waited for its turn
            return None
        try:
            if server.away:
                await self._rejoin(client, server)
            return await server.score(client, rows, self.timeout)
        except ServerFault as fault:
            if not fault.passing:
                told = f"The reward model's server {server.url} {fault.said}.\n{WAY_ON}"
                raise RewardServerError(told) from fault
            if server.rest(fault, clock()):
                others = "the others get its rows" if len(self.servers) > 1 else "it is asked again"
                logger.warning("The reward model's server %s %s; %s.", server.url, fault.said, others)
            return None

    async def _choose(self, turn: int) -> RewardServer:
        """Return the server whose turn it is among those that do not rest, as soon as there is one."""
        clock = asyncio.get_running_loop().time
        while True:
            awake = [server for server in self.servers if server.rests_until <= clock()]
            if awake:
                return awake[turn % len(awake)]
            await asyncio.sleep(min(server.rests_until for server in self.servers) - clock())

    async def _rejoin(self, client: httpx.AsyncClient, server: RewardServer) -> None:
        """Try a server that was away: it may have been started anew, with something else."""
        own = await self._try(client, server)
        check_alike({"at the start": self._expected[server.url], "now": own}, self.tolerance)
        if server.away:  # another request may have been faster
            server.recover()
            logger.warning("The reward model's server %s answers again.", server.url)

    def _client(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """Return new connections, kept alive for one call, that heed no proxy: servers are machines nearby."""
        return httpx.AsyncClient(
            verify=self._certificates,
            trust_env=False,
            timeout=None,
            limits=httpx.Limits(max_connections=None),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
        )

    def _gave_up(self, rows: int) -> str:
        told = "".join(f"\n  {server.url} {server.said}" for server in self.servers if server.away)
        return (
            f"The reward model's servers did not score {rows} rows within {PATIENCE * self.timeout:g} s (five times "
            f"reward_model_server_timeout).{told or ' They answer, but not fast enough.'}\n"
            f"Start what is away again:\n  {vllm_command(self.served)}\n{WAY_ON}"
        )


def connect(
    urls: Sequence[str],
    source: Source,
    renderer: RowRenderer,
    number_type: torch.dtype,
    token_budget: int | None,
    timeout: float,
) -> ServedModel:
    """Find a reward model behind its servers.

    Args:
        urls: The servers'.
        source: What they must serve.
        renderer: Makes the rows, and knows how long they may be.
        number_type: That of the servers; it says how near two scores of a row must be.
        token_budget: Most tokens of a request, None for the default.
        timeout: Seconds for one request.

    Raises:
        InputError: As for `ServedModel`.
    """
    dtype = str(number_type).removeprefix("torch.")
    served = Served(source.name, renderer.max_length, dtype, source.revision, source.trust_remote_code)
    return ServedModel(urls, served, probe_rows(renderer), score_tolerance(number_type), token_budget, timeout)


def served_dtype(dtype: str | torch.dtype | None, config: PreTrainedConfig) -> torch.dtype:
    """Return the number type that servers are to compute in; bf16 where none is asked for, as they have a GPU."""
    return body_dtype(dtype or torch.bfloat16, torch.device("cpu"), checkpoint_dtype(config))
