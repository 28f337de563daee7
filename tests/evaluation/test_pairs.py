"""Pairs of a right and a wrong answer: distinct, of one problem, and of which length says nothing."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.evaluation.pairs import (
    Answer,
    Pair,
    balance_lengths,
    choose_pairs,
    distinct_samples,
    merge_answers,
    split_problems,
)


def answer(length, right, mark=0):
    return Answer((mark, *range(1, length)), right)


def pair(right, wrong, mark=0):
    return Pair(answer(right, True, mark), answer(wrong, False, mark))


def sample(text, correct=True, truncated=False):
    return {"completion": text, "correct": correct, "truncated": truncated}


def test_equal_answers_are_one_and_one_that_was_cut_off_is_another():
    samples = [sample("a b"), sample(" a\nb ", correct=False), sample("a b", truncated=True), sample("c", None)]
    assert distinct_samples(samples) == [samples[0], samples[2]]


def test_answers_of_several_policies_to_one_problem_are_gathered_whatever_they_were_told():
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    first = [
        {"prompt": told[1:], "solution": "2", "samples": [1]},
        {"prompt": "2 + 2?", "solution": "4", "samples": [2]},
    ]
    second = [{"prompt": told, "solution": "2", "samples": [3]}, {"prompt": told, "solution": "two", "samples": [4]}]
    assert [row["samples"] for row in merge_answers([first, second])] == [[1, 3], [2], [4]]
    assert first[0]["samples"] == [1]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.floats(0.05, 0.95), st.integers(0, 9))
def test_no_problem_is_on_both_sides(questions, share, seed):
    rows = [{"prompt": str(question), "place": place} for place, question in enumerate(questions)]
    train, held_out = split_problems(rows, share, seed)
    assert {row["prompt"] for row in train}.isdisjoint(row["prompt"] for row in held_out)
    assert sorted(row["place"] for row in train + held_out) == list(range(len(rows)))
    distinct = len(set(questions))
    assert len({row["prompt"] for row in held_out}) == max(1, round(share * distinct))
    assert split_problems(rows, share, seed) == (train, held_out)


def test_pairs_are_of_one_problem_and_both_directions_take_turns():
    """4 right of length 5 and, of wrong ones, 6 longer and 2 shorter: 24 and 8 pairs. Of 8, 4 are of each kind."""
    group = [answer(5, True, m) for m in range(4)] + [answer(9, False, m) for m in range(6)]
    group += [answer(3, False, m) for m in range(2)]
    chosen = choose_pairs([group, [answer(4, True, 7)], [answer(4, False, 8)]], most=8, seed=0)
    assert Counter(pair.difference > 0 for pair in chosen) == {True: 4, False: 4}
    assert all(pair.better in group and pair.worse in group for pair in chosen)
    assert len(set(chosen)) == 8
    assert len(choose_pairs([group], most=99, seed=0)) == 32
    assert choose_pairs([group], most=8, seed=1) != chosen


def test_a_near_miss_is_better_than_a_far_one_where_asked_and_never_than_a_right_answer():
    """Distances 1, 1 and 7 are two pairs, beside one a miss with the right answer; one miss is no number."""
    misses = [replace(answer(5, False, mark), distance=far) for mark, far in enumerate((1, 1, 7, None))]
    right = answer(5, True, 9)
    assert {(p.better, p.worse) for p in choose_pairs([[*misses, right]], 99, 0)} == {(right, miss) for miss in misses}
    both = {(p.better, p.worse) for p in choose_pairs([[*misses, right]], 99, 0, near_misses=True)}
    near, same, far, _ = misses
    assert both == {(right, miss) for miss in misses} | {(near, far), (same, far)}


def test_lengths_are_balanced_by_how_much_they_differ():
    """By 4 to 7 tokens: 3 longer, 1 shorter; by 1: 1 shorter and none longer; equal ones stay."""
    longer = [pair(14, 10, mark) for mark in range(3)]
    pairs = [*longer, pair(10, 17), pair(10, 11), pair(10, 10), pair(10, 10, 1)]
    kept = balance_lengths(pairs, seed=0)
    assert [p.difference for p in kept] == [4, -7, 0, 0]
    assert kept[0] in longer


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=60), st.integers(0, 5))
def test_of_balanced_pairs_length_tells_nothing(lengths, seed):
    pairs = [pair(*both, mark) for mark, both in enumerate(lengths)]
    kept = balance_lengths(pairs, seed)
    signs = Counter((p.difference > 0) - (p.difference < 0) for p in kept)
    assert signs[1] == signs[-1]
    sizes = Counter((abs(p.difference).bit_length(), p.difference > 0) for p in kept)
    assert all(count == sizes[size, not longer] for (size, longer), count in sizes.items() if size)
    assert set(kept) <= set(pairs)
