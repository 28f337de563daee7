"""What is said of a GPU's attention, on GPUs that are played."""

import pytest
import torch

from trl_hybrid.checks.machine import check_machine
from trl_hybrid.packing import attention
from trl_hybrid.training.attention import prefers_cudnn_attention, turn_off_cudnn_attention


@pytest.fixture
def cudnn():
    """Restore whether cuDNN's attention is on; it is, unless somebody turns it off."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.fixture
def gpu(monkeypatch, cudnn):
    """Play a GPU of a compute capability."""

    def play(capability, torch_has_cudnn=True):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (70 * 10**9, 80 * 10**9))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU of the play")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: torch_has_cudnn)

    return play


def said(status):
    return "\n".join(finding.text for finding in check_machine() if finding.status == status)


@pytest.mark.parametrize(("capability", "preferred"), [((9, 0), True), ((10, 0), True), ((8, 0), False)])
def test_where_torch_prefers_cudnns_attention_the_way_out_is_said(gpu, capability, preferred):
    gpu(capability)
    assert ("call trl_hybrid.training.attention.turn_off_cudnn_attention()" in said("note")) is preferred
    assert prefers_cudnn_attention() is preferred
    turn_off_cudnn_attention()
    assert "cuDNN" not in said("note")


def test_a_torch_without_cudnn_does_not_prefer_it(gpu):
    gpu((9, 0), torch_has_cudnn=False)
    assert not prefers_cudnn_attention()


def test_how_packed_rows_are_attended_is_said(gpu, monkeypatch):
    monkeypatch.setattr(attention, "varlen_attn", lambda query, key, value, *, window_size: None)
    gpu((8, 0))
    assert "GPU 0: packed rows are scored with torch's varlen attention" in said("ok")
    gpu((7, 5))
    assert "one attention call each" in said("note")
    assert "varlen" not in said("ok")
