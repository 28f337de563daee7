"""The shipped launch configurations in real processes: what is paid, what is sharded, what a stop leaves."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from trl_hybrid.hybrid.combine import combine_hybrid_score
from trl_hybrid.runs.folder import newest_whole_checkpoint


pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Launch configuration, placement of the reward model, LoRA or full fine-tuning.
ALONE = [("cpu", "resident", "lora"), ("single_gpu", "resident", "full")]
TWO = [
    ("multi_gpu", "resident", "lora"),
    ("multi_gpu", "zero3", "full"),
    ("zero2", "resident", "full"),
    ("zero2", "zero3", "lora"),
    ("zero3", "resident", "lora"),
    ("zero3", "zero3", "full"),
    ("zero3_offload", "resident", "full"),
    ("zero3_offload", "zero3", "lora"),
]
SHORT = [
    "--config", "recipes/configs/embedded.yaml", "--max_steps", "4", "--save_steps", "1", "--max_test_rows", "0",
    "--per_device_train_batch_size", "12", "--reward_model_placement", "zero3", "--output_dir",
]  # fmt: skip


def on_cpu(name, folder):
    """Copy a shipped configuration and change what a CPU with two cores needs, and nothing else."""
    settings = yaml.safe_load(Path("accelerate_configs", f"{name}.yaml").read_text())
    settings["num_processes"] = min(2, settings["num_processes"])
    # bf16 would blur the comparisons; port 0 is any free one.
    settings |= {"use_cpu": True, "mixed_precision": "no", "main_process_port": 0}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def start(name, folder, *script, options=()):
    """Start a script by a shipped configuration, in a session of its own."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", on_cpu(name, folder), *options]
    return subprocess.Popen(
        [*map(str, accelerate), *map(str, script)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process, check=True):
    """Wait for a launch and return what it showed."""
    try:
        shown, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"{' '.join(process.args)} did not end\n{process.communicate()[0]}")
    if check and process.returncode:
        pytest.fail(f"{' '.join(process.args)} exited with {process.returncode}\n{shown}")
    return shown


def launch(name, folder, *script, check=True):
    process = start(name, folder, *script)
    return process, finish(process, check)


def run(configuration, tmp_path_factory):
    name, placement, how = configuration
    folder = tmp_path_factory.mktemp("-".join(configuration))
    launch(name, folder, "tests/launch/distributed_run.py", folder, placement, how)
    return folder, json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(ALONE[0], tmp_path_factory)[1]


@pytest.fixture(scope="module", params=[*ALONE[1:], *TWO], ids="-".join)
def launched(request, tmp_path_factory):
    """One launch: its configuration, its folder and what it reported."""
    return request.param, *run(request.param, tmp_path_factory)


class TestEveryConfiguration:
    def test_same_completions_are_paid_the_same_as_in_one_process(self, alone, launched):
        configuration, _, report = launched
        assert (alone["processes"], report["processes"]) == (1, 2 if configuration in TWO else 1)
        assert_paid_as(alone, report)

    def test_only_what_is_meant_to_be_sharded_is(self, launched):
        (name, placement, _), _, report = launched
        for process in report["each"]:
            for model, sharded in (("policy", name.startswith("zero3")), ("reward_model", placement == "zero3")):
                assert process[model] == {
                    "sharded": [sharded], "devices": ["cpu"], "share": pytest.approx(0.5 if sharded else 1, rel=0.01)
                }, model  # fmt: skip

    def test_processes_with_fewer_rows_wait_for_nobody(self, launched):
        configuration, _, report = launched
        assert [p["uneven_rows"] for p in report["each"]] == ([[3, 1], [0, 1]] if configuration in TWO else [[3, 1]])
        assert len({process["accuracy"] for process in report["each"]}) == 1

    def test_saved_model_gives_the_trained_one_s_logits(self, launched):
        (_, _, how), folder, _ = launched
        base = AutoModelForCausalLM.from_pretrained("data/embedded_policy", dtype=torch.float32)
        trained = json.loads((folder / "logits.json").read_text())
        ids, logits = torch.tensor(trained["input_ids"]), torch.tensor(trained["logits"])
        with torch.no_grad():
            before = base(ids).logits
            if how == "lora":
                weights = load_file(folder / "model" / "adapter_model.safetensors")
                # A rank of 8 for seven projections in each of four layers; B starts at zero.
                assert len(weights) == 2 * 7 * 4
                assert all(weight.numel() and weight.any() for weight in weights.values())
                saved = PeftModel.from_pretrained(base, str(folder / "model"))
            else:
                saved = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
            after = saved.eval()(ids).logits
        torch.testing.assert_close(after, logits, atol=1e-4, rtol=0)
        assert (after - before).abs().max() > 0.01


def assert_paid_as(alone, report):
    assert [len(rows) for rows in report["rewards"]] == [24, 24]
    for own, others in zip(report["rewards"], alone["rewards"], strict=True):
        assert own == [pytest.approx(row, abs=1e-5) for row in others]
    for own, others in zip(report["advantages"], alone["advantages"], strict=True):
        assert own == pytest.approx(others, abs=1e-5)


def test_two_machines_are_two_launches_that_name_the_first_one(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = ["--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
    script = ["tests/launch/distributed_run.py", tmp_path, "zero3", "lora"]
    machines = [start("zero2", tmp_path, *script, options=[*shared, "--machine_rank", rank]) for rank in "01"]
    for machine in machines:
        finish(machine)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["processes"] == 2
    assert_paid_as(alone, report)


def test_what_is_paid_is_the_formula_over_whole_groups(alone):
    rows = alone["rewards"][0]
    assert [row["math_verifier"] for row in rows] == [float(i % 5 < 2) for i in range(24)]
    for start in (0, 8, 16):
        group = rows[start : start + 8]
        for row in group:
            stratum = [r["reward_model"] for r in group if r["math_verifier"] == row["math_verifier"]]
            expected = combine_hybrid_score(row["math_verifier"], row["reward_model"], min(stratum), max(stratum))
            assert row["hybrid_reward"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["multi_gpu", "zero3"])
def test_crash_in_one_process_ends_all_within_a_minute_and_says_why(name, tmp_path):
    folder = tmp_path / "run"
    process, shown = launch(
        name, tmp_path, "tests/launch/stopped_rank.py", "crash", "1", "2", *SHORT, folder, check=False
    )
    waited = time.time() - (folder / "crashed").stat().st_mtime
    assert process.returncode != 0
    assert "RuntimeError: one process lost its nerve" in shown
    assert waited < 60
    assert members_of_session(process.pid) == []


def test_killed_process_ends_all_and_the_run_goes_on_from_its_newest_whole_checkpoint(tmp_path):
    folder, damaged = tmp_path / "run", tmp_path / "damaged"
    process, _ = launch(
        "zero3", tmp_path, "tests/launch/stopped_rank.py", "kill", "1", "2", *SHORT, folder, check=False
    )
    assert process.returncode != 0
    assert members_of_session(process.pid) == []
    assert newest_whole_checkpoint(folder).name == "checkpoint-2"

    shutil.copytree(folder, damaged)
    share = next((damaged / "checkpoint-2").glob("global_step2/*rank_1*optim_states.pt"))
    share.write_bytes(share.read_bytes()[:-100])

    learned = {}
    for place, passed_over in ((folder, False), (damaged, True)):
        resume = [*SHORT, place, "--resume_from_checkpoint", "latest"]
        _, shown = launch("zero3", tmp_path, "recipes/tinyllama_grpo.py", *resume)
        assert ("checkpoint-2 is not whole and is passed over" in shown) is passed_over
        assert json.loads((place / "summary.json").read_text())["steps"] == 4
        learned[place] = load_file(place / "adapter_model.safetensors")
    # From the second step or from the first: the same four steps.
    assert learned[folder].keys() == learned[damaged].keys()
    for weight, other in zip(learned[folder].values(), learned[damaged].values(), strict=True):
        assert torch.equal(weight, other)


def members_of_session(session):
    """Processes that a launch left behind; those of the verifier end when they notice, within seconds."""
    until = time.time() + 20
    while time.time() < until:
        listed = subprocess.run(["ps", "-eo", "sid=,stat=,args="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        left = [row for row in rows if row[0] == str(session) and not row[1].startswith("Z")]
        if not left:
            return []
        time.sleep(0.5)
    return left
