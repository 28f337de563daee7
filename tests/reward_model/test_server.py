"""A reward model behind servers: which rows go where, and what becomes of one that fails. All over real sockets."""

import asyncio
import logging
import socket
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress

import httpx
import pytest
from reward_server import MODEL, score_of, serving

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.serve_commands import Served
from trl_hybrid.reward_model.server import RewardServerError, ServedModel
from trl_hybrid.reward_model.server_answers import ServerFault
from trl_hybrid.reward_model.server_client import RewardServer


PROBES = [(1, 2, 3), (60,), (5, 5), (70, 20)]
ROWS = [(number, number + 1, number * 3) for number in range(1, 41)]
EXPECTED = [score_of(row) for row in ROWS]


def connect(*servers, timeout=2.0, token_budget=12, probes=PROBES, **served):
    urls = [getattr(server, "url", server) for server in servers]
    described = Served(**{"name": MODEL, "max_length": 512, **served})
    return ServedModel(urls, described, probes, tolerance=1e-3, token_budget=token_budget, timeout=timeout)


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def pair():
    with serving() as one, serving() as two:
        yield one, two


def unused_url():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def rested(server):
    """Wait until a server that failed is asked again; an event loop's clock is the monotonic one."""
    time.sleep(max(0.0, server.rests_until - time.monotonic()) + 0.05)


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("trl_hybrid")]


class TestRows:
    @pytest.mark.parametrize("kind", ["vllm", "sglang"])
    def test_each_row_gets_its_score_in_its_place(self, kind):
        with serving(kind=kind) as server:
            assert connect(server).score(ROWS) == EXPECTED

    def test_without_rows_nobody_is_asked(self, server):
        model = connect(server)
        server.requests.clear()
        assert model.score([]) == []
        assert server.requests == []

    def test_requests_keep_to_the_token_budget_and_rows_that_start_alike_travel_together(self, server):
        model = connect(server, token_budget=8)
        server.requests.clear()
        rows = [(7, 7, 1), (9, 9, 1), (7, 7, 2), (9, 9, 2), tuple(range(20))]
        model.score(rows)
        assert sorted(map(sorted, server.requests)) == [
            [[*range(20)]],
            [[7, 7, 1], [7, 7, 2]],
            [[9, 9, 1], [9, 9, 2]],
        ]

    def test_several_servers_share_the_rows(self, pair):
        model = connect(*pair)
        for server in pair:
            server.requests.clear()
        assert model.score(ROWS) == EXPECTED
        counts = [sum(map(len, server.requests)) for server in pair]
        assert sum(counts) == 40
        assert min(counts) >= 19

    def test_processes_begin_with_different_servers_and_share_the_requests_at_once(self, pair, monkeypatch):
        first = Counter()
        for rank in range(4):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", "4")
            model = connect(*pair)
            for server in pair:
                server.requests.clear()
            model.score([(1, 2)])
            first.update(server.url for server in pair if server.requests)
            assert model.at_once == 4
        assert sorted(first.values()) == [2, 2]

    def test_connections_are_kept_for_a_call(self, server, monkeypatch):
        accepted = []
        own = server.get_request
        monkeypatch.setattr(server, "get_request", lambda: accepted.append(1) or own())
        monkeypatch.setenv("WORLD_SIZE", "16")  # one request at a time
        model = connect(server)
        accepted.clear()
        model.score(ROWS)
        assert len(accepted) == 1

    def test_it_works_where_an_event_loop_is_running(self, server):
        model = connect(server)

        async def in_a_notebook():
            return model.score(ROWS)

        assert asyncio.run(in_a_notebook()) == EXPECTED

    def test_a_key_from_the_environment_is_sent_and_no_proxy_is_asked(self, server, monkeypatch):
        monkeypatch.setenv("TRL_HYBRID_SERVER_KEY", "sesame")
        monkeypatch.setenv("HTTP_PROXY", unused_url())
        connect(server).score(ROWS)
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer sesame"}


class TestKey:
    """Nothing that is shown or logged holds it."""

    @pytest.fixture(autouse=True)
    def _log_all(self, caplog):
        caplog.set_level(logging.DEBUG)

    @pytest.mark.parametrize("key", ["sesame-open-up\n", " sesame-open-up\r\n"])
    def test_a_secret_files_line_break_is_no_part_of_it(self, server, monkeypatch, caplog, key):
        monkeypatch.setenv("TRL_HYBRID_SERVER_KEY", key)
        assert connect(server).score(ROWS) == EXPECTED
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer sesame-open-up"}
        assert "sesame" not in caplog.text

    @pytest.mark.parametrize("key", ["schlüssel-geheim", "sesame\nopen-up", "sesame\topen", "sesame\udcff"])
    def test_one_that_no_header_can_hold_is_refused_by_its_variable(self, server, monkeypatch, caplog, key):
        monkeypatch.setenv("TRL_HYBRID_SERVER_KEY", key)
        with pytest.raises(InputError, match="TRL_HYBRID_SERVER_KEY must hold a key of printable ASCII") as error:
            connect(server)
        assert not any(part in str(error.value) + caplog.text for part in ("sesame", "open", "geheim"))
        assert server.headers == []

    def test_without_one_there_is_no_header(self, server, monkeypatch):
        monkeypatch.setenv("TRL_HYBRID_SERVER_KEY", "\n")
        connect(server)
        assert not any("Authorization" in headers for headers in server.headers)

    def test_it_is_read_once(self, server, monkeypatch):
        monkeypatch.setenv("TRL_HYBRID_SERVER_KEY", "sesame")
        model = connect(server)
        monkeypatch.setenv("TRL_HYBRID_SERVER_KEY", "geheim\n")
        assert model.score(ROWS) == EXPECTED

    def test_what_cannot_be_sent_is_not_tried_again_and_not_shown(self, server):
        async def ask():
            async with httpx.AsyncClient(headers={"Authorization": "Bearer sesame\n"}) as client:
                return await RewardServer(server.url).score(client, ROWS, seconds=2.0)

        with pytest.raises(ServerFault) as fault:
            asyncio.run(ask())
        assert not fault.value.passing
        assert "sesame" not in "".join(traceback.format_exception(fault.value))

    def test_a_server_that_repeats_it_is_quoted_without_it(self, server, monkeypatch, caplog):
        monkeypatch.setenv("TRL_HYBRID_SERVER_KEY", "sesame-open-up")
        model = connect(server)
        server.always = "repeats_the_key"
        with pytest.raises(RewardServerError, match=r"answered 401: No such key: \*\*\*") as error:
            model.score(ROWS)
        assert "sesame" not in "".join(traceback.format_exception(error.value)) + caplog.text


class TestFailures:
    @pytest.mark.parametrize("fault", ["500", "429"])
    def test_a_busy_server_is_asked_again(self, server, fault, caplog):
        model = connect(server)
        server.faults = [fault]
        assert model.score(ROWS) == EXPECTED
        assert [line for line in told(caplog) if f"answered {fault}" in line]

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ("400", "answered 400: .*maximum context length"),
            ("html", "answered with no JSON: <html><body>Bad gateway"),
            ("short", r"answered 3 scores for 4 rows"),
            ("swapped", "answered no scores for 4 rows"),
            ("nan", "a score that is no finite number: NaN"),
            ("text", 'a score that is no finite number: "0.5"'),
            ("none", "a score that is no finite number: null"),
            ("two_labels", "something else than one label's score"),
            ("wrong_model", "answered not as the model 'my/rm': .*other/rm"),
        ],
    )
    def test_a_wrong_answer_ends_it_at_once_and_is_never_a_score(self, pair, fault, said):
        model = connect(*pair)
        pair[1].always = fault
        asked = len(pair[1].requests)
        started = time.monotonic()
        with pytest.raises(RewardServerError, match=f"{pair[1].url} .*{said}") as error:
            model.score(ROWS)
        assert time.monotonic() - started < 10
        assert "--resume_from_checkpoint latest" in str(error.value)
        assert len(pair[1].requests) - asked <= 10  # one each, none again

    def test_one_of_two_that_dies_is_told_once_and_the_other_gets_its_rows(self, caplog):
        with serving() as one:
            with serving() as two:
                model = connect(one, two)
            assert [model.score(ROWS) for _ in range(3)] == [EXPECTED] * 3
            lines = told(caplog)
            assert [line for line in lines if two.url in line and "the others get its rows" in line] == lines
            assert len(lines) == 1

    def test_one_that_comes_back_is_used_again_and_that_is_told(self, caplog):
        with serving() as one:
            with serving() as two:
                model = connect(one, two)
                port = two.server_address[1]
            model.score(ROWS)
            with serving(port=port) as two:
                rested(model.servers[1])
                model.score(ROWS)
                assert two.requests
        assert told(caplog)[-1] == f"The reward model's server {two.url} answers again."

    @pytest.mark.parametrize(
        ("change", "said"),
        [({"model": "other/rm"}, "serves 'other/rm' and not 'my/rm'"), ({"shift": 1.0}, "the same")],
    )
    def test_one_that_comes_back_as_another_is_an_error(self, change, said):
        with serving() as one:
            with serving() as two:
                model = connect(one, two)
                port = two.server_address[1]
            model.score(ROWS)
            with serving(port=port) as two:
                for name, value in change.items():
                    setattr(two, name, value)
                rested(model.servers[1])
                with pytest.raises(RewardServerError, match=said):
                    model.score(ROWS)

    def test_a_dead_server_is_waited_for_until_the_deadline(self):
        with serving() as server:
            model = connect(server, timeout=0.3)
        started = time.monotonic()
        with pytest.raises(RewardServerError, match=r"did not score 40 rows within 1\.5 s") as error:
            model.score(ROWS)
        assert 1.4 < time.monotonic() - started < 10
        assert f"{server.url} does not answer (ConnectError" in str(error.value)
        assert "vllm serve my/rm" in str(error.value)
        assert "--resume_from_checkpoint latest" in str(error.value)

    def test_one_that_comes_back_before_the_deadline_scores(self):
        with serving() as server:
            model = connect(server, timeout=2.0)
        port = server.server_address[1]
        scores = []
        waiting = threading.Thread(target=lambda: scores.extend(model.score(ROWS)))
        waiting.start()
        time.sleep(0.7)
        with serving(port=port):
            waiting.join()
        assert scores == EXPECTED

    def test_a_hanging_server_costs_a_deadline_and_not_for_ever(self, server):
        model = connect(server, timeout=0.3)
        server.always = "hang"
        started = time.monotonic()
        with pytest.raises(RewardServerError, match=r"gave no answer to /classify within 0.3 s"):
            model.score(ROWS)
        assert time.monotonic() - started < 10

    def test_a_server_that_sends_a_byte_now_and_then_keeps_no_deadline_open(self):
        """httpx's own read limit begins anew with each byte."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            stop = threading.Event()

            def dribble():
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                    with suppress(OSError):  # the client is gone
                        while not stop.wait(0.05):
                            connection.sendall(b" ")

            thread = threading.Thread(target=dribble, daemon=True)
            thread.start()
            started = time.monotonic()
            try:
                with pytest.raises(InputError, match=r"gave no answer to /v1/models within 0\.4 s"):
                    connect(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.4)
                assert time.monotonic() - started < 10
            finally:
                stop.set()
                thread.join()

    def test_a_hanging_one_of_two_costs_one_deadline(self, pair, caplog):
        model = connect(*pair)
        pair[1].always = "hang"
        started = time.monotonic()
        assert [model.score(ROWS) for _ in range(2)] == [EXPECTED] * 2
        assert time.monotonic() - started < 10
        assert len([line for line in told(caplog) if f"{pair[1].url} gave no answer" in line]) == 1


class TestAtTheStart:
    def test_one_that_is_not_there_is_named_with_the_command(self):
        url = unused_url()
        with pytest.raises(InputError) as error:
            connect(url)
        assert f"The reward model's server {url} does not answer (ConnectError" in str(error.value)
        assert "vllm serve my/rm --runner pooling --convert classify" in str(error.value)
        assert "sglang.launch_server --model-path my/rm" in str(error.value)

    @pytest.mark.parametrize("fault", ["429", "dead"])
    def test_a_busy_one_is_asked_again(self, server, fault, caplog):
        server.faults = [fault] * 2
        model = connect(server, timeout=20.0)
        assert model.score(ROWS) == EXPECTED
        assert len(told(caplog)) == 1
        assert f"{server.url} answered" in told(caplog)[0]
        assert not model.servers[0].away

    def test_one_that_stays_busy_is_waited_for_as_long_as_a_request_may_take(self, server):
        server.always = "429"
        started = time.monotonic()
        with pytest.raises(InputError, match=f"{server.url} answered 429: too many requests"):
            connect(server, timeout=1.0)
        assert time.monotonic() - started > 0.4
        assert len(server.requests) > 1

    def test_where_nothing_listens_nothing_is_waited_for(self, caplog):
        started = time.monotonic()
        with pytest.raises(InputError, match="does not answer"):
            connect(unused_url(), timeout=500.0)
        assert time.monotonic() - started < 100
        assert told(caplog) == []

    @pytest.mark.parametrize("fault", ["activation", "equal"])
    def test_an_activation_is_refused(self, server, fault):
        server.always = fault
        with pytest.raises(InputError, match="the server applies an activation"):
            connect(server)

    def test_another_model_is_refused(self, server):
        with pytest.raises(InputError, match=r"serves 'my/rm' and not 'a/rm'.*--served-model-name a/rm"):
            connect(server, name="a/rm")

    def test_one_that_takes_only_shorter_rows_is_refused(self, server):
        server.max_length = 256
        with pytest.raises(InputError, match=r"at most 256 tokens, but they may have 512.*reward_model_max_length"):
            connect(server)

    def test_replicas_that_score_differently_are_refused(self, pair):
        pair[1].shift = 0.5
        with pytest.raises(InputError, match="its weights, number type or score head are not the same"):
            connect(*pair)

    def test_scores_that_depend_on_the_batch_are_refused(self, server, monkeypatch):
        own = server.answer

        def batched(body):
            server.shift = 0.1 * len(body["input"])
            return own(body)

        monkeypatch.setattr(server, "answer", batched)
        with pytest.raises(InputError, match=r"otherwise in a batch.*0\.001 of the largest"):
            connect(server)

    def test_what_is_no_such_server_is_named_with_what_it_answered(self):
        with serving(kind="llamacpp") as server, pytest.raises(InputError, match=r"neither vLLM nor SGLang.*llamacpp"):
            connect(server)

    @pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
    def test_a_deadline_must_be_above_zero(self, server, timeout):
        with pytest.raises(InputError, match="must be above 0"):
            connect(server, timeout=timeout)

    def test_an_empty_budget_is_refused(self, server):
        with pytest.raises(InputError, match="`token_budget` must be at least 1"):
            connect(server, token_budget=0)


@pytest.fixture(autouse=True)
def _listen(caplog):
    caplog.set_level(logging.WARNING)
