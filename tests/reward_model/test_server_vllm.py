"""The reward model behind a real vLLM. The tests' order is that of the servers' lives: the last ones kill them."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from reward_server import serving
from transformers import TrainerCallback
from vllm_server import VllmServer

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.server import RewardServerError
from trl_hybrid.runs.folder import newest_whole_checkpoint


pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder():
    return str(Path("data/embedded_reward_model").resolve())


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    """One server for all tests; `replica` starts beside it."""
    server = VllmServer(folder, tmp_path_factory.mktemp("log") / "server.log").begin()
    try:
        yield server.wait()
    finally:
        server.end()


@pytest.fixture(scope="module")
def replica(folder, tmp_path_factory):
    replica = VllmServer(folder, tmp_path_factory.mktemp("log") / "replica.log").begin()
    try:
        yield replica.wait()
    finally:
        replica.end()


@pytest.fixture(scope="module")
def rows():
    """64 rows of 8 prompts, from 10 to 900 tokens."""
    draw = random.Random(0)
    prompts = [draw.choices(range(3, 320), k=draw.randrange(5, 60)) for _ in range(8)]
    return [(*prompts[row // 8], *draw.choices(range(3, 320), k=5 + row * 13)) for row in range(64)]


@pytest.fixture(scope="module")
def resident(folder, rows):
    """The same model's scores without a server."""
    return RewardModel(folder, device="cpu", dtype="float32").backend.score(rows)


def served(folder, *servers, timeout=60.0, **arguments):
    urls = [server.url for server in servers]
    return RewardModel(folder, server_urls=urls, dtype="float32", server_timeout=timeout, **arguments)


def furthest(scores, others):
    return (torch.tensor(scores, dtype=torch.float64) - torch.tensor(others, dtype=torch.float64)).abs().max().item()


def told(caplog):
    return [record.getMessage() for record in caplog.records if "reward model's server" in record.getMessage()]


class TestScores:
    def test_they_are_the_resident_ones_in_the_same_order(self, folder, server, rows, resident, record_property):
        model = served(folder, server)
        assert model.placement == "server"
        scores = model.backend.score(rows)
        record_property("from resident", furthest(scores, resident))
        assert furthest(scores, resident) < TOLERANCE
        assert sorted(range(64), key=scores.__getitem__) == sorted(range(64), key=resident.__getitem__)
        assert max(scores) - min(scores) > 1

    def test_what_a_score_depends_on(self, folder, server, rows, record_property):
        """docs/placement.md says it: not on anything by more than a few units in the last place."""
        backend = served(folder, server).backend
        first = backend.score(rows)
        backend.token_budget = 1
        ways = {"one row a request": backend.score(rows)}
        backend.token_budget = 100_000
        ways["one request"] = backend.score(rows)
        ways["other batches"] = backend.score(rows[::2] + rows[1::2])
        ways["other batches"] = [ways["other batches"][n // 2 + 32 * (n % 2)] for n in range(64)]
        ways["backwards"] = backend.score(rows[::-1])[::-1]
        ways["again"] = backend.score(rows)
        for way, scores in ways.items():
            record_property(way, furthest(scores, first))
            assert furthest(scores, first) < 1e-5, way

    def test_whole_conversations_are_scored_with_our_template(self, folder, server):
        prompts, answers = ["What is 17 + 25?"] * 3, ["\\boxed{42}", "\\boxed{41}", "30 + 12"]
        cut_off = [False, False, True]
        own = RewardModel(folder, device="cpu", dtype="float32")(prompts, answers, completion_truncated=cut_off)
        theirs = served(folder, server)(prompts, answers, completion_truncated=cut_off)
        assert theirs == pytest.approx(own, abs=TOLERANCE)

    def test_a_row_of_the_greatest_length_is_taken(self, folder, server):
        [score] = served(folder, server)(["What is 2 + 2?"], ["7" * 3000])
        assert score == pytest.approx(RewardModel(folder, device="cpu")(["What is 2 + 2?"], ["7" * 3000])[0], abs=1e-4)


class TestSpoiledAnswers:
    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ("activation", "applies an activation"),
            ("equal", "applies an activation"),
            ("nan", "no finite number"),
            ("short", "answered 7 scores for 8 rows"),
            ("html", "answered with no JSON: <html>"),
            ("wrong_model", "answered not as the model"),
            ("500", "answered 500"),
        ],
    )
    def test_at_the_start(self, folder, server, fault, said):
        with serving(upstream=server.url) as proxy:
            proxy.always = fault
            with pytest.raises(InputError, match=said) as error:
                served(folder, proxy, timeout=5.0 if fault == "500" else 60.0)  # which is waited for
        assert proxy.url in str(error.value)
        assert f"vllm serve {folder}" in str(error.value)

    def test_later(self, folder, server, rows, resident, caplog):
        with serving(upstream=server.url) as proxy:
            backend = served(folder, proxy, timeout=20.0).backend
            proxy.faults = ["500", "429"]
            assert furthest(backend.score(rows), resident) < TOLERANCE
            lines = told(caplog)  # away, and back; twice where the second fault comes when the first is over
            assert [line for line in lines if line.endswith("; it is asked again.")]
            assert lines[-1] == f"The reward model's server {proxy.url} answers again."
            for fault in ("nan", "short", "html", "wrong_model", "400"):
                # All of them: the first fault gives up the call's other requests, which may reach the proxy later.
                proxy.always = fault
                with pytest.raises(RewardServerError, match="no score was made up"):
                    backend.score(rows)

    def test_another_models_name_and_a_server_of_something_else(self, folder, server, tmp_path):
        other = str(shutil.copytree(folder, tmp_path / "other"))
        with pytest.raises(InputError, match=f"serves '{folder}' and not '{other}'"):
            served(other, server)
        config = json.loads((Path(other) / "config.json").read_text())
        (Path(other) / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
        with serving(upstream=server.url) as proxy:
            proxy.renamed = (folder, other)
            with pytest.raises(InputError, match="at most 1024 tokens, but they may have 2048"):
                served(other, proxy)


def test_a_stopped_server_ends_it_by_the_deadline_and_goes_on_when_it_is_continued(folder, server, rows, resident):
    backend = served(folder, server).backend
    backend.timeout = 1.0
    server.send(signal.SIGSTOP)
    started = time.monotonic()
    try:
        with pytest.raises(RewardServerError, match=r"did not score 64 rows within 5 s(.|\n)*gave no answer"):
            backend.score(rows)
        assert time.monotonic() - started < 15
    finally:
        server.send(signal.SIGCONT)
    backend.timeout = 60.0
    assert furthest(backend.score(rows), resident) < TOLERANCE


def make_trainer(folder, reward_model, steps=3):
    tasks = [json.loads(line) for line in Path("data/addition/train.jsonl").read_text().splitlines()[:64]]
    settings = {
        "num_generations": 4, "per_device_train_batch_size": 16, "max_completion_length": 24, "learning_rate": 1e-3,
        "logging_steps": 1, "max_steps": steps, "gradient_checkpointing": False, "report_to": "none", "use_cpu": True,
        "bf16": False, "disable_tqdm": True, "save_strategy": "no",
    }  # fmt: skip
    return HybridGRPOTrainer(
        "data/embedded_policy",
        args=HybridGRPOConfig(str(folder), **settings),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": t["question"]}], "solution": t["answer"]} for t in tasks]
        ),
        verifier=MathVerifier(),
        reward_model=reward_model,
    )


class At(TrainerCallback):
    """Do something after a step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.act()


def rewards_of(trainer):
    keys = ("rewards/reward_model/mean", "rewards/hybrid_reward/mean", "rewards/hybrid_reward/std", "reward")
    history = [row for row in trainer.state.log_history if "loss" in row]
    return [[row[key] for key in keys] for row in history]


def test_a_training_run_gets_the_same_rewards_and_goes_on_when_one_of_two_is_killed(
    folder, server, replica, rows, tmp_path, caplog, record_property
):
    first = served(folder, server).backend.score(rows)
    # Nothing is in the replica's prefix cache yet, and each row is a request.
    difference = furthest(served(folder, replica, token_budget=1).backend.score(rows), first)
    record_property("another replica", difference)
    assert difference < 1e-5

    own = make_trainer(tmp_path / "own", RewardModel(folder, device="cpu", dtype="float32"))
    own.train()
    behind = make_trainer(tmp_path / "behind", served(folder, server, replica, token_budget=128))
    behind.add_callback(At(1, replica.end))
    behind.train()
    assert len(rewards_of(own)) == 3
    assert rewards_of(behind) == [pytest.approx(step, abs=1e-3) for step in rewards_of(own)]
    assert own._logs["completion"] == behind._logs["completion"]
    assert list(behind._logs["rewards"]["hybrid_reward"]) == pytest.approx(
        list(own._logs["rewards"]["hybrid_reward"]), abs=1e-3
    )
    [line] = told(caplog)
    assert replica.url in line
    assert "the others get its rows" in line


KEY = "sesame-open-up"


def recipe(folder, server, run, *options):
    command = [
        sys.executable, "recipes/tinyllama_grpo.py", "--config", "recipes/configs/embedded.yaml",
        "--reward_model_name_or_path", folder, "--reward_model_dtype", "float32", "--reward_model_server_url",
        server.url, "--reward_model_server_timeout", "6", "--save_steps", "1", "--max_test_rows", "0",
        "--per_device_train_batch_size", "16", "--max_completion_length", "16", "--output_dir", str(run), *options,
    ]  # fmt: skip
    environment = {**os.environ, "TRL_HYBRID_SERVER_KEY": KEY}
    # Into a file: nobody reads along, and a full pipe would stop it.
    with Path(f"{run}.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)


def said_by(run):
    return Path(f"{run}.log").read_text()


def test_a_server_killed_between_steps_ends_the_run_in_time_and_it_goes_on_when_the_server_is_back(
    folder, server, rows, tmp_path, record_property
):
    before, run = served(folder, server).backend.score(rows), tmp_path / "run"
    process = recipe(folder, server, run, "--max_steps", "500")
    try:
        while not (run / "checkpoint-2" / "trainer_state.json").exists():
            assert process.poll() is None, said_by(run)
            time.sleep(0.05)
        server.end()
        killed = time.monotonic()
        process.wait(timeout=300)
    finally:
        process.kill()
    said = said_by(run)
    record_property("seconds until the end", time.monotonic() - killed)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert f"{server.url} does not answer" in said
    assert "within 30 s" in said
    assert "--resume_from_checkpoint latest" in said
    newest = newest_whole_checkpoint(run)
    steps = json.loads((newest / "trainer_state.json").read_text())["global_step"]

    not_there = recipe(folder, server, tmp_path / "other", "--max_steps", "1")
    assert not_there.wait(timeout=600) == 2
    refused = said_by(tmp_path / "other")
    assert f"The reward model's server {server.url} does not answer" in refused
    assert f"vllm serve {folder} --runner pooling" in refused
    assert not (tmp_path / "other").exists()

    server.begin().wait()
    difference = furthest(served(folder, server).backend.score(rows), before)
    record_property("after a restart", difference)
    assert difference < 1e-5
    resumed = recipe(folder, server, run, "--max_steps", str(steps + 1), "--resume_from_checkpoint", "latest")
    assert resumed.wait(timeout=600) == 0, said_by(run)
    assert json.loads((run / "summary.json").read_text())["steps"] == steps + 1
    texts = [file.read_bytes() for file in run.rglob("*") if file.is_file()]
    assert all(KEY.encode() not in text for text in texts)
    assert KEY not in said + refused + said_by(run)
