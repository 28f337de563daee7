"""Every shipped recipe configuration is one that its recipe takes, and fits where it says, by estimate."""

import argparse
from pathlib import Path

import pytest
import torch
import yaml
from transformers import LlamaConfig, Qwen2Config
from trl import ModelConfig, RewardConfig, SFTConfig

from trl_hybrid.commands.plan import make_plan
from trl_hybrid.commands.recipe_options import parse_recipe_options
from trl_hybrid.memory.estimates import sampling_bytes
from trl_hybrid.memory.size import GB
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.pair_options import SHORT_HELP as PAIR_HELP
from trl_hybrid.recipe.pair_options import PairArguments
from trl_hybrid.recipe.parsing import parse_arguments
from trl_hybrid.recipe.sft import SHORT_HELP, SamplingArguments
from trl_hybrid.reward_model.footprint import Need


FOLDER = Path("recipes/configs")
SFT = sorted(FOLDER.glob("*_sft.yaml"))
REWARD_MODEL = sorted(FOLDER.glob("reward_model_*.yaml"))
GRPO = sorted(set(FOLDER.glob("*.yaml")) - set(SFT) - set(REWARD_MODEL))
SIZES = {
    "gsm8k_16gb": 16, "gsm8k_24gb": 24, "tinyllama_grpo": 80, "math_16gb": 16, "math_24gb": 24, "math_80gb": 80,
    "smollm2_16gb": 16,
}  # fmt: skip

# TRL's configs set the name that transformers 5.23 renames.


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Configurations in the shapes of TinyLlama, SmolLM2-360M and AceMath-7B-RM, without weights."""
    folder = tmp_path_factory.mktemp("models")
    LlamaConfig(
        hidden_size=960, num_hidden_layers=32, num_attention_heads=15, num_key_value_heads=5, intermediate_size=2560,
        vocab_size=49152, max_position_embeddings=8192, tie_word_embeddings=True, architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder / "smollm2")  # fmt: skip
    LlamaConfig(
        hidden_size=2048, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4, intermediate_size=5632,
        vocab_size=32000, max_position_embeddings=2048, architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder / "policy")  # fmt: skip
    Qwen2Config(
        hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, intermediate_size=18944,
        vocab_size=152064, num_labels=1, architectures=["Qwen2ForSequenceClassification"],
    ).save_pretrained(folder / "reward_model")  # fmt: skip
    return folder


@pytest.mark.parametrize("path", GRPO, ids=lambda path: path.stem)
def test_grpo_configurations_parse(path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tasks, _, training, model = parse_recipe_options(str(path), [])
    given = yaml.safe_load(path.read_text())
    assert model.model_name_or_path == given["model_name_or_path"]
    assert training.run_name == given["run_name"]
    assert tasks.dataset_name == given["dataset_name"]


def test_the_seeds_verifier_is_asked_for_as_the_seed_had_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, judges, *_ = parse_recipe_options(str(FOLDER / "seed.yaml"), [])
    assert (judges.verifier_method, judges.verifier_correct_reward, judges.verifier_format_reward) == (
        "flexible",
        1,
        0,
    )


@pytest.mark.parametrize("path", SFT, ids=lambda path: path.stem)
def test_sft_configurations_parse_and_say_where_grpo_starts(path, sft):
    classes = (TaskArguments, SamplingArguments, SFTConfig, ModelConfig)
    options = ["--config", str(path), "--use_cpu", "true", "--bf16", "false"]
    _, sampling, training, _ = parse_arguments(classes, sft.DEFAULTS, options, short_help=SHORT_HELP)
    given = yaml.safe_load(path.read_text())
    assert sampling.num_samples == given["num_samples"]
    assert training.learning_rate == given["learning_rate"]
    start = f"runs/{given['run_name']}{'/merged' if given['use_peft'] else ''}"
    assert f"--model_name_or_path {start} " in path.read_text().replace("\n", " ")


@pytest.mark.parametrize("path", REWARD_MODEL, ids=lambda path: path.stem)
def test_reward_model_configurations_parse_and_say_what_trains_with_them(path, reward_recipe):
    classes = (TaskArguments, PairArguments, RewardConfig, ModelConfig)
    options = ["--config", str(path), "--use_cpu", "true", "--bf16", "false"]
    _, pairs, training, model = parse_arguments(classes, reward_recipe.DEFAULTS, options, short_help=PAIR_HELP)
    given = yaml.safe_load(path.read_text())
    assert pairs.temperatures == given["temperatures"]
    assert (training.learning_rate, training.max_length) == (given["learning_rate"], given["max_length"])
    assert model.use_peft is given.get("use_peft", False)
    assert f"--reward_model_name_or_path runs/{given['run_name']}" in path.read_text()


@pytest.mark.parametrize("name", SIZES)
def test_a_run_fits_the_gpu_of_its_name(name, models, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    policy = models / ("smollm2" if name.startswith("smollm2") else "policy")
    options = ["--model_name_or_path", policy, "--reward_model_name_or_path", models / "reward_model"]
    prompt_tokens = 800 if "math" in name else 384
    plan = make_plan(
        argparse.Namespace(
            config=str(FOLDER / f"{name}.yaml"), gpu_memory=SIZES[name], host_memory=None, gpus=1,
            launch_config=None, prompt_tokens=prompt_tokens,
            recipe_options=[*map(str, options), "--reward_model_token_budget", "16384"],
        )
    )  # fmt: skip
    placement = plan["recommended"] if plan["chosen"] == "auto" else plan["chosen"]
    assert plan["placements"][placement]["gpu"] < SIZES[name] * GB
    assert plan["notes"] == []


@pytest.mark.parametrize(("name", "prompt_tokens"), [("gsm8k_sft", 384), ("math_sft", 800)])
def test_sampling_for_a_cold_start_fits_16_gb(name, prompt_tokens, models, monkeypatch):
    policy = str(models / "policy")
    assert sampling_bytes(policy, 1, 1) == Need(0)  # without a GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    given = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    rows = given["sample_batch_size"] * given["num_samples"]
    needed = sampling_bytes(policy, rows, given["max_completion_length"], prompt_tokens).total
    # Each row caches its tokens in 22 layers of 2 x 256 bf16 numbers.
    cache = rows * (prompt_tokens + given["max_completion_length"]) * 22 * 2 * 256 * 2
    assert 2 * 1_100_048_384 + cache < needed < 16 * GB
