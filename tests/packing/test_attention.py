"""Who sees whom in a packed row, without a model; torch's varlen kernel is played by its documented meaning."""

import functools
import math

import pytest
import torch

from trl_hybrid.packing import attention
from trl_hybrid.packing.attention import kernel_options, packed_attention, varlen_options
from trl_hybrid.reward_model.packed_rows import pack_rows
from trl_hybrid.reward_model.plan import Family


HEADS, KEY_HEADS, SIZE = 4, 2, 8
ROWS = [tuple(range(30)), (*range(20), 50, 51, 52), (*range(20), 60), (1, 2, 3), (4,)]
BATCH = [Family(0, (4,)), Family(20, (1, 0, 2)), Family(0, (3,))]


def flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, causal, scale):
    """Flash attention's kernel for rows of varied length: a causal edge is at the end of the keys."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
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
        if causal:
            seen = seen.tril(len(k) - len(q))
        parts.append(attend(q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1), seen, scale))
    return torch.cat(parts)


# The signatures of `torch.nn.attention.varlen.varlen_attn`, and what each makes of its arguments.
def torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    return flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal, None)


def torch_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    return flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size == (-1, 0), scale)


def torch_2_12(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1),
    enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError("Expect query and key/value to have the same number of heads")
    return flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size == (-1, 0), scale)


def without_causal(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None):
    return flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, False, scale)


KERNELS = {"torch 2.10": torch_2_10, "torch 2.11": torch_2_11, "torch 2.12 to 2.14": torch_2_12}


def attend(query, key, value, seen, scale):
    """Plain attention of (tokens, heads, D) tensors."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    products = torch.einsum("qhd,khd->hqk", query, key) * scale
    return torch.einsum("hqk,khd->qhd", products.masked_fill(~seen, -math.inf).softmax(-1), value)


@pytest.fixture(params=["in blocks", "in blocks, as on a GPU", *KERNELS])
def path(request, monkeypatch):
    """A way to attend, and how often its kernel was called."""
    calls = []
    if request.param == "in blocks, as on a GPU":
        monkeypatch.setattr(attention, "TAKES_GROUPED_KEYS", ())
        attend_once = attention.F.scaled_dot_product_attention

        def efficient(query, key, value, *, enable_gqa, **more):
            """As the one kernel that takes masks and fp32 there: no grouped keys."""
            assert query.shape[1] == key.shape[1] == value.shape[1]
            assert not enable_gqa
            return attend_once(query, key, value, **more)

        monkeypatch.setattr(attention.F, "scaled_dot_product_attention", efficient)
    if request.param in KERNELS:
        kernel = KERNELS[request.param]

        @functools.wraps(kernel)
        def counted(*args, **kwargs):
            calls.append(kwargs)
            return kernel(*args, **kwargs)

        def on_any_device(device, dtype, size, scaling):
            assert (device, dtype) == (torch.device("cpu"), torch.float32)
            return varlen_options(counted, size, scaling)

        monkeypatch.setattr(attention, "varlen_attn", counted)
        monkeypatch.setattr(attention, "kernel_options", on_any_device)
    return request.param, calls


@pytest.mark.parametrize("scaling", [None, SIZE**-0.5, 0.7])
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
    way, calls = path
    # The kernel of torch 2.10 knows no other scaling than 1 / sqrt(D).
    assert len(calls) == (way in KERNELS and not (way == "torch 2.10" and scaling == 0.7))
    # The packed row: row 4; the start of 20 and the ends 3, 10 and 1 of the rows 1, 0 and 2; row 3.
    rows = [[0], [*range(1, 21), 21, 22, 23], [*range(1, 21), *range(24, 34)], [*range(1, 21), 34], [35, 36, 37]]
    repeats = HEADS // KEY_HEADS
    for places in rows:
        q, k, v = (tensor[0].transpose(0, 1)[places] for tensor in (query, key, value))
        seen = torch.ones(len(places), len(places), dtype=torch.bool).tril()
        expected = attend(q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1), seen, scaling)
        torch.testing.assert_close(out[0, places], expected, atol=1e-5, rtol=1e-5)


def test_a_shared_start_is_seen_in_half_precision_too(monkeypatch):
    attend_once = attention.F.scaled_dot_product_attention

    def strict(query, key, value, attn_mask=None, **more):
        """As on a GPU, which refuses masks of another type."""
        assert attn_mask is None or attn_mask.dtype == query.dtype
        return attend_once(query, key, value, attn_mask=attn_mask, **more)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", strict)
    torch.manual_seed(0)
    packed = pack_rows(ROWS, BATCH)
    query = torch.randn(1, HEADS, len(packed.ids), SIZE)
    key, value = torch.randn(2, 1, KEY_HEADS, len(packed.ids), SIZE)
    whole, half = (
        packed_attention(torch.nn.Identity(), *(t.to(dtype) for t in (query, key, value)), None, None, packed.segments)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half[0].dtype == torch.bfloat16
    torch.testing.assert_close(half[0].float(), whole[0], atol=0.05, rtol=0.05)


def test_everything_that_attention_needs_moves_with_the_rows():
    packed = pack_rows(ROWS, BATCH).to(torch.device("meta"))
    segments = packed.segments
    moved = [packed.ids, packed.positions, packed.last, segments.query_ends, segments.key_ends, segments.key_index]
    assert {tensor.device.type for tensor in moved} == {"meta"}


@pytest.mark.parametrize(
    ("kernel", "scaling", "expected"),
    [
        (torch_2_10, None, {"is_causal": True}),
        (torch_2_10, 64**-0.5, {"is_causal": True}),
        (torch_2_10, 0.5, None),
        (torch_2_11, 0.5, {"window_size": (-1, 0), "scale": 0.5}),
        (torch_2_12, 0.5, {"window_size": (-1, 0), "scale": 0.5, "enable_gqa": True}),
        (without_causal, None, None),
    ],
)
def test_each_torch_version_is_asked_in_its_own_words(kernel, scaling, expected):
    assert varlen_options(kernel, 64, scaling) == expected


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"dtype": torch.float16}, True),
        ({"size": 256}, True),
        ({"dtype": torch.float32}, False),
        ({"size": 264}, False),
        ({"size": 100}, False),
        ({"device": "cpu"}, False),
        ({"capability": (7, 5)}, False),
    ],
)
def test_the_kernel_is_used_where_flash_attention_runs(monkeypatch, kernel, change, fits):
    case = {"device": "cuda:1", "dtype": torch.bfloat16, "size": 128, "capability": (8, 0), **change}
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    capability = {"cuda:1": case["capability"]}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[str(device)])
    scaling = case["size"] ** -0.5
    options = kernel_options(torch.device(case["device"]), case["dtype"], case["size"], scaling)
    assert options == (varlen_options(kernel, case["size"], scaling) if fits else None)


def test_without_a_kernel_segments_are_attended_in_blocks(monkeypatch):
    monkeypatch.setattr(attention, "varlen_attn", None)  # as before torch 2.10
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert kernel_options(torch.device("cuda"), torch.bfloat16, 128) is None


def test_the_installed_torch_takes_what_it_is_given(monkeypatch):
    """On the meta device the kernel checks its arguments and gives a tensor of the right shape."""
    if attention.varlen_attn is None:
        pytest.skip("torch has no varlen attention before 2.10")
    options = varlen_options(attention.varlen_attn, SIZE, SIZE**-0.5)
    assert options is not None
    monkeypatch.setattr(attention, "kernel_options", lambda *case: options)
    packed = pack_rows(ROWS, BATCH).to(torch.device("meta"))
    tokens = len(packed.ids)
    query = torch.empty(1, HEADS, tokens, SIZE, device="meta", dtype=torch.bfloat16)
    key, value = torch.empty(2, 1, KEY_HEADS, tokens, SIZE, device="meta", dtype=torch.bfloat16)
    out, _ = packed_attention(torch.nn.Identity(), query, key, value, None, scaling=0.5, packing=packed.segments)
    assert out.shape == (1, tokens, HEADS, SIZE)
