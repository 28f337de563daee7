import json
import math
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.reward_model.plan import ScoreCache, cut_batches, deduplicate


ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), max_size=30)
LENGTHS = st.lists(st.integers(1, 300), max_size=60)


@given(ROWS)
def test_distinct_rows_restore_all_rows_in_order(rows):
    distinct, index = deduplicate(rows)
    assert len(set(distinct)) == len(distinct)
    assert [distinct[slot] for slot in index] == rows


@given(LENGTHS, st.integers(1, 1000), st.none() | st.integers(0, 500))
def test_every_row_is_in_one_batch_within_both_budgets(lengths, token_budget, padding_budget):
    batches = cut_batches(lengths, token_budget, padding_budget)
    assert sorted(chain.from_iterable(batches)) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or longest * len(batch) <= token_budget
        assert padding_budget is None or longest * len(batch) - sum(lengths[row] for row in batch) <= padding_budget


@given(LENGTHS, st.integers(1, 1000))
def test_batches_go_from_long_to_short(lengths, token_budget):
    order = [lengths[row] for row in chain.from_iterable(cut_batches(lengths, token_budget))]
    assert order == sorted(lengths, reverse=True)


def test_a_row_longer_than_the_budget_goes_alone():
    assert cut_batches([5, 500, 4], token_budget=10) == [[1], [0, 2]]


def test_equal_rows_fill_the_budget():
    # 10 rows of 8 tokens: 3 to a forward of at most 24 tokens.
    assert [len(batch) for batch in cut_batches([8] * 10, token_budget=24)] == [3, 3, 3, 1]


def test_cache_forgets_what_was_used_longest_ago():
    cache = ScoreCache(size=2)
    cache.put((1,), 1.0)
    cache.put((2,), 2.0)
    assert cache.get((1,)) == 1.0
    cache.put((3,), 3.0)
    assert [cache.get((token,)) for token in (1, 2, 3)] == [1.0, None, 3.0]
    assert len(cache) == 2


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_cache_keeps_no_score_that_is_not_finite(score):
    cache = ScoreCache(size=2)
    cache.put((1,), score)
    assert cache.get((1,)) is None


def test_cache_of_size_zero_remembers_nothing():
    cache = ScoreCache(size=0)
    cache.put((1,), 1.0)
    assert cache.get((1,)) is None


def test_cache_of_negative_size_is_refused():
    with pytest.raises(ValueError, match="size=-1"):
        ScoreCache(size=-1)


def test_rows_that_differ_only_in_where_tokens_end_are_distinct():
    cache = ScoreCache(size=4)
    cache.put((1, 0), 1.0)
    assert cache.get((1,)) is None
    assert cache.get((256,)) is None


def test_a_saved_cache_keeps_scores_and_order():
    cache = ScoreCache(size=3)
    for token in (1, 2, 3):
        cache.put((token,), token / 7)
    restored = ScoreCache(size=2)
    restored.load_state_dict(json.loads(json.dumps(cache.state_dict())))
    assert [restored.get((token,)) for token in (1, 2, 3)] == [None, 2 / 7, 3 / 7]
    empty = ScoreCache(size=0)
    empty.load_state_dict(cache.state_dict())
    assert len(empty) == 0
