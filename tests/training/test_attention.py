"""cuDNN's attention is off before anything is trained."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from trl_hybrid.training.attention import turn_off_cudnn_attention


@pytest.mark.parametrize("recipe", sorted(Path("recipes").glob("tinyllama_*.py")), ids=lambda recipe: recipe.stem)
def test_training_recipes_turn_cudnns_attention_off_before_anything_else(recipe, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(recipe), "--help"])
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        with pytest.raises(SystemExit):
            runpy.run_path(str(recipe), run_name="__main__")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="kernels are a GPU's")
@pytest.mark.parametrize("length", [192, 448, 704])  # each leaves 64 when divided by 128
def test_gradients_are_finite_where_cudnns_backward_is_not(length):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        turn_off_cudnn_attention()
        torch.manual_seed(0)
        shape = (2, 32, length, 64)
        query, key, value = (
            torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in "qkv"
        )
        mask = torch.ones(length, length, device="cuda", dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)
        mask[0, :, :, :40] = False  # padding on the left, as prompts of unequal length have it
        mask[0, :, :40, :40] |= torch.eye(40, device="cuda", dtype=torch.bool)
        attended = torch.nn.functional.scaled_dot_product_attention(query * 30, -key.abs() * 30, value, attn_mask=mask)
        attended.square().mean().backward()
        assert all(tensor.grad.isfinite().all() for tensor in (query, key, value))
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
