"""Real processes: rewards over several of them, and the main job as a user starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from trl_hybrid.cli import main
from trl_hybrid.hybrid.combine import combine_hybrid_score
from trl_hybrid.runs.folder import newest_whole_checkpoint


ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines", "1", "--mixed_precision", "no",
    "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1",
]  # fmt: skip
RECIPE = ["recipes/tinyllama_grpo.py", "--config", "recipes/configs/embedded.yaml"]


def launch(script, processes=1, timeout=300, check=True):
    several = ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else []
    command = [*ACCELERATE, "--num_processes", str(processes), *several, *map(str, script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if check and result.returncode:
        pytest.fail(f"{' '.join(command)} exited with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


class TestTwoProcesses:
    def test_same_completions_are_paid_the_same_also_where_a_group_is_split(self, tmp_path):
        paid = {}
        for processes in (1, 2):
            file = tmp_path / f"{processes}.json"
            launch(["tests/launch/gathered_rewards.py", file, tmp_path / f"run{processes}"], processes)
            paid[processes] = json.loads(file.read_text())
        assert [paid[n]["processes"] for n in (1, 2)] == [1, 2]
        assert paid[2]["rewards"] == [pytest.approx(row, abs=1e-5) for row in paid[1]["rewards"]]

        assert 0 < paid[1]["accuracy"] < 1
        assert paid[2]["accuracy"] == pytest.approx(paid[1]["accuracy"])

        rows = paid[2]["rewards"]
        assert [v for v, _, _ in rows] == [float(i % 5 < 2) for i in range(24)]
        for start in (0, 8, 16):
            group = rows[start : start + 8]
            for verdict, score, reward in group:
                stratum = [s for v, s, _ in group if v == verdict]
                expected = combine_hybrid_score(verdict, score, min(stratum), max(stratum))
                assert reward == pytest.approx(expected, abs=1e-4)


def boxed_accuracy(model, rows):
    """Greedy accuracy by an own loop: the number in the last box, compared as text."""
    tokenizer = AutoTokenizer.from_pretrained("data/embedded_policy")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    prompts = [[{"role": "user", "content": row["question"]}] for row in rows]
    batch = tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, padding=True, padding_side="left", return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        out = model.generate(**batch, do_sample=False, max_new_tokens=80)
    texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    found = [re.findall(r"\\boxed\{(\d+)\}", text)[-1:] for text in texts]
    return sum(answer == [row["answer"]] for answer, row in zip(found, rows, strict=True)) / len(rows)


def jsonl(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


class TestMainJob:
    def test_short_run_leaves_everything_that_it_promises(self, tmp_path):
        folder = tmp_path / "run"
        short = ["--max_steps", "2", "--save_steps", "1", "--max_test_rows", "8", "--output_dir", folder]
        shown = launch([*RECIPE, *short]).stdout
        summary = json.loads((folder / "summary.json").read_text())
        assert set(summary["accuracy"]) == {"greedy", "mean_of_8"}
        assert set(summary["accuracy"]["greedy"]) == {"before", "after", "change", "low", "high"}
        assert summary["test_file"] == "data/addition/test.jsonl"
        assert summary["steps"] == 2
        assert {"curves.png", "report.html", "adapter_model.safetensors", "checkpoint-2"} <= {
            p.name for p in folder.iterdir()
        }
        begun = json.loads((folder / "settings.json").read_text())
        assert (begun["settings"], begun["versions"]) == (summary["settings"], summary["versions"])
        assert [row["step"] for row in jsonl(folder / "history.jsonl") if "hybrid/pass_rate" in row] == [1, 2]
        table = pd.read_parquet(folder / "completions" / "completions_00002.parquet")
        assert len(table) == 128
        assert {"math_verifier", "reward_model", "hybrid_reward", "score", "advantage"} <= set(table.columns)
        assert len(re.findall("-> (right|wrong), RM score", shown)) == 3
        assert "Accuracy on 8 problems" in shown
        assert "AutoPeftModelForCausalLM" in shown

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("how", [[], ["--use_peft", "false", "--learning_rate", "2e-4"]], ids=["lora", "full"])
    def test_the_policy_gets_better_at_questions_it_has_not_seen(self, tmp_path, how):
        folder = tmp_path / "run"
        launch([*RECIPE, *how, "--output_dir", folder], timeout=580)
        summary = json.loads((folder / "summary.json").read_text())
        greedy, sampled = summary["accuracy"]["greedy"], summary["accuracy"]["mean_of_8"]
        assert greedy["after"] - greedy["before"] >= 0.25
        assert sampled["after"] - sampled["before"] >= 0.15

        rows = jsonl("data/addition/test.jsonl")
        assert len(rows) >= 200
        assert {row["question"] for row in rows}.isdisjoint(
            row["question"] for row in jsonl("data/addition/train.jsonl")
        )
        loader = AutoModelForCausalLM if how else AutoPeftModelForCausalLM
        assert boxed_accuracy(loader.from_pretrained(folder), rows) == pytest.approx(greedy["after"], abs=0.02)
        assert boxed_accuracy(AutoModelForCausalLM.from_pretrained("data/embedded_policy"), rows) == pytest.approx(
            greedy["before"], abs=0.02
        )

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_ctrl_c_under_a_launcher_saves_and_leaves_no_process_and_the_run_goes_on(self, tmp_path):
        folder = tmp_path / "run"
        options = ["--max_steps", "6", "--save_steps", "2", "--max_test_rows", "8", "--output_dir", str(folder)]
        command = [*ACCELERATE, "--num_processes", "1", *RECIPE, *options]
        # As from a terminal: what a background job starts ignores Ctrl-C.
        heard = (
            "import os, signal, sys; signal.signal(2, signal.default_int_handler); os.execv(sys.argv[1], sys.argv[1:])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", heard, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        wait_for(lambda: (folder / "checkpoint-2" / "trainer_state.json").exists(), 120)
        # To the whole group, as a terminal does: the launcher dies of it with a trace, the run does not.
        os.killpg(process.pid, signal.SIGINT)
        shown, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        step = int(re.search(r"Interrupted at step (\d+)", shown)[1])
        assert 2 < step < 6
        assert newest_whole_checkpoint(folder).name == f"checkpoint-{step}"
        assert "resume_from_checkpoint latest" in shown
        wait_for(lambda: not members_of_group(process.pid), 20)
        assert main(["report", str(folder)]) == 0
        assert "Steps, unfinished" in (folder / "report.html").read_text()

        refused = launch([*RECIPE, *options], check=False)
        assert refused.returncode != 0
        assert "is not empty" in refused.stderr
        launch([*RECIPE, *options, "--resume_from_checkpoint", "latest"])
        assert json.loads((folder / "summary.json").read_text())["steps"] == 6
        steps = [row["step"] for row in jsonl(folder / "history.jsonl") if "hybrid/pass_rate" in row]
        assert steps == [1, 2, 3, 4, 5, 6]

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_tinyllama_and_acemath_shapes_run_by_the_recipes_own_defaults(self, tmp_path, shaped_models):
        policy, reward_model = shaped_models
        short = [
            "--use_cpu", "--max_steps", "1", "--max_completion_length", "8", "--gradient_accumulation_steps", "2",
            "--lora_r", "4", "--output_dir", tmp_path / "run", "--model_name_or_path", policy,
            "--reward_model_name_or_path", reward_model,
        ]  # fmt: skip
        launch([RECIPE[0], *short])
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 1

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--model_name_or_path", "nobody/nothing"], ["policy 'nobody/nothing'", "embedded.yaml"]),
            (["--reward_model_name_or_path", "nobody/nothing"], ["reward model 'nobody/nothing'", "embedded.yaml"]),
            (["--dataset_name", "nobody/nothing"], ["data set 'nobody/nothing'", "embedded.yaml"]),
            (["--num_generations", "7"], ["num_generations must divide", "got 7 for 128"]),
        ],
    )
    def test_bad_input_is_one_message_without_a_stack_trace(self, tmp_path, options, said):
        result = launch([*RECIPE, "--output_dir", tmp_path / "run", *options], check=False)
        assert result.returncode != 0
        assert "Traceback" not in result.stderr
        assert all(part in result.stderr for part in said)
        assert not (tmp_path / "run").exists()


SIX_STEPS = (
    "--config", "recipes/configs/embedded.yaml", "--max_steps", "6", "--save_steps", "2", "--max_test_rows", "0",
    "--per_device_train_batch_size", "32", "--hybrid_bounds", "calibrated", "--output_dir",
)  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    start("recipes/tinyllama_grpo.py", *SIX_STEPS, folder)
    return learned(folder)


class TestStops:
    """Runs that end early and go on, against one that does not: six steps, saves after two and four."""

    def go_on(self, folder):
        shown = start("recipes/tinyllama_grpo.py", *SIX_STEPS, folder, "--resume_from_checkpoint", "latest").stderr
        return learned(folder), shown

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    @pytest.mark.parametrize(("point", "step", "whole"), [("step", 5, 4), ("save", 4, 2)])
    def test_killed_in_the_middle_goes_on_from_the_last_whole_checkpoint(self, tmp_path, unbroken, point, step, whole):
        folder = tmp_path / "run"
        killed = start("tests/launch/killed.py", point, step, *SIX_STEPS, folder, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert newest_whole_checkpoint(folder).name == f"checkpoint-{whole}"
        result, shown = self.go_on(folder)
        assert ("is not whole and is passed over" in shown) is (point == "save")
        assert result == unbroken

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_sigterm_saves_at_the_steps_end_and_the_run_goes_on(self, tmp_path, unbroken):
        folder = tmp_path / "run"
        process = subprocess.Popen(
            [sys.executable, "recipes/tinyllama_grpo.py", *map(str, SIX_STEPS), str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        wait_for(lambda: (folder / "checkpoint-2" / "trainer_state.json").exists(), 120)
        # To the whole group, as a terminal or a scheduler does; the verifier's processes end at once.
        os.killpg(process.pid, signal.SIGTERM)
        shown, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM
        step = int(re.search(r"Interrupted at step (\d+)", shown)[1])
        assert 2 < step < 6
        assert newest_whole_checkpoint(folder).name == f"checkpoint-{step}"
        assert "resume_from_checkpoint latest" in shown
        wait_for(lambda: not members_of_group(process.pid), 20)
        assert self.go_on(folder)[0] == unbroken

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_sigterm_to_one_of_two_processes_stops_both_at_the_same_step(self, tmp_path):
        # Groups of eight among twelve completions a process: the middle one is split.
        options = ["recipes/tinyllama_grpo.py", *SIX_STEPS[:-1], "--per_device_train_batch_size", "12", "--output_dir"]
        launch([*options, tmp_path / "unbroken"], processes=2)
        folder = tmp_path / "run"
        several = ["--num_processes", "2", "--multi_gpu", "--main_process_port", "0"]
        process = subprocess.Popen(
            [*ACCELERATE, *several, *options, str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        wait_for(lambda: (folder / "checkpoint-2" / "trainer_state.json").exists(), 120)
        os.kill(children_of(process.pid)[-1], signal.SIGTERM)
        shown, _ = process.communicate(timeout=60)
        step = int(re.search(r"Interrupted at step (\d+)", shown)[1])
        assert 2 < step < 6
        assert newest_whole_checkpoint(folder).name == f"checkpoint-{step}"
        launch([*options, folder, "--resume_from_checkpoint", "latest"], processes=2)
        assert learned(folder) == learned(tmp_path / "unbroken")

    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_sigterm_to_one_of_two_processes_breaks_off_the_last_measurement_and_the_run_is_finished_later(
        self, tmp_path
    ):
        folder = tmp_path / "run"
        options = [
            *RECIPE, "--max_steps", "2", "--max_test_rows", "96", "--per_device_train_batch_size", "32",
            "--per_device_eval_batch_size", "4", "--output_dir", str(folder),
        ]  # fmt: skip
        several = ["--num_processes", "2", "--multi_gpu", "--main_process_port", "0"]
        process = subprocess.Popen(
            [*ACCELERATE, *several, *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        wait_for(lambda: (folder / "checkpoint-2" / "trainer_state.json").exists(), 120)
        os.kill(children_of(process.pid)[-1], signal.SIGTERM)
        shown, _ = process.communicate(timeout=60)
        assert "Interrupted at step 2" in shown
        assert not (folder / "summary.json").exists()
        done = launch([*options, "--resume_from_checkpoint", "latest"], processes=2).stdout
        assert "Saved model checked: ok" in done
        assert "Total time:" in done
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["steps"] == 2
        assert None not in summary["accuracy"]["greedy"].values()


def children_of(pid):
    """The processes that run the recipe under a launcher, in the order of their ranks."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return sorted(int(own) for own, parent, args in rows if parent == str(pid) and "tinyllama_grpo.py" in args)


def start(*command, check=True):
    """Run a script as one process, without a launcher in between."""
    command = [sys.executable, *map(str, command)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
    if check and result.returncode:
        pytest.fail(f"{' '.join(command)} exited with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def learned(folder):
    """The weights' bytes, and what each step logged about rewards."""
    history = json.loads((folder / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    kept = [
        {k: v for k, v in row.items() if k == "reward" or k.startswith(("rewards/", "hybrid/"))} for row in history
    ]
    return (folder / "adapter_model.safetensors").read_bytes(), kept


def wait_for(condition, seconds):
    until = time.time() + seconds
    while not condition():
        assert time.time() < until, "waited too long"
        time.sleep(0.2)


def members_of_group(group):
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [row for row in rows if row[0] == str(group) and not row[1].startswith("Z")]


@pytest.fixture
def shaped_models(tmp_path):
    """Random weights in the shapes of TinyLlama-1.1B-Chat and AceMath-7B-RM, with two layers and narrow ones."""
    policy, reward_model = tmp_path / "tinyllama", tmp_path / "acemath"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32000, hidden_size=256, intermediate_size=704, num_hidden_layers=2, num_attention_heads=32,
            num_key_value_heads=4, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, dtype="bfloat16",
        )
    ).to(torch.bfloat16).save_pretrained(policy)  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained("data/embedded_policy")
    tokenizer.save_pretrained(policy)
    config = Qwen2Config(
        vocab_size=152064, hidden_size=224, intermediate_size=1184, num_hidden_layers=2, num_attention_heads=28,
        num_key_value_heads=4, max_position_embeddings=4096,
    )  # fmt: skip
    config.num_labels = 1
    Qwen2ForSequenceClassification(config).to(torch.bfloat16).save_pretrained(reward_model)
    AutoTokenizer.from_pretrained("data/embedded_reward_model").save_pretrained(reward_model)
    return policy, reward_model
