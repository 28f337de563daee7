"""How segments are laid out in blocks, and that attention over blocks is attention over each one, gradients too."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_hybrid.packing.attention import packed_attention
from trl_hybrid.packing.segments import WASTED_PAIRS, Block, Segments, cut_blocks


LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, wasted=st.integers(0, 3000))
def test_every_segment_is_in_one_block_that_wastes_no_more_than_is_allowed(lengths, wasted):
    blocks = cut_blocks(lengths, wasted)
    assert sorted(segment for block in blocks for segment in block.segments) == list(range(len(lengths)))
    for block in blocks:
        members = [lengths[segment] for segment in block.segments]
        assert block.queries == max(queries for queries, _ in members)
        assert block.shared == max(shared for _, shared in members)
        assert len({shared > 0 for _, shared in members}) == 1
        pairs = sum(queries * (queries + shared) for queries, shared in members)
        assert len(members) * block.queries * (block.queries + block.shared) - pairs <= wasted


def test_equal_segments_are_one_block_without_waste():
    assert cut_blocks([(5, 7)] * 3, wasted_pairs=0) == [Block((0, 1, 2), 5, 7)]


def random_segments(draw_starts):
    """Lay out starts with the segments that follow each: [(start length, [own lengths])]; a start of 0 is none."""
    own, shared, end = [], [], 0

    def add(length, start):
        nonlocal end
        own.append((end, end + length))
        shared.append(start)
        end += length

    for start_length, members in draw_starts:
        start = (end, end + start_length)
        if start_length:
            add(start_length, (0, 0))
        for length in members:
            add(length, start if start_length else (0, 0))
    return Segments(tuple(own), tuple(shared), torch.device("cpu"))


def one_by_one(query, key, value, segments):
    """Plain attention of each segment over the keys that it sees, as the documentation says."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, 1) for tensor in (key, value))
    parts = []
    for (begin, end), (first, stop) in segments:
        places = [*range(first, stop), *range(begin, end)]
        products = query[0, :, begin:end] @ key[0, :, places].transpose(1, 2) / math.sqrt(query.shape[-1])
        seen = torch.ones(end - begin, len(places), dtype=torch.bool).tril(stop - first)
        parts.append(products.masked_fill(~seen, -math.inf).softmax(-1) @ value[0, :, places])
    return torch.cat(parts, dim=1).transpose(0, 1)[None]


@settings(max_examples=60, deadline=None)
@given(
    starts=st.lists(
        st.tuples(st.integers(0, 12), st.lists(st.integers(1, 12), min_size=1, max_size=5)), min_size=1, max_size=5
    ),
    wasted=st.sampled_from([0, 100, 100_000]),
    seed=st.integers(0, 2**16),
)
def test_attention_and_its_gradients_are_those_of_each_segment_alone(starts, wasted, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WASTED_PAIRS, "cpu", wasted)
        segments = random_segments(starts)
        torch.manual_seed(seed)
        tokens = segments.own[-1][1]
        query = torch.randn(1, 4, tokens, 8, dtype=torch.float64, requires_grad=True)
        key, value = (torch.randn(1, 2, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
        found, _ = packed_attention(torch.nn.Identity(), query, key, value, None, packing=segments)
        expected = one_by_one(query, key, value, segments)
        torch.testing.assert_close(found, expected)
        weights = torch.randn_like(found)
        for mine, theirs in zip(
            torch.autograd.grad((found * weights).sum(), (query, key, value)),
            torch.autograd.grad((expected * weights).sum(), (query, key, value)),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs)
