"""What the settings ask for and a run would find missing after it has loaded everything."""

import pytest
from trl import ModelConfig

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.errors import InputError
from trl_hybrid.recipe.asked_for import check_installed, check_sampling
from trl_hybrid.recipe.options import JudgeArguments


def config(**settings):
    return HybridGRPOConfig("unused", use_cpu=True, **{"report_to": "none", **settings})


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, .*; got 0.0"),
        ({"top_k": -1}, "top_k must be 0 or more; .*; got -1"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.5}, "top_p must be .* at most 1"),
        ({"min_p": 1.5}, "min_p must be between 0 and 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"max_completion_length": 0}, "max_completion_length must be 1 or more"),
        ({"num_iterations": 0}, "num_iterations must be 1 or more; got 0"),
    ],
)
def test_sampling_that_generation_would_refuse(setting, rule):
    with pytest.raises(InputError, match=rule):
        check_sampling(config(**setting))


def test_sampling_at_the_ends_of_its_ranges():
    check_sampling(config(temperature=1e-3, top_k=0, top_p=1.0, min_p=0.0))
    check_sampling(config(min_p=1.0, top_k=5))


@pytest.mark.parametrize(
    ("settings", "model", "judges", "said"),
    [
        ({"report_to": ["tensorboard", "clearml"]}, {}, {}, "report_to clearml needs the package clearml"),
        ({"report_to": "wandbb"}, {}, {}, "report_to must be none, all or some of .*wandb.*; got 'wandbb'"),
        ({"use_liger_kernel": True}, {}, {}, r"liger-kernel\), or leave use_liger_kernel out"),
        ({"optim": "paged_adamw_8bit"}, {}, {}, "optim paged_adamw_8bit needs the package bitsandbytes"),
        ({}, {"load_in_8bit": True}, {}, "load_in_8bit needs the package bitsandbytes"),
        ({}, {}, {"reward_model_load_in_4bit": True}, "reward_model_load_in_4bit needs"),
        ({}, {}, {"reward_model_placement": "zero3"}, "reward_model_placement zero3 needs the package deepspeed"),
    ],
)
def test_packages_that_are_not_installed(monkeypatch, settings, model, judges, said):
    installed = ("tensorboard",)
    monkeypatch.setattr("trl_hybrid.recipe.asked_for.find_spec", lambda name: name if name in installed else None)
    with pytest.raises(InputError, match=said):
        check_installed(config(**settings), ModelConfig(**model), JudgeArguments(**judges))


def test_plain_settings_ask_for_no_package(monkeypatch):
    monkeypatch.setattr("trl_hybrid.recipe.asked_for.find_spec", lambda name: None)
    check_installed(config(), ModelConfig(), JudgeArguments())
    with pytest.raises(InputError, match="report_to tensorboard needs the package tensorboard"):
        check_installed(config(report_to="tensorboard"), ModelConfig(), JudgeArguments())
