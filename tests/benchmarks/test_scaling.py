import argparse
import importlib.util
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, Qwen2Config


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("scaling", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])  # where Python looks when it runs the script
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def part(script):
    return lambda name: import_module(f"launches.{name}")


OPTIONS = {"policy": "model_name_or_path", "reward_model": "reward_model_name_or_path"}


def settings(shape, rows=64):
    return argparse.Namespace(shape=shape, rows=rows, steps=10, device="cpu")


@pytest.mark.parametrize("shape", ["embedded", "tiny", "real"])
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_share_the_completions_of_a_step(script, shape, processes):
    training = script.training_of(script.Case("multi_gpu", processes, "resident"), settings(shape))
    own = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    assert own * processes == 64
    assert training["max_steps"] == 10 + script.WARM_UP


def test_two_processes_are_launched_in_every_way_beside_one(part):
    cases = part("cases")
    assert [case.processes for case in cases.EMBEDDED] == [1] + [2] * 6
    assert {(case.launch, case.placement) for case in cases.EMBEDDED[1:]} == {
        (launch, placement) for launch in ("multi_gpu", "zero2", "zero3") for placement in ("resident", "zero3")
    }
    assert [case.placement for case in cases.real_cases(gpus=1)] == ["resident", "streamed", "zero3"]
    assert {case.processes for case in cases.real_cases(gpus=2)} == {1, 2}


def test_both_random_models_read_the_same_tokens(part, tmp_path):
    models = part("models")
    made = models.random_models("tiny", "small", tmp_path, torch.float32)
    policy, reward_model = (AutoTokenizer.from_pretrained(made[name]) for name in ("policy", "reward_model"))
    first = policy("\u4e00", add_special_tokens=False)["input_ids"][0]
    ids = [
        token
        for token in range(first, 2040)
        if len(policy.decode([token])) == 1 and policy.decode([token]) != "\ufffd"
    ]
    assert len(ids) > 1600
    assert reward_model(policy.decode(ids), add_special_tokens=False)["input_ids"] == ids
    prompt = policy.apply_chat_template(made["tasks"][3]["prompt"], add_generation_prompt=True)["input_ids"]
    assert models.PROMPT_TOKENS < len(prompt) <= models.PROMPT_TOKENS + 20


def test_the_planned_memory_is_the_plan_s(script, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"intermediate_size": 128, "vocab_size": 2048}
    LlamaConfig(**shape, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path / "policy")
    reward_model = Qwen2Config(**shape, num_labels=1, architectures=["Qwen2ForSequenceClassification"])
    reward_model.save_pretrained(tmp_path / "reward_model")
    models = {name: str(tmp_path / name) for name in ("policy", "reward_model")}
    planned = {}
    for placement in ("resident", "streamed"):
        case = script.Case("single_gpu", 1, placement)
        planned[placement] = script.planned_bytes(case, models, script.training_of(case, settings("real")))
    # Training is the same; resident and streamed differ by the reward model alone.
    names = [text for name, path in models.items() for text in (f"--{OPTIONS[name]}", path)]
    plan = script.make_plan(
        argparse.Namespace(
            config=None,
            gpu_memory=None,
            host_memory=None,
            gpus=1,
            launch_config=None,
            prompt_tokens=256,
            recipe_options=names,
        )
    )
    places = plan["placements"]
    assert planned["resident"] - planned["streamed"] == places["resident"]["gpu"] - places["streamed"]["gpu"]
    assert planned["resident"] > places["resident"]["reward_model"] + 10**9  # the CUDA context


CASE = {
    "completions_per_second": 32.0,
    "seconds": [2.0, 4.0, 1.0],
    "parts": {"generation": 1.0, "reward model": 0.5, "verifier": 0.0, "loss": 0.25, "other": 0.25},
}


def test_the_table_gives_shares_the_median_step_and_what_did_not_run(part):
    lines = part("figures").table({"cpu x1, resident": CASE, "zero3 x2, zero3": {"not_run": "OSError: no"}})
    assert lines[1].split() == ["cpu", "x1,", "resident", "32.00", "2.00", "50%", "25%", "0%", "12%", "12%"]
    assert lines[2].endswith("not run: OSError: no")


@pytest.mark.parametrize(
    ("planned", "outcome"), [(11.4e9, "met"), (8.6e9, "met"), (11.6e9, "missed"), (8e9, "missed")]
)
def test_the_plan_is_held_to_15_percent_of_the_peak(part, planned, outcome):
    case = {**CASE, "peak_bytes": 10e9, "reserved_bytes": 11e9, "planned_bytes": planned}
    [line] = part("figures").memory_lines({"one": case})
    assert line.endswith(f": {outcome}")


def test_no_plan_is_held_against_the_embedded_models_on_a_gpu(part):
    case = {**CASE, "peak_bytes": 1e9, "reserved_bytes": 1e9}
    assert len(part("figures").table({"cpu x1, resident": case})) == 2


def test_a_gradient_that_is_not_finite_is_no_result(part):
    norms = part("worker").finite_norms
    assert norms([{"grad_norm": 0.5}, {"loss": 1.0}, {"grad_norm": 2.0}]) == [0.5, 2.0]
    with pytest.raises(ArithmeticError, match="nan"):
        norms([{"grad_norm": 0.5}, {"grad_norm": float("nan")}])


def test_the_bars_add_up_to_the_step(part, tmp_path):
    figures = part("figures")
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures.Figure, "savefig", lambda figure, *args, **kwargs: drawn.append(figure))
        figures.draw({"one": CASE, "two": CASE, "three": {"not_run": "no"}}, "title", tmp_path / "bars.png")
    [axes] = drawn[0].axes
    assert len(axes.patches) == 2 * len(CASE["parts"])
    assert max(bar.get_x() + bar.get_width() for bar in axes.patches) == pytest.approx(2.0)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_one_and_two_processes_are_measured(tmp_path):
    command = [
        sys.executable,
        str(SCRIPT),
        "--quick",
        "--steps",
        "1",
        "--launches",
        "cpu",
        "multi_gpu",
        "--output",
        str(tmp_path),
    ]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=190, check=False)
    assert run.returncode == 0, run.stderr
    written = (tmp_path / "embedded_cpu.json").read_text()
    cases = json.loads(written)["cases"]
    assert {case["processes"] for case in cases.values()} == {1, 2}
    for case in cases.values():
        assert case["completions"] == 16
        assert len(case["seconds"]) == 1
        assert len(case["grad_norms"]) == 3
        assert sum(case["parts"].values()) == pytest.approx(case["seconds"][0], rel=0.3)
        assert all(case["parts"][part] > 0 for part in ("generation", "reward model", "loss"))
    assert str(Path.home()) not in written
    assert (tmp_path / "embedded_cpu.png").stat().st_size > 10_000
