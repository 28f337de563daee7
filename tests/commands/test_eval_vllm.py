"""`trl-hybrid eval --backend vllm` with a real vLLM."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from vllm_process import run


pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

POLICY = "data/embedded_policy"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA that changes the answers a little."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32), LoraConfig(r=4, target_modules="all-linear")
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    model.save_pretrained(folder)
    return folder


def evaluate(folder, model, *options):
    done = run(
        "-m", "trl_hybrid.cli", "eval", "--model", model, "--dataset_name", "data/addition", "--system_prompt", "",
        "--max_rows", "12", "--num_samples", "2", "--max_completion_length", "40", "--output_dir", folder, *options,
    )  # fmt: skip
    return done.returncode, done.stdout


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_an_adapter_and_its_base_answer_as_with_transformers_and_are_scored(tmp_path, adapter):
    options = ["--base", "--reward_model", "data/embedded_reward_model"]
    for backend in ("transformers", "vllm"):
        status, shown = evaluate(tmp_path / backend, adapter, *options, "--backend", backend)
        assert status == 0, shown
    for name in ("rows", "base_rows"):
        plain, fast = (
            [row["greedy"] for row in rows(tmp_path / backend, name)] for backend in ("transformers", "vllm")
        )
        scores = [[answer.pop("score") for answer in answers] for answers in (fast, plain)]
        assert fast == plain
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
        samples = [sample for row in rows(tmp_path / "vllm", name) for sample in row["samples"]]
        assert len({sample["completion"] for sample in samples}) > 12
    figures = [
        json.loads((tmp_path / backend / "eval.json").read_text())["difference"]["lenient"]["greedy"]
        for backend in ("transformers", "vllm")
    ]
    assert figures[0] == figures[1]


def test_more_context_than_the_model_has_is_refused_without_a_trace(tmp_path):
    status, shown = evaluate(tmp_path, POLICY, "--backend", "vllm", "--vllm_max_model_length", "1000")
    assert status == 2
    assert "vLLM does not start with 'data/embedded_policy'" in shown
    assert "Traceback" not in shown
