"""Rows that share prompts as one packed row: by hand, and back again."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_hybrid.training.shared_rows import IGNORED, lay_out, read_rows


CPU = torch.device("cpu")


def test_a_shared_prompt_comes_once_and_its_last_token_before_each_completion():
    rows = [([1, 2, 3], [7, 8]), ([4], [9]), ([1, 2, 3], [6]), ([1, 2, 3], [])]
    packed = lay_out(rows, width=3, device=CPU)
    assert packed is not None
    #                              1  2 | 3  7 | 3 | 4
    assert packed.ids.tolist() == [[1, 2, 3, 7, 3, 4]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 2, 0]]
    assert packed.labels.tolist() == [[IGNORED, IGNORED, 7, 8, 6, 9]]
    assert packed.segments.own == ((0, 2), (2, 4), (4, 5), (5, 6))
    assert packed.segments.shared[1:3] == ((0, 2), (0, 2))
    assert [stop - first for first, stop in packed.segments.shared] == [0, 2, 2, 0]
    values = torch.tensor([[0.0, 0.0, 10.0, 20.0, 30.0, 40.0]])
    assert packed.spread(values, rows=4, width=3).tolist() == [[10, 20, 0], [40, 0, 0], [30, 0, 0], [0, 0, 0]]


def test_a_prompt_of_one_token_is_repeated_and_nothing_is_shared():
    packed = lay_out([([5], [1, 2]), ([5], [3])], width=2, device=CPU)
    assert packed is not None
    assert packed.ids.tolist() == [[5, 1, 5]]
    assert packed.positions.tolist() == [[0, 1, 0]]
    assert all(first == stop for first, stop in packed.segments.shared)


def test_a_prompt_that_one_row_has_alone_is_one_segment():
    packed = lay_out([([5, 6], [1, 2])], width=2, device=CPU)
    assert packed is not None
    assert packed.ids.tolist() == [[5, 6, 1]]
    assert packed.labels.tolist() == [[IGNORED, 1, 2]]
    assert packed.segments.own == ((0, 3),)


def test_rows_without_a_completion_are_no_packed_row():
    assert lay_out([([1], []), ([2], [])], width=4, device=CPU) is None


def test_padding_is_taken_off_where_trl_puts_it():
    ids = torch.tensor([[0, 0, 1, 2, 7, 0], [3, 4, 5, 6, 8, 9]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    assert read_rows(ids, mask, width=2) == [([1, 2], [7]), ([3, 4, 5, 6], [8, 9])]


def test_padding_elsewhere_and_an_empty_prompt_are_not_taken():
    ids = torch.ones(1, 4, dtype=torch.long)
    for mask in ([1, 0, 1, 1], [1, 1, 0, 1], [0, 0, 1, 1]):
        assert read_rows(ids, torch.tensor([mask]), width=2) is None


ROWS = st.lists(
    st.tuples(st.sampled_from([(1,), (1, 2), (1, 2, 3), (9, 9)]), st.lists(st.integers(0, 50), max_size=6)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS)
def test_every_completion_token_is_predicted_once_from_what_comes_before_it(rows):
    rows = [(list(prompt), completion) for prompt, completion in rows]
    packed = lay_out(rows, width=6, device=CPU)
    tokens = sum(len(completion) for _, completion in rows)
    if packed is None:
        assert tokens == 0
        return
    assert len(set(packed.target.tolist())) == len(set(packed.source.tolist())) == tokens
    ids, positions, labels = (tensor[0].tolist() for tensor in (packed.ids, packed.positions, packed.labels))
    spans = list(packed.segments)
    for source, target in zip(packed.source.tolist(), packed.target.tolist(), strict=True):
        row, offset = divmod(target, 6)
        prompt, completion = rows[row]
        (begin, _), (first, stop) = next(span for span in spans if span[0][0] <= source < span[0][1])
        seen = [*range(first, stop), *range(begin, source + 1)]
        assert [ids[place] for place in seen] == prompt + completion[:offset]
        assert [positions[place] for place in seen] == list(range(len(seen)))
        assert labels[source] == completion[offset]
