from itertools import chain, combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.reward_model.plan import (
    Family,
    common_start,
    cut_batches,
    deduplicate,
    family_tokens,
    pack,
    rows_of,
    share_starts,
)


ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), max_size=30)
DISTINCT_ROWS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5).map(tuple), max_size=7, unique=True)
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


@pytest.mark.parametrize(
    ("padding_budget", "batches"),
    [
        (0, [[0], [1], [2], [3], [4], [5]]),
        (1, [[0, 1], [2, 3], [4, 5]]),
        (2, [[0, 1], [2, 3], [4, 5]]),
        (3, [[0, 1, 2], [3, 4, 5]]),  # 1 + 2 tokens of padding to 10, and to 7
        (5, [[0, 1, 2], [3, 4, 5]]),
        (6, [[0, 1, 2, 3], [4, 5]]),
        (15, [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_padding_counts_from_each_batchs_longest_row(padding_budget, batches):
    assert cut_batches([10, 9, 8, 7, 6, 5], token_budget=1000, padding_budget=padding_budget) == batches


def test_fewer_than_16_tokens_are_not_worth_sharing_unless_said():
    def rows(shared):
        return [(*range(shared), 100), (*range(shared), 200)]

    assert share_starts(rows(16), token_budget=1000) == [Family(16, (0, 1))]
    assert share_starts(rows(15), token_budget=1000) == [Family(0, (0,)), Family(0, (1,))]
    assert share_starts(rows(3), token_budget=1000, least=3) == [Family(3, (0, 1))]
    # Not even where none are asked for: two rows that share nothing are no family.
    assert share_starts(rows(0), token_budget=1000, least=0) == [Family(0, (0,)), Family(0, (1,))]


@given(DISTINCT_ROWS, st.integers(1, 20), st.integers(1, 3))
def test_families_hold_every_row_once_within_the_budget_and_leave_each_a_token_of_its_own(rows, token_budget, least):
    families = share_starts(rows, token_budget, least)
    assert sorted(row for family in families for row in family.rows) == list(range(len(rows)))
    for family in families:
        members = [rows[row] for row in family.rows]
        assert len({member[: family.shared] for member in members}) == 1
        assert family.shared < min(map(len, members))
        if len(members) > 1:
            assert family.shared >= least
            assert family_tokens(family, [len(row) for row in rows]) <= token_budget
        else:
            assert family.shared == 0


def tokens_of_run(rows):
    """Count one run's tokens by looking at every position."""
    shared = 0
    if len(rows) > 1:
        while shared < min(map(len, rows)) - 1 and len({row[: shared + 1] for row in rows}) == 1:
            shared += 1
    return sum(map(len, rows)) - shared * (len(rows) - 1)


@given(DISTINCT_ROWS)
def test_no_other_cut_of_the_sorted_rows_computes_fewer_tokens(rows):
    families = share_starts(rows, token_budget=1000, least=1)
    ordered = sorted(rows)
    fewest = min(
        sum(tokens_of_run(ordered[begin:end]) for begin, end in pairwise([0, *cuts, len(rows)]))
        for number in range(max(1, len(rows)))
        for cuts in combinations(range(1, len(rows)), number)
    )
    assert sum(family_tokens(family, [len(row) for row in rows]) for family in families) == fewest


def test_the_prompts_of_a_batch_are_shared_and_not_the_system_prompt_before_them():
    system, one, two = tuple(range(20)), tuple(range(100, 140)), tuple(range(200, 240))
    rows = [(*system, *one, 1, 2), (*system, *two, 3), (*system, *one, 4), (*system, *two, 5, 6, 7)]
    assert sorted(share_starts(rows, token_budget=1000), key=lambda family: family.rows) == [
        Family(60, (0, 2)),
        Family(60, (1, 3)),
    ]


def test_a_family_larger_than_the_budget_is_parted():
    # Eight rows of 30 + 5 tokens: at most three of them (30 + 15) stay within 45 tokens.
    rows = [(*range(30), 100 + number, 1, 1, 1, 1) for number in range(8)]
    families = share_starts(rows, token_budget=45)
    assert sorted(len(family.rows) for family in families) == [2, 3, 3]


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100))
def test_packs_hold_every_family_once_within_the_budget(lengths, token_budget):
    families = [Family(0, (row,)) for row in range(len(lengths))]
    batches = pack(families, lengths, token_budget)
    assert sorted(chain.from_iterable(map(rows_of, batches))) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[row] for row in rows_of(batch)) <= token_budget
    # First fit leaves at most one batch half empty.
    assert sum(2 * sum(lengths[row] for row in rows_of(batch)) <= token_budget for batch in batches) <= 1


@given(st.lists(st.integers(0, 1), max_size=12), st.lists(st.integers(0, 1), max_size=12))
def test_common_start_by_counting(first, second):
    count = 0
    while count < min(len(first), len(second)) and first[count] == second[count]:
        count += 1
    assert common_start(first, second) == count
