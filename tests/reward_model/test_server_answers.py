import json
import math
from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.plan import cut_requests
from trl_hybrid.reward_model.server_address import asked_servers, server_urls, without_secrets
from trl_hybrid.reward_model.server_answers import (
    Identity,
    ServerFault,
    read_identity,
    read_json,
    read_scores,
    request_of,
)


VLLM, SGLANG = Identity("vllm", "rm", "rm", 64), Identity("sglang", "rm", "rm", None)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "probs", "embedding", "index", "model", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(ANYTHING, st.integers(0, 3), st.sampled_from([VLLM, SGLANG]))
def test_whatever_is_answered_gives_finite_scores_or_a_fault(answer, rows, identity):
    try:
        scores = read_scores(identity, answer, rows)
    except ServerFault:
        return
    assert len(scores) == rows
    assert all(type(score) is float and math.isfinite(score) for score in scores)


@given(st.integers(100, 599), st.text(max_size=30))
def test_a_status_is_passing_where_another_try_may_help(status, text):
    if status == 200:
        text = f"<{text}"  # no JSON
    with pytest.raises(ServerFault) as fault:
        read_json(status, text)
    assert fault.value.passing == (status >= 500 or status == 429)


@given(ANYTHING)
def test_whatever_says_what_it_is_is_understood_or_refused(answer):
    with pytest.raises(ServerFault):
        read_identity(answer)


def test_what_is_asked_is_token_ids_and_logits():
    assert request_of(VLLM, [(1, 2)]) == {"model": "rm", "input": [[1, 2]], "use_activation": False}
    assert request_of(SGLANG, [(1, 2)]) == {"input_ids": [[1, 2]]}


def test_a_score_that_overflows_a_float_is_a_fault():
    with pytest.raises(ServerFault):
        read_scores(SGLANG, json.loads('[{"embedding": [1e999]}]'), 1)


def test_an_integer_beyond_every_float_is_a_fault():
    with pytest.raises(ServerFault, match="a score that is no finite number: 1000"):
        read_scores(VLLM, {"model": "rm", "data": [{"index": 0, "probs": [10**400]}]}, 1)


@pytest.mark.parametrize("depths", [range(1, 1100, 7), range(900, 1000), [100_000]], ids=["all", "the limit", "far"])
def test_lists_within_lists_are_a_fault_at_every_depth(depths):
    """Near Python's limit some can be read and not be written again."""
    for depth in depths:
        for read in (lambda answer: read_scores(SGLANG, answer, 1), read_identity):
            with pytest.raises(ServerFault):
                read(read_json(200, "[" * depth + "]" * depth))
        with pytest.raises(ServerFault):
            read_json(200, "[" * depth)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9).map(tuple), max_size=12), st.integers(1, 20))
def test_requests_hold_every_row_once_within_the_budget(rows, budget):
    requests = cut_requests(rows, budget)
    assert sorted(row for request in requests for row in request) == list(range(len(rows)))
    assert all(len(request) == 1 or sum(len(rows[row]) for row in request) <= budget for request in requests)


SECRET = st.text(ascii_letters + "/:@?#,; ", min_size=1, max_size=8).map(lambda text: f"Zq{text}qZ")


@given(SECRET, st.sampled_from(["http://me:{}@judge:8001", "me:{}@judge", "http://a:1,http://{}@b:2", "ftp://{}@b"]))
def test_no_password_is_shown(secret, form):
    given_url = form.format(secret)
    shown = without_secrets(given_url)
    assert "Zq" not in shown
    with pytest.raises(InputError) as error:
        server_urls(given_url)
    assert "Zq" not in str(error.value)
    assert "qZ" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("judge:8001", "Begin with http:// or https://"),
        ("", "Begin with http:// or https://"),
        ("http://", "Begin with http:// or https://"),
        ("http://judge:eight", "cannot be read"),
        ("http://judge:8001/classify", "Leave out the path"),
        ("http://judge:8001/v1", "Leave out the path"),
        ("http://judge:8001?key=sesame", "Leave out what follows"),
        ("http://judge:8001,http://judge:8001/", "is given once"),
        ("http://judge:8001,", "Begin with http:// or https://"),
    ],
)
def test_what_is_no_address_is_refused(url, said):
    with pytest.raises(InputError, match=said) as error:
        server_urls(url)
    assert "sesame" not in str(error.value)


def test_a_placement_and_an_address_go_together():
    assert asked_servers("server", ["http://a:1"]) == ["http://a:1"]
    with pytest.raises(InputError, match="needs the server's address"):
        asked_servers("server", None)
    with pytest.raises(InputError, match="but its placement is 'streamed'"):
        asked_servers("streamed", "http://a:1")
