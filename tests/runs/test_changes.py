"""Settings that differ from those of the run that goes on: said, or refused where its checkpoint would not fit."""

import json

import pytest
from run_folders import SETTINGS, changed, checkpoint, save_settings
from trl import ModelConfig

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.errors import InputError
from trl_hybrid.recipe.options import JudgeArguments, TaskArguments
from trl_hybrid.recipe.pair_options import PairArguments
from trl_hybrid.runs.changes import FIXED, NOT_COMPARED, changes_since, check_changes
from trl_hybrid.runs.settings import settings_of, write_settings


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of a run with SETTINGS."""
    save_settings(tmp_path)
    return checkpoint(tmp_path, 2)


def test_the_same_settings_are_no_change(saved, tmp_path):
    assert changes_since(saved, SETTINGS) == {}
    assert changes_since(saved, changed(output_dir=str(tmp_path))) == {}
    assert changes_since(saved, changed(dataset_name="./data/addition")) == {}  # the same folder
    assert changes_since(saved, changed(max_test_rows=None)) == {}  # left to the run, which has 71
    assert changes_since(saved, changed(max_test_rows=40)) == {"max_test_rows": (71, 40)}


def test_what_may_change_is_told_with_both_values(saved):
    changes = changes_since(
        saved, changed(max_steps=8, reward_mode="verifier", dataset_name="openai/gsm8k", hybrid_alpha=0.2)
    )
    assert changes == {
        "dataset_name": ("data/addition", "openai/gsm8k"),
        "max_steps": (6, 8),
        "reward_mode": ("hybrid", "verifier"),
        "hybrid_alpha": (0.1, 0.2),
    }
    check_changes(saved, changes)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lora_r", 8, "lora_r: 16 -> 8"),
        ("lora_alpha", 64, "lora_alpha: 32 -> 64"),
        ("lora_target_modules", ["q_proj"], "lora_target_modules: 'all-linear' -> ['q_proj']"),
        ("use_peft", False, "use_peft: True -> False"),
        ("model_name_or_path", "other/policy", "model_name_or_path: 'data/embedded_policy' -> 'other/policy'"),
        ("reward_model_name_or_path", "other/rm", "reward_model_name_or_path: "),
    ],
)
def test_what_cannot_fit_is_refused_with_both_values(saved, name, value, said):
    with pytest.raises(InputError) as refused:
        check_changes(saved, changes_since(saved, changed(**{name: value, "max_steps": 8})))
    assert said in str(refused.value)
    assert "max_steps" not in str(refused.value)
    assert "output_dir" in str(refused.value)


def test_without_lora_its_settings_do_not_count(saved, tmp_path):
    with pytest.raises(InputError) as refused:
        check_changes(saved, changes_since(saved, changed(use_peft=False, lora_r=8)))
    assert "lora_r" not in str(refused.value)
    save_settings(tmp_path, changed(use_peft=False))
    assert changes_since(saved, changed(use_peft=False, lora_r=8, lora_dropout=0.5)) == {}
    # A run that is to have an adapter now is told all of it.
    assert changes_since(saved, changed(lora_r=8)) == {"use_peft": (False, True), "lora_r": (16, 8)}


def test_each_refusal_has_a_line_of_its_own(saved):
    with pytest.raises(InputError, match=r":\n  lora_r: 16 -> 8 .*\n  lora_alpha: 32 -> 64 "):
        check_changes(saved, changes_since(saved, changed(lora_r=8, lora_alpha=64)))


def test_the_head_of_a_reward_model_keeps_its_learning_rate(tmp_path):
    settings = {**SETTINGS, "pairs": {"head_learning_rate": None}}
    save_settings(tmp_path, settings)
    saved = checkpoint(tmp_path, 2)
    with pytest.raises(InputError, match=r"head_learning_rate: None -> 0\.001 .*optimizer goes on as it was set up"):
        check_changes(saved, changes_since(saved, {**settings, "pairs": {"head_learning_rate": 1e-3}}))


@pytest.mark.parametrize("generation_step", [0, 3])
def test_the_batches_of_a_generation_may_change_only_between_generations(tmp_path, generation_step):
    save_settings(tmp_path)
    saved = checkpoint(tmp_path, 2, generation_step=generation_step)
    changes = changes_since(saved, changed(num_generations=4))
    assert changes == {"num_generations": (8, 4)}
    if generation_step:
        with pytest.raises(InputError, match=r"num_generations: 8 -> 4 .*within a generation"):
            check_changes(saved, changes)
    else:
        check_changes(saved, changes)


@pytest.mark.parametrize(
    ("sharded", "launch", "refused"),
    [
        (False, {"processes": 1, "under_deepspeed": False}, None),
        (True, {"processes": 2, "under_deepspeed": True}, None),
        (True, {"processes": 1, "under_deepspeed": True}, "processes: 2 -> 1"),
        (True, {"processes": 1, "under_deepspeed": False}, "under_deepspeed: True -> False"),
        (False, {"processes": 2, "under_deepspeed": True}, "under_deepspeed: False -> True"),
    ],
)
def test_how_a_run_is_launched_counts_where_deepspeed_has_saved_its_own_parts(saved, sharded, launch, refused):
    for rank in range(2):
        (saved / f"rng_state_{rank}.pth").write_text("")
    if sharded:
        (saved / "global_step2").mkdir()
    changes = changes_since(saved, {**SETTINGS, "launch": launch})
    assert changes.get("processes") == ((2, 1) if launch["processes"] == 1 else None)
    if refused is None:
        return check_changes(saved, changes)
    with pytest.raises(InputError) as error:
        check_changes(saved, changes)
    assert refused in str(error.value)
    assert str(error.value).count(" -> ") == 1  # what follows from it is not refused once more
    return None


def test_what_a_checkpoint_does_not_tell_is_not_compared(saved):
    changes = changes_since(saved, {**changed(num_generations=4), "launch": {"processes": 1}})
    assert changes == {"num_generations": (8, 4)}
    (saved / "trainer_state.json").write_text('{"global_step": 6}')
    check_changes(saved, changes)


def test_going_back_compares_with_what_was_set_at_the_checkpoint(tmp_path):
    saved = {step: checkpoint(tmp_path, step) for step in (2, 4, 6)}
    changes = [
        {"step": 2, "settings": {"learning_rate": [0.1, 0.2], "max_steps": [4, 6]}},
        {"step": 4, "settings": {"learning_rate": [0.2, 0.3]}},
    ]
    write_settings(tmp_path, changed(learning_rate=0.3), changes)
    asked = changed(learning_rate=0.3)
    assert changes_since(saved[6], asked) == {}
    assert changes_since(saved[4], asked) == {"learning_rate": (0.2, 0.3)}
    assert changes_since(saved[2], asked) == {"learning_rate": (0.1, 0.3), "max_steps": (4, 6)}
    assert "reward_mode" in changes_since(saved[2], changed(reward_mode="verifier"))


def test_an_older_run_is_compared_by_what_it_has(tmp_path):
    saved = checkpoint(tmp_path, 2)  # without settings.json
    assert changes_since(saved, SETTINGS) == {}
    assert changes_since(saved, changed(lora_r=8)) == {"lora_r": (16, 8)}  # the adapter says its own
    adapter = {"r": 16, "lora_alpha": 32, "base_model_name_or_path": "data/embedded_policy"}
    (saved / "adapter_config.json").write_text(json.dumps(adapter))
    for name in ("lora_alpha", "model_name_or_path"):
        assert changes_since(saved, changed(**{name: "other"})).keys() == {name}
    older = {**SETTINGS, "training": {"max_steps": 6}}
    (tmp_path / "settings.json").write_text(json.dumps({"settings": older, "versions": {}}))
    assert changes_since(saved, changed(num_generations=4, max_steps=8)) == {"max_steps": (6, 8)}


def test_every_name_in_the_table_is_a_setting_and_settings_survive_their_file(tmp_path):
    groups = {
        "tasks": TaskArguments(), "judges": JudgeArguments(), "model": ModelConfig(),
        "training": HybridGRPOConfig(str(tmp_path), use_cpu=True, report_to="none"), "pairs": PairArguments(),
    }  # fmt: skip
    settings = settings_of(**groups)
    known = {name for group in settings.values() for name in group}
    assert {name for names, _ in FIXED for name in names} - known == {"processes", "under_deepspeed"}
    assert NOT_COMPARED - known == {"logging_dir"}  # of older versions
    write_settings(tmp_path, settings)
    assert changes_since(checkpoint(tmp_path, 2), {**settings, "model": {**settings["model"], "use_peft": True}}) == {
        "use_peft": (False, True)
    }
