"""`trl-hybrid eval` measures a model as a user has it, and goes on where it was stopped."""

import json
import shutil
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from trl_hybrid.cli import main
from trl_hybrid.commands import eval_loading
from trl_hybrid.commands.score import load_reward_model
from trl_hybrid.policy.transformers_sampler import TransformersSampler
from trl_hybrid.recipe.defaults import RECIPE_DEFAULTS
from trl_hybrid.runs.carried_prompt import CARRIED, save_system_prompt


BASE = "data/embedded_policy"
PROBLEMS = ["--dataset_name", "data/addition", "--system_prompt", "", "--max_rows", "6"]
SHORT = ["--num_samples", "2", "--max_completion_length", "40", "--batch_size", "3"]
RM_PROMPT = "Please reason step by step, and check your final answer within \\boxed{}."


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run's folder: an adapter that changes the answers a little, and the run's settings."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), LoraConfig(r=4, target_modules="all-linear")
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    model.save_pretrained(folder)
    settings = {
        "tasks": {
            "dataset_name": "data/addition", "dataset_config": None, "dataset_test_split": "test", "max_test_rows": 6,
            "system_prompt": None, "datasets": [],
        },
        "judges": {"reward_model_name_or_path": "data/embedded_reward_model", "reward_model_system_prompt": RM_PROMPT},
        "model": {"model_name_or_path": BASE},
        "training": {"temperature": 1.0, "top_p": 1.0, "max_completion_length": 40, "min_p": None},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps({"settings": settings}))
    return folder


def read(folder, name="rows"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]


def evaluate(folder, *options, model=BASE, problems=PROBLEMS):
    command = ["eval", "--model", model, *problems, *SHORT, "--output_dir", folder, *options]
    return main([str(part) for part in command])


def refused(capsys, *args, **kwargs):
    with pytest.raises(SystemExit) as stop:
        evaluate(*args, **kwargs)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_figures_are_those_of_the_rows(tmp_path, capsys):
    assert evaluate(tmp_path) == 0
    rows, result = read(tmp_path), json.loads((tmp_path / "eval.json").read_text())
    assert len(rows) == 6
    assert all(len(row["samples"]) == 2 for row in rows)
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is 286 + 859?"}]
    for field, verdict in (("correct", "lenient"), ("strict", "strict")):
        right = [sample[field] for row in rows for sample in row["samples"]]
        figures = result["figures"][verdict]
        assert figures["mean_of_2"]["value"] == figures["pass@1"]["value"] == pytest.approx(sum(right) / 12)
        assert figures["greedy"]["value"] == pytest.approx(sum(row["greedy"][field] for row in rows) / 6)
        assert figures["pass@2"]["value"] == pytest.approx(sum(any(right[i : i + 2]) for i in range(0, 12, 2)) / 6)
    assert result["settings"]["decoding"]["temperature"] == 0.8
    assert result["settings"]["problems"]["split"] == "test"
    shown = capsys.readouterr().out
    assert f"{100 * result['figures']['lenient']['pass@2']['value']:.1f} [" in shown
    assert "6 problems, 0 of them cannot be judged" in shown


def test_a_finished_run_needs_nothing_but_its_name(trained, capsys):
    assert main(["eval", "--model", str(trained), "--base", "--reward_model", "--num_samples", "2"]) == 0
    folder = trained / "eval"
    result = json.loads((folder / "eval.json").read_text())
    after, before = read(folder), read(folder, "base_rows")
    assert [row["prompt"] for row in after] == [row["prompt"] for row in before]
    assert all("score" in sample for row in after + before for sample in row["samples"])
    assert after[0]["sampling"]["adapter"] == str(trained)
    assert "adapter" not in before[0]["sampling"]
    assert after[0]["sampling"]["temperature"] == 1.0
    assert after[0]["sampling"]["reward_model"]["system_prompt"] == RM_PROMPT
    assert [row["greedy"]["completion"] for row in after] != [row["greedy"]["completion"] for row in before]
    for name, gain in result["difference"]["lenient"].items():
        figures = [part["figures"]["lenient"][name]["value"] for part in (result["base"], result)]
        assert gain["value"] == pytest.approx(figures[1] - figures[0])
    assert "best_of_2" in result["difference"]["lenient"]
    shown = capsys.readouterr().out
    assert "From the run's own settings: dataset_name='data/addition'" in shown
    assert "before" in shown
    assert "gain" in shown


class TestSystemPrompt:
    """The command line's, the run's, the model's own, the recipe's: the first that there is, and it is said."""

    PROBLEMS = ("--dataset_name", "data/addition", "--max_rows", "4", "--num_samples", "1")

    def prompts(self, folder, *options, model):
        evaluate(folder, *options, model=model, problems=self.PROBLEMS)
        return {message["content"] for row in read(folder) for message in row["prompt"] if message["role"] == "system"}

    def test_the_embedded_policy_says_that_it_wants_none(self, tmp_path, capsys):
        assert self.prompts(tmp_path, model=BASE) == set()
        shown = capsys.readouterr().out
        assert "System prompt (what the model was trained with, as its trl_hybrid.json says): none" in shown
        assert any(sample["correct"] for row in read(tmp_path) for sample in [*row["samples"], row["greedy"]])

    def test_a_model_that_says_nothing_gets_the_recipes(self, tmp_path, capsys):
        silent = shutil.copytree(BASE, tmp_path / "model", ignore=shutil.ignore_patterns(CARRIED))
        assert self.prompts(tmp_path / "eval", model=silent) == {RECIPE_DEFAULTS["system_prompt"]}
        assert "as the model does not say its own; --system_prompt '' for none): 'Solve" in capsys.readouterr().out

    def test_an_adapter_goes_before_its_base_and_the_run_before_both(self, tmp_path, trained, capsys):
        adapter = shutil.copytree(trained, tmp_path / "run" / "adapter", ignore=shutil.ignore_patterns("summary.json"))
        assert self.prompts(tmp_path / "a", model=adapter) == set()  # its base's
        save_system_prompt(adapter, "Think.")
        assert self.prompts(tmp_path / "b", model=adapter) == {"Think."}
        (adapter / "settings.json").write_text('{"settings": {"tasks": {"system_prompt": "Hurry."}}}')
        assert self.prompts(tmp_path / "c", model=adapter) == {"Hurry."}
        assert "System prompt (the run's own): 'Hurry.'" in capsys.readouterr().out
        assert self.prompts(tmp_path / "d", "--system_prompt", "Now.", model=adapter) == {"Now."}

    def test_three_judged_answers_are_shown(self, tmp_path, capsys):
        file = tmp_path / "problems.jsonl"
        golds = ["14", "proof", "1", "2"]
        file.write_text(
            "".join(json.dumps({"question": "What is 286 + 859?", "answer": gold}) + "\n" for gold in golds)
        )
        evaluate(tmp_path / "eval", problems=["--dataset_name", file])
        said = capsys.readouterr().out.split("answered greedily:\n")[1].split("\n\n")[0].splitlines()
        row = read(tmp_path / "eval")[0]
        assert said[:2] == ["  What is 286 + 859?", f"      {row['greedy']['completion']}"]
        assert said[2] == f"      wrong: {row['greedy']['answer']} for 14"
        assert said[5] == f"      cannot be judged: {row['greedy']['answer']} for proof"
        assert len(said) == 9


def test_interrupted_it_goes_on_to_what_an_unbroken_run_gives(tmp_path, monkeypatch, capsys):
    answer, calls = TransformersSampler.answer, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(*args)

    with monkeypatch.context() as patch:
        patch.setattr(TransformersSampler, "answer", interrupted)
        assert evaluate(tmp_path / "a") == 130
    assert "goes on after the problems that are answered" in capsys.readouterr().err
    assert len(read(tmp_path / "a")) == 3
    assert evaluate(tmp_path / "a", "--batch_size", "2") == 0
    assert "holds 3 of 6 problems already" in capsys.readouterr().out
    assert evaluate(tmp_path / "b") == 0
    for name in ("rows.jsonl", "eval.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_other_settings_in_the_same_folder_are_refused(tmp_path, capsys):
    evaluate(tmp_path)
    before = (tmp_path / "rows.jsonl").read_bytes()
    said = refused(capsys, tmp_path, "--temperature", "0.5")
    assert '{"temperature": 0.8}' in said
    assert "--output_dir, or write both anew by --overwrite" in said
    assert "its `prompt`" in refused(capsys, tmp_path, "--system_prompt", "Think.")
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    assert evaluate(tmp_path, "--temperature", "0.5", "--overwrite") == 0
    assert (tmp_path / "rows.jsonl").read_bytes() != before


def test_other_weights_under_the_same_name_are_refused(tmp_path, trained, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    evaluate(tmp_path / "eval", model=run)
    weights = run / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert '"weights"' in refused(capsys, tmp_path / "eval", model=run)


def test_problems_that_the_run_was_trained_on_are_said_to_be(tmp_path, trained, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    summary["settings"]["tasks"]["dataset_train_split"] = "test"
    (run / "summary.json").write_text(json.dumps(summary))
    evaluate(tmp_path / "a", model=run, problems=["--max_rows", "3"])
    assert "The model was trained on the split 'test' of these problems" in capsys.readouterr().out
    evaluate(tmp_path / "b", model=run, problems=["--max_rows", "3", "--dataset_split", "train"])
    assert "trained on" not in capsys.readouterr().out


def test_golds_that_cannot_be_judged_are_counted_and_left_out(tmp_path):
    file = tmp_path / "problems.jsonl"
    rows = [("What is 2 + 3?", "5"), ("What is 7 + 8?", "nan"), ("Is it even?", "proof"), ("What is 20 + 4?", "24")]
    file.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    evaluate(tmp_path / "eval", problems=["--dataset_name", file, "--system_prompt", ""])
    result = json.loads((tmp_path / "eval" / "eval.json").read_text())
    assert (result["counts"]["problems"], result["counts"]["unjudgeable"]) == (4, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "no/such-model"], "The model 'no/such-model' cannot be loaded"),
        (["--dataset_name", "none.jsonl"], "'none.jsonl' does not exist"),
        (["--dataset_solution_column", "answr"], "answr"),
        (["--dataset_split", "validation"], "validation"),
        (["--num_samples", "0"], "--num_samples must be at least 1, got 0"),
        (["--temperature", "0"], "--temperature must be above 0, got 0.0"),
        (["--top_p", "1.5"], "--top_p must be above 0 and at most 1, got 1.5"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--base"], "--base must name what to compare it with"),
        (["--reward_model"], "--reward_model must name one"),
        (["--vllm_max_model_length", "64"], "--vllm_max_model_length is an option of vLLM. Add --backend vllm"),
        (["--backend", "vllm", "--vllm_max_model_length", "0"], "--vllm_max_model_length must be at least 1, got 0"),
        (["--vllm_gpu_memory_utilization", "90"], "must be above 0 and at most 1, got 90.0"),
        (["--output_dir", "README.md"], "must be a folder, got the file 'README.md'"),
    ],
)
def test_bad_input_says_the_rule_and_exits_with_2(tmp_path, capsys, options, said):
    message = refused(capsys, tmp_path, *options)
    assert said in message
    assert "Traceback" not in message
    assert not (tmp_path / "eval.json").exists()


def test_without_vllm_its_backend_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert "pip install 'trl-hybrid[vllm]'" in refused(capsys, tmp_path, "--backend", "vllm")
    assert not (tmp_path / "rows.jsonl").exists()


def test_vllm_starts_before_the_reward_model_and_ends_before_the_next_one(tmp_path, trained, monkeypatch):
    told = []

    class Engine(TransformersSampler):
        """Stands in for vLLM and tells when it starts and ends."""

        def __init__(self, source, dtype, share, length):
            told.append((source.name, share, length))
            super().__init__(source, dtype)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            told.append("end")

    def load(judges, reserved=0):
        told.append(("reward model", reserved))
        return load_reward_model(judges, reserved)

    monkeypatch.setattr(eval_loading, "VllmSampler", Engine)
    monkeypatch.setattr(eval_loading, "load_reward_model", load)
    options = ["--backend", "vllm", "--base", "--reward_model"]
    assert evaluate(tmp_path / "a", *options, model=trained) == 0
    longest = 11 + 40  # every prompt has 11 tokens, and the answer may have 40
    assert told == [(str(trained), 0.5, longest), ("reward model", 0), "end", (BASE, 0.5, longest), "end"]
    assert read(tmp_path / "a")[0]["samples"][0]["score"] is not None

    told.clear()
    settings = ["--vllm_gpu_memory_utilization", "0.3", "--vllm_max_model_length", "60"]
    assert evaluate(tmp_path / "b", "--backend", "vllm", *settings) == 0
    assert evaluate(tmp_path / "c", "--backend", "vllm") == 0
    assert told == [(BASE, 0.3, 60), "end", (BASE, 0.9, longest), "end"]
    assert read(tmp_path / "b")[0]["sampling"]["max_model_length"] == 60
    assert "max_model_length" not in read(tmp_path / "c")[0]["sampling"]


def test_without_a_data_set_it_is_asked_for(tmp_path, capsys):
    assert "Name them: --dataset_name" in refused(capsys, tmp_path, problems=[])


def test_several_processes_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "Start it without `accelerate launch`" in refused(capsys, tmp_path)


def test_help_fits_a_screen_and_has_an_example(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        main(["eval", "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert len(shown.splitlines()) <= 42
    assert "trl-hybrid eval --model runs/x --base" in shown
