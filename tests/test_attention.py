"""cuDNN's attention is off before anything is trained."""

import runpy
import sys
from pathlib import Path

import pytest
import torch


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
