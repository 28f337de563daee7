"""A model learns its own right answers, and GRPO goes on from there."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hub_run import save_policy
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import SFTConfig, SFTTrainer

from trl_hybrid.cli import main
from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.cold_start import check_samples, cold_start_examples, gold_rows, right_answers
from trl_hybrid.recipe.sft import checkpoint_to_start_from, merge


PROMPT = [{"role": "user", "content": "What is 2 + 3?"}]


def sample(text, correct=True, truncated=False, boxed=False):
    return {"completion": text, "correct": correct, "truncated": truncated, "boxed": boxed}


def test_right_whole_and_distinct_answers_are_learned_those_in_a_box_first():
    row = {
        "samples": [
            sample("It is 5."),
            sample("It is 6.", correct=False),
            sample("5 and then some", truncated=True),
            sample("cannot say", correct=None),
            sample("  It is\n5.  "),
            sample("\\boxed{5}", boxed=True),
            sample("So 5."),
            sample("Hence \\boxed{5}", boxed=True),
        ]
    }
    assert right_answers(row, 9) == ["\\boxed{5}", "Hence \\boxed{5}", "It is 5.", "So 5."]
    assert right_answers(row, 3) == ["\\boxed{5}", "Hence \\boxed{5}", "It is 5."]


def test_problems_without_a_right_answer_give_no_examples():
    rows = [
        {"prompt": PROMPT, "samples": [sample("5")]},
        {"prompt": PROMPT, "samples": [sample("6", correct=False)]},
    ]
    assert cold_start_examples(rows, 4) == [
        {"prompt": PROMPT, "completion": [{"role": "assistant", "content": "5"}]},
    ]


def test_where_nothing_is_sampled_the_golds_are_learned_in_a_box():
    rows = gold_rows([{"prompt": PROMPT, "solution": "5"}, {"prompt": PROMPT, "solution": "\\frac{1}{2}"}])
    check_samples(rows, "golds")
    learned = [example["completion"][0]["content"] for example in cold_start_examples(rows, 4)]
    assert learned == ["\\boxed{5}", "\\boxed{\\frac{1}{2}}"]
    assert [row["prompt"] for row in rows] == [PROMPT, PROMPT]


def test_samples_that_are_not_judged_are_refused_by_row():
    unjudged = {"completion": "5", "truncated": False}
    rows = [{"prompt": PROMPT, "samples": [sample("5")]}, {"prompt": PROMPT, "samples": [sample("6"), unjudged]}]
    check_samples(rows[:1], "mine.jsonl")
    with pytest.raises(InputError, match=r"row 2 of 'mine\.jsonl' has no correct, boxed"):
        check_samples(rows, "mine.jsonl")
    with pytest.raises(InputError, match=r"row 1 of 'mine\.jsonl' has no completion, correct, truncated, boxed"):
        check_samples([{"prompt": PROMPT, "samples": sample("5")}], "mine.jsonl")


def test_trl_s_loss_is_on_completions_only_and_ends_with_the_end_of_turn(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained("data/embedded_policy")
    text = "2 + 3 = 5. The answer is \\boxed{5}."
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained("data/embedded_policy"),
        args=SFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False),
        train_dataset=Dataset.from_list(cold_start_examples([{"prompt": PROMPT, "samples": [sample(text)]}], 1)),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    learned = batch["labels"][0][batch["labels"][0] != -100]
    assert tokenizer.decode(learned) == f"{text}</s>\n"
    prompt = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True)["input_ids"]
    assert batch["input_ids"][0][: len(prompt)].tolist() == prompt


def test_the_cold_start_goes_on_from_the_checkpoint_that_was_asked_for(tmp_path):
    for wrong in (tmp_path, tmp_path / "mistyped"):
        with pytest.raises(InputError, match=r"no whole checkpoint to resume from in .* Check the name"):
            checkpoint_to_start_from("latest", wrong)
    (tmp_path / "samples.jsonl").write_text("")
    assert checkpoint_to_start_from("latest", tmp_path) is None  # interrupted while sampling
    for step in (10, 9):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        save_file({"weight": torch.ones(2)}, checkpoint / "adapter_model.safetensors")
        torch.save({}, checkpoint / "optimizer.pt")
    older = str(tmp_path / "checkpoint-9")
    assert checkpoint_to_start_from("latest", tmp_path) == str(tmp_path / "checkpoint-10")
    assert checkpoint_to_start_from(older, tmp_path) == older
    assert checkpoint_to_start_from("false", tmp_path) is None
    with pytest.raises(InputError, match="has reached step 10 and max_steps is 9"):
        checkpoint_to_start_from("latest", tmp_path, max_steps=9)
    with pytest.raises(InputError, match="is no whole checkpoint"):
        checkpoint_to_start_from("checkpoint-8", tmp_path)


def test_a_full_disk_leaves_the_adapter_and_its_earlier_whole_model(tmp_path, monkeypatch):
    save_policy(tmp_path)
    assert merge(tmp_path, "float32") == tmp_path / "merged"
    earlier = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert tmp_path / "merged" / "model.safetensors" in earlier

    def cut_off(model, folder, **kwargs):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", cut_off)
    with pytest.raises(OSError, match="No space left"):
        merge(tmp_path, "float32")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == earlier


def run(*command, check=True):
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=120)
    if check and result.returncode:
        pytest.fail(f"{command} exited with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_recipe_teaches_and_grpo_starts_from_what_it_leaves(tmp_path):
    folder = tmp_path / "sft"
    recipe = ["recipes/tinyllama_sft.py", "--config", "recipes/configs/embedded_sft.yaml", "--max_rows", 192]
    shown = run(*recipe, "--output_dir", folder).stdout
    assert "Saved model checked: ok" in shown
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_bytes().splitlines()]
    solved = sum(any(sample["correct"] for sample in row["samples"]) for row in rows)
    assert len(rows) == 192
    assert f"{solved} of 192 problems; {192 - solved} have none" in shown
    assert json.loads((folder / "summary.json").read_text())["problems"] == {"all": 192, "with_right_answers": solved}
    assert (folder / "adapter_model.safetensors").exists()

    assert main(["eval", "--model", str(folder), "--base", "--max_rows", "32", "--batch_size", "32"]) == 0
    gain = json.loads((folder / "eval" / "eval.json").read_text())["difference"]["lenient"]["mean_of_8"]
    assert gain["low"] > 0.02

    grpo = tmp_path / "grpo"
    run(
        *("recipes/tinyllama_grpo.py", "--config", "recipes/configs/embedded.yaml", "--max_steps", 2),
        *("--dataset_name", "data/addition_hard", "--max_completion_length", 64, "--max_test_rows", 0),
        *("--per_device_train_batch_size", 32),
        *("--model_name_or_path", folder / "merged", "--output_dir", grpo),
    )
    assert json.loads((grpo / "adapter_config.json").read_text())["base_model_name_or_path"] == str(folder / "merged")
    assert json.loads((grpo / "summary.json").read_text())["steps"] == 2
