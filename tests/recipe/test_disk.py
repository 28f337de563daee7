"""A run that the disk has no room for, or whose folder cannot be written to, does not start."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.errors import InputError
from trl_hybrid.memory.training import describe_policy
from trl_hybrid.recipe.disk import BESIDE_BYTES, check_room, check_writable, run_bytes


WEIGHTS = 3_275_264
"""Of the embedded policy, in bytes: fp32."""


@pytest.fixture
def free(monkeypatch):
    def say(bytes_free):
        def disk_usage(place):
            assert Path(place).is_dir()
            return SimpleNamespace(free=bytes_free)

        monkeypatch.setattr(shutil, "disk_usage", disk_usage)

    return say


def policy(**lora):
    config = AutoConfig.from_pretrained("data/embedded_policy")
    return describe_policy(config, torch.float32, LoraConfig(**lora, task_type="CAUSAL_LM") if lora else None)


def kept(steps=10, whole=None, **settings):
    args = HybridGRPOConfig("unused", use_cpu=True, report_to="none", **settings)
    return run_bytes(whole or policy(), args, steps) - BESIDE_BYTES


def test_all_weights_with_their_two_moments():
    weights = policy().weight_bytes
    assert weights == pytest.approx(WEIGHTS, rel=0.02)
    # The trained model, and checkpoints of weights and twice as much: one more than are kept, as the oldest goes last.
    assert kept(save_steps=1, save_total_limit=2) == weights + 3 * 3 * weights
    # Ten steps, saved after 4, 8 and 10.
    assert kept(save_steps=4) == kept(save_steps=0.4) == weights + 3 * 3 * weights
    assert kept(save_steps=20, save_total_limit=5) == weights + 3 * weights
    assert kept(save_steps=10, save_only_model=True) == weights + weights
    assert kept(save_steps=10, optim="sgd") == weights + weights
    assert kept(save_strategy="no") == weights
    assert kept(save_strategy="epoch", num_train_epochs=2) == weights + 2 * 3 * weights
    assert kept(steps=None, save_steps=5, save_total_limit=2) == weights + 2 * 3 * weights
    assert kept(steps=None, save_steps=5) == weights + 3 * weights
    # Moments of one byte each; a reference model that moves travels along.
    assert kept(save_steps=10, optim="adamw_bnb_8bit") == weights + weights + 2 * policy().trained_parameters
    assert kept(save_steps=10, beta=0.1, sync_ref_model=True) == weights + 3 * weights + weights


@pytest.mark.parametrize(
    ("strategy", "optim", "copies"), [("steps", "adamw", 4), ("steps", "sgd", 2), ("no", "sgd", 1)]
)
def test_settings_of_another_trainer_may_be_plain_words(strategy, optim, copies):
    args = SimpleNamespace(
        save_strategy=strategy, save_steps=10, save_total_limit=None, save_only_model=False, optim=optim,
        num_train_epochs=1,
    )  # fmt: skip
    assert run_bytes(policy(), args, 10) - BESIDE_BYTES == copies * policy().weight_bytes


def test_an_adapter_is_saved_without_its_base():
    # Rank 4 on the query projections: four layers, two matrices of 4 x 128, fp32.
    adapter = policy(r=4, target_modules=["q_proj"])
    assert adapter.trained_bytes == 4 * 2 * 4 * 128 * 4
    assert kept(save_steps=10, whole=adapter) == 4 * adapter.trained_bytes


def test_too_little_room_is_said_with_both_sizes(tmp_path, free):
    free(2 * 10**9)
    check_room(tmp_path, 2 * 10**9)
    with pytest.raises(InputError, match=r"write about 3\.0 GB .*, and 2\.0 GB are free.*save_total_limit"):
        check_room(tmp_path / "not" / "there", 3 * 10**9)


def test_what_a_run_has_written_counts_when_it_goes_on(tmp_path, free):
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "model.safetensors").write_bytes(bytes(400))
    free(600)
    check_room(tmp_path, 1000, resumed=True)
    with pytest.raises(InputError):
        check_room(tmp_path, 1000)
    with pytest.raises(InputError):
        check_room(tmp_path, 1001, resumed=True)


def test_folder_that_cannot_be_written_to(tmp_path):
    check_writable(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=r"'/proc/run' must be one that can be .*'/proc' is not .*output_dir"):
        check_writable(Path("/proc/run"))
