"""The reward functions for TRL's dotted paths: what they read of the environment, and inside TRL's own command."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from reward_server import score_of, serving
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trl_hybrid import rewards
from trl_hybrid.errors import InputError
from trl_hybrid.hybrid import HybridReward


RIGHT, WRONG = "So it is \\boxed{4}.", "So it is \\boxed{5}."
GROUP = {"prompts": ["What is 2 + 2?"] * 4, "completions": [RIGHT, WRONG, "2 + 2 = \\boxed{4}.", "\\boxed{22}"]}


@pytest.fixture
def environment(monkeypatch):
    """Set the variables, with nothing else there."""
    for variable in [name for name in os.environ if name.startswith(rewards.PREFIX)]:
        monkeypatch.delenv(variable)

    def set_all(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(rewards.PREFIX + name, value)

    return set_all


class TestEnvironment:
    def test_the_defaults_are_those_of_the_package(self):
        settings, reward = rewards.JudgeSettings.of({}), HybridReward(len, len, 4)
        assert (settings.alpha, settings.beta) == (reward.settings.alpha, reward.settings.beta)
        assert (settings.verifier_method, settings.reward_model_placement) == ("math_verify", "auto")

    def test_other_variables_are_none_of_ours(self):
        known = {"TRL_HYBRID_TRACEBACK": "1", "TRL_HYBRID_REQUIRE_ALL": "1", "ALPHA": "x", "PATH": "/bin"}
        assert rewards.JudgeSettings.of(known) == rewards.JudgeSettings()

    @pytest.mark.parametrize(
        ("variables", "told"),
        [
            ({"ALPHA": "a tenth"}, "TRL_HYBRID_ALPHA must be a number, got 'a tenth'. Set it"),
            ({"ALHPA": "0.1"}, "TRL_HYBRID_ALHPA means nothing. Did you mean TRL_HYBRID_ALPHA"),
            ({"ALPHA": "0.6", "BETA": "0.6"}, "TRL_HYBRID_ALPHA and TRL_HYBRID_BETA: alpha \\+ beta .* 0.6 \\+ 0.6"),
            ({"BETA": "nan"}, "TRL_HYBRID_BETA: beta must be above 0 and at most 1, got nan"),
            ({"VERIFIER_METHOD": "loose"}, "TRL_HYBRID_VERIFIER_METHOD: method must be one of math_verify.*'loose'"),
            ({}, "TRL_HYBRID_REWARD_MODEL must name a reward model, it is not set. Set it to"),
            (
                {"REWARD_MODEL": "data/embedded_reward_model", "REWARD_MODEL_PLACEMENT": "moon"},
                "TRL_HYBRID_REWARD_MODEL_PLACEMENT: .* must be one of auto, resident.*'moon'",
            ),
            (
                {"REWARD_MODEL": "data/embedded_reward_model", "REWARD_MODEL_PLACEMENT": "server"},
                "TRL_HYBRID_REWARD_MODEL_SERVER_URL.*TRL_HYBRID_REWARD_MODEL_PLACEMENT: .*needs the server's address",
            ),
            ({"REWARD_MODEL_SERVER_TIMEOUT": "soon"}, "TRL_HYBRID_REWARD_MODEL_SERVER_TIMEOUT must be a number"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_variable(self, environment, variables, told):
        environment(**variables)
        with pytest.raises(InputError, match=told):
            rewards.hybrid_reward(**GROUP, solution=["4"] * 4)

    @pytest.mark.parametrize("variable", ["REWARD_MODEL_SERVER_KEY", "REWARD_MODEL_SEVER_URL"])
    def test_what_a_misspelt_variable_holds_may_be_a_secret(self, environment, variable):
        environment(**{variable: "http://me:sesame@judge:8001"})
        with pytest.raises(InputError, match="Did you mean TRL_HYBRID_REWARD_MODEL_SERVER_URL") as error:
            rewards.hybrid_reward(**GROUP, solution=["4"] * 4)
        assert "sesame" not in str(error.value)

    def test_the_reward_model_may_be_behind_a_server(self, environment):
        environment(
            REWARD_MODEL="data/embedded_reward_model",
            REWARD_MODEL_SERVER_URL="http://127.0.0.1:1",
            REWARD_MODEL_SERVER_TIMEOUT="7.5",
        )
        with pytest.raises(InputError, match=r"_SERVER_URL.*: The reward model's server http://127\S+:1 does not"):
            rewards.reward_model_reward(**GROUP)
        with serving(model="data/embedded_reward_model") as server:
            environment(REWARD_MODEL_SERVER_URL=server.url)
            scores = rewards.reward_model_reward(**GROUP)
            backend = rewards.shared_hybrid_reward().reward_model.backend
            asked = {tuple(row): score_of(row) for request in server.requests for row in request}
        assert set(scores) <= set(asked.values())
        assert [url.url for url in backend.servers] == [server.url]
        assert backend.timeout == 7.5


class TestAlone:
    def test_the_verifier_needs_no_reward_model(self, environment):
        environment()
        paid = rewards.math_verifier_reward(**GROUP, solution=["4", "4", "\\undefined{", "4"], trainer_state=None)
        assert paid == [1.0, 0.0, None, 0.0]

    def test_the_method_is_the_environments(self, environment):
        environment(VERIFIER_METHOD="strict")
        assert rewards.math_verifier_reward(["?"] * 2, ["\\boxed{4}", "#### 4"], solution=["4"] * 2) == [0.0, 1.0]

    def test_verdict_and_score_are_combined_by_the_environments_bands(self, environment):
        environment(REWARD_MODEL="data/embedded_reward_model", ALPHA="0.2", BETA="0.3")
        scores = rewards.reward_model_reward(**GROUP)
        paid = rewards.hybrid_reward(**GROUP, solution=["4"] * 4)
        best, worst = max(scores[0], scores[2]), min(scores[0], scores[2])
        assert best - worst > 1e-3
        assert [paid[scores.index(best)], paid[scores.index(worst)]] == pytest.approx([1.3, 0.7], abs=1e-3)
        assert sorted([paid[1], paid[3]]) == pytest.approx([-0.2, 0.2], abs=1e-3)

    def test_two_functions_share_one_reward_model(self, environment):
        environment(REWARD_MODEL="data/embedded_reward_model")
        rewards.hybrid_reward(**GROUP, solution=["4"] * 4)
        made = rewards._reward_model_of(rewards.JudgeSettings.of(os.environ))
        assert rewards.shared_hybrid_reward().reward_model is made

    def test_columns_are_logged_once_where_the_hybrid_reward_stands_beside(self, environment):
        environment()
        logged = []
        trainer = SimpleNamespace(reward_funcs=[], log=lambda self, *column: logged.append(column))
        log_extra = trainer.log.__get__(trainer)
        rewards.math_verifier_reward(**GROUP, solution=["4"] * 4, log_extra=log_extra)
        assert ("gold", ["4"] * 4) in logged
        logged.clear()
        trainer.reward_funcs = [rewards.hybrid_reward, rewards.math_verifier_reward]
        rewards.math_verifier_reward(**GROUP, solution=["4"] * 4, log_extra=log_extra)
        assert logged == []


def launch(folder, *options):
    """Run TRL's own command with two processes on addition problems, as a user would."""
    problems = Path("data/addition/train.jsonl").read_text().splitlines()[:8]
    (folder / "data").mkdir()
    with (folder / "data" / "train.jsonl").open("w") as file:
        for problem in map(json.loads, problems):
            prompt = [{"role": "user", "content": problem["question"]}]
            file.write(json.dumps({"prompt": prompt, "solution": problem["answer"]}) + "\n")
    command = (
        f"grpo --num_processes 2 --multi_gpu --model_name_or_path data/embedded_policy --dataset_name {folder}/data "
        "--scale_rewards none --per_device_train_batch_size 8 --gradient_accumulation_steps 1 --max_steps 1 "
        "--max_completion_length 24 --use_cpu True --bf16 False --report_to none --logging_steps 1 "
        f"--log_completions True --save_strategy no --gradient_checkpointing False --output_dir {folder}/run"
    )
    environment = {
        **os.environ,
        "TRL_HYBRID_REWARD_MODEL": "data/embedded_reward_model",
        "TRL_HYBRID_ALPHA": "0.2",
        "TRL_HYBRID_BETA": "0.3",
    }
    program = [str(Path(sys.executable).with_name("trl")), *command.split(), *options]
    return subprocess.run(program, capture_output=True, text=True, env=environment)


def independent_scores(rows):
    """The reward model as transformers computes it, a row at a time."""
    folder = "data/embedded_reward_model"
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = []
    for prompt, completion in rows:
        messages = [*map(dict, prompt), *map(dict, completion)]
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        with torch.inference_mode():
            scores.append(model(torch.tensor([ids])).logits[0, 0].item())
    return scores


def equation_3(right, scores, alpha, beta):
    """HERO's reward in one group, by plain arithmetic."""
    paid = []
    for verdict, score in zip(right, scores, strict=True):
        alike = [other for other, same in zip(scores, right, strict=True) if same == verdict]
        spread = max(alike) - min(alike)
        place = (score - min(alike)) / spread if spread > 1e-4 else 0.5
        paid.append(1 - beta + 2 * beta * place if verdict else -alpha + 2 * alpha * place)
    return paid


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestTrlsOwnCommand:
    def test_two_processes_with_whole_groups(self, tmp_path):
        functions = [f"trl_hybrid.rewards.{name}_reward" for name in ("hybrid", "math_verifier", "reward_model")]
        options = ["--num_generations", "8", "--reward_weights", "1", "0", "0", "--reward_funcs", *functions]
        run = launch(tmp_path, *options)
        assert run.returncode == 0, run.stderr[-3000:]
        rows = pd.read_parquet(tmp_path / "run" / "completions" / "completions_00001.parquet")
        assert len(rows) == 16
        sums = [sum(map(int, re.findall(r"\d+", prompt[0]["content"]))) for prompt in rows["prompt"]]
        answers = [completion[0]["content"] for completion in rows["completion"]]
        right = [f"\\boxed{{{total}}}" in answer for total, answer in zip(sums, answers, strict=True)]
        assert 0 < sum(right) < 16
        scores = independent_scores(zip(rows["prompt"], rows["completion"], strict=True))
        assert rows["math_verifier_reward"].tolist() == rows["verdict"].tolist() == [float(value) for value in right]
        assert rows["reward_model_reward"].tolist() == pytest.approx(scores, abs=1e-4)
        assert rows["gold"].tolist() == [str(total) for total in sums]
        for start, end in pairwise([0, 8, 16]):
            expected = equation_3(right[start:end], scores[start:end], alpha=0.2, beta=0.3)
            paid = rows["hybrid_reward"][start:end]
            assert paid.tolist() == pytest.approx(expected, abs=1e-2)
            assert rows["advantage"][start:end].tolist() == pytest.approx((paid - paid.mean()).tolist(), abs=1e-5)

    def test_a_group_on_two_processes_is_refused_with_the_trainer_that_can(self, tmp_path):
        options = ["--num_generations", "16", "--generation_batch_size", "16"]
        run = launch(tmp_path, *options, "--reward_funcs", "trl_hybrid.rewards.hybrid_reward")
        assert run.returncode != 0
        assert "whole groups of num_generations = 16" in run.stderr
        assert "got 8 completions" in run.stderr
        assert "use trl_hybrid.HybridGRPOTrainer" in run.stderr


def test_each_function_is_found_by_its_dotted_path():
    for name in ("math_verifier_reward", "reward_model_reward", "hybrid_reward"):
        assert getattr(import_module("trl_hybrid.rewards"), name).__name__ == name
