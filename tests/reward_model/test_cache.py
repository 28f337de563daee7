import json
import math

import pytest

from trl_hybrid.reward_model.cache import ScoreCache


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
