"""Who sees whom in a packed row, without a model; torch's varlen kernel is played by its documented meaning."""

import math

import pytest
import torch

from trl_hybrid.reward_model import packing
from trl_hybrid.reward_model.packing import pack_rows, packed_attention
from trl_hybrid.reward_model.plan import Family


HEADS, KEY_HEADS, SIZE = 4, 2, 8
ROWS = [tuple(range(30)), (*range(20), 50, 51, 52), (*range(20), 60), (1, 2, 3), (4,)]
BATCH = [Family(0, (4,)), Family(20, (1, 0, 2)), Family(0, (3,))]


def varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
    """`torch.nn.attention.varlen.varlen_attn` as flash attention does it: a causal edge is at the end of the keys."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert query.shape[1] == key.shape[1] or enable_gqa
    assert [cu_seq_q[-1], cu_seq_k[-1]] == [len(query), len(key)]
    assert len(key) == len(value)
    assert [max_q, max_k] == [cu_seq_q.diff().max(), cu_seq_k.diff().max()]
    parts = []
    for q, k, v in zip(
        query.split(cu_seq_q.diff().tolist()),
        key.split(cu_seq_k.diff().tolist()),
        value.split(cu_seq_k.diff().tolist()),
        strict=True,
    ):
        repeats = q.shape[1] // k.shape[1]
        seen = torch.ones(len(q), len(k), dtype=torch.bool)
        if window_size == (-1, 0):
            seen = seen.tril(len(k) - len(q))
        parts.append(attend(q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1), seen, scale))
    return torch.cat(parts)


def attend(query, key, value, seen, scale):
    """Plain attention of (tokens, heads, D) tensors."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    products = torch.einsum("qhd,khd->hqk", query, key) * scale
    return torch.einsum("hqk,khd->qhd", products.masked_fill(~seen, -math.inf).softmax(-1), value)


@pytest.fixture(params=["segment by segment", "varlen"])
def path(request, monkeypatch):
    if request.param == "varlen":
        monkeypatch.setattr(packing, "_has_varlen_kernel", lambda query: True)
        monkeypatch.setattr(packing, "varlen_attn", varlen)


@pytest.mark.parametrize("scaling", [None, 0.7])
def test_each_row_sees_itself_up_to_each_token(path, scaling):
    torch.manual_seed(0)
    packed = pack_rows(ROWS, BATCH)
    tokens = len(packed.ids)
    query = torch.randn(1, HEADS, tokens, SIZE)
    key, value = torch.randn(2, 1, KEY_HEADS, tokens, SIZE)
    out, weights = packed_attention(
        torch.nn.Identity(), query, key, value, None, scaling=scaling, packing=packed.segments
    )
    assert weights is None
    # The packed row: row 4; the start of 20 and the ends 3, 10 and 1 of the rows 1, 0 and 2; row 3.
    rows = [[0], [*range(1, 21), 21, 22, 23], [*range(1, 21), *range(24, 34)], [*range(1, 21), 34], [35, 36, 37]]
    repeats = HEADS // KEY_HEADS
    for places in rows:
        q, k, v = (tensor[0].transpose(0, 1)[places] for tensor in (query, key, value))
        seen = torch.ones(len(places), len(places), dtype=torch.bool).tril()
        expected = attend(q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1), seen, scaling)
        torch.testing.assert_close(out[0, places], expected, atol=1e-5, rtol=1e-5)


def test_everything_that_attention_needs_moves_with_the_rows():
    packed = pack_rows(ROWS, BATCH).to(torch.device("meta"))
    segments = packed.segments
    moved = [packed.ids, packed.positions, packed.last, segments.query_ends, segments.key_ends, segments.key_index]
    assert {tensor.device.type for tensor in moved} == {"meta"}
