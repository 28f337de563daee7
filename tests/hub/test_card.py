"""The card says what was paid, what came of it and what may be done with it, and nothing that it cannot know."""

import json
import re

import pytest
from hub_run import SYSTEM_PROMPT, make_run
from huggingface_hub import HfApi, ModelCard

from trl_hybrid.hub.card import make_card
from trl_hybrid.hub.origin import licence_of
from trl_hybrid.policy.source import weights_digest
from trl_hybrid.runs.record import read_record


ON_HUB = {"dataset_name": "openai/gsm8k", "dataset_config": "main"}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    def card(licences=None, summary=None, **kwargs):
        folder = make_run(tmp_path_factory.mktemp("run"), **kwargs)
        written = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**written, **(summary or {})}))
        made = make_card(read_record(folder), "me/tiny", licences or {})
        return ModelCard(made.content)

    return card


def test_header_of_what_is_on_the_hub(make):
    data = make(base="TinyLlama/TinyLlama-1.1B-Chat-v1.0", **ON_HUB).data.to_dict()
    assert data["base_model"] == "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    assert data["datasets"] == ["openai/gsm8k"]
    assert data["library_name"] == "peft"
    result = data["model-index"][0]["results"][0]
    assert result["dataset"] == {"name": "openai/gsm8k", "type": "openai/gsm8k", "config": "main", "split": "test"}
    assert [metric["value"] for metric in result["metrics"]] == [0.9609, 0.92]


def test_header_names_no_licence_and_nothing_local(make):
    card = make(licences={"model": "apache-2.0"}, adapter=False)
    assert {"license", "base_model", "datasets"}.isdisjoint(card.data.to_dict())
    assert card.data.library_name == "transformers"
    assert "from peft" not in card.text


def test_reward_is_told_as_it_was_paid(make):
    text = make(hybrid_alpha=0.05, hybrid_beta=0.2, hybrid_bounds="group", reward_model_revision="v2").text
    for row in (
        "| verifier | `MathVerifier`, method `math_verify` |",
        f"[nvidia/AceMath-7B-RM](https://huggingface.co/nvidia/AceMath-7B-RM), revision `{'c' * 40}` |",
        "| its system prompt | `Please reason step by step, and check your final answer within \\boxed{}.` |",
        "| alpha | 0.05 |",
        "| beta | 0.2 |",
        "| bounds | group |",
        "min, max: over all completions of the same prompt",
        "| difficulty weight | 0.4 to 3.0, k = 6.0, sigma of each group |",
    ):
        assert row in text
    assert "difficulty weight | off |" in make(hybrid_difficulty_weighting=False).text
    variant = make(hybrid_scale_free=True, hybrid_weight_mean_one=True, reward_model_system_prompt="").text
    assert "k = 6.0 in running means of sigma, sigma of each group, divided by the step's mean |" in variant
    assert "| its system prompt | none |" in variant


def test_the_verifier_is_told_as_it_was_set(make):
    text = make(verifier_method="flexible", verifier_correct_reward=2.0, verifier_format_reward=0.1).text
    assert "| verifier | `MathVerifier`, method `flexible`, 2.0 for a right answer and 0.1 for the form of" in text


def test_one_judge_alone_has_no_bands(make):
    text = make(reward_mode="verifier").text
    assert "| what is optimised (`reward_mode`) | `verifier` |" in text
    assert "| alpha |" not in text
    assert "(1 - beta)" not in text


def test_figures_before_and_after(make):
    text = make().text
    assert "Accuracy on 256 problems that training did not see (`test.jsonl`)" in text
    assert "| greedy | 30.0 % | 96.1 % |" in text
    assert "| mean of 8 | unknown | 92.0 % |" in text
    assert "![Learning curves](curves.png)" in text
    unmeasured = make(summary={"accuracy": {}})
    assert "Held-out accuracy was not measured." in unmeasured.text
    assert unmeasured.data.eval_results is None


def test_time_is_that_of_all_steps_and_nothing_is_said_of_what_is_unknown(make):
    assert "(local). 40 steps in 2.8 minutes.\n" in make().text
    assert "(local). 40 steps.\n" in make(summary={"seconds": {"total": 90.0}}).text
    assert "(local).\n" in make(summary={"steps": None, "seconds": {}}).text


def test_held_out_problems_are_named_without_folders(make):
    assert "(`openai/gsm8k:test`)" in make(summary={"test_file": "openai/gsm8k:test"}, **ON_HUB).text
    assert "(`test.jsonl`)" in make(summary={"test_file": "/home/me/test.jsonl"}).text


def write_evaluation(folder, name, local=()):
    """Write what `trl-hybrid eval` leaves in a run's folder."""

    def figures(value):
        return {"lenient": {"greedy": {"value": value, "low": value - 0.1, "high": value + 0.1},
                            "pass@1": {"value": 0.1, "low": 0.1, "high": 0.1},
                            "best_of_8": {"value": None, "low": None, "high": None}}, "strict": {}}  # fmt: skip

    result = {
        "model": {"weights": {"data/embedded_policy": "0" * 16, "runs/x": weights_digest(str(folder))}},
        "figures": figures(0.5), "counts": {"problems": 100}, "base": {"figures": figures(0.25)},
        "settings": {"problems": {"name": name, "config": "main", "split": "test"}}, "local": list(local),
    }  # fmt: skip
    (folder / "eval").mkdir()
    (folder / "eval" / "eval.json").write_text(json.dumps(result))


def test_evaluation_that_lies_in_the_run_is_told_too(tmp_path, caplog):
    folder = make_run(tmp_path / "run")
    record = read_record(folder)
    assert "trl-hybrid eval" not in make_card(record, "me/tiny", {}).content

    write_evaluation(folder, "openai/gsm8k")
    text = make_card(record, "me/tiny", {}).text
    assert "`trl-hybrid eval` on 100 problems of [openai/gsm8k]" in text
    assert "configuration `main`, split `test`, with 95 % intervals" in text
    assert "| | before | after |\n|---|---|---|\n| greedy | 25.0 % [15.0, 35.0] | 50.0 % [40.0, 60.0] |" in text
    assert "| best of 8 | unknown | unknown |" in text

    # The run went on after it was measured.
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert "trl-hybrid eval" not in make_card(record, "me/tiny", {}).content
    assert f"Measure these: trl-hybrid eval --model {folder} --overwrite" in caplog.text


def test_licences_are_named_and_none_is_claimed(make):
    text = make(licences={"model": "apache-2.0", "reward_model": "cc-by-nc-4.0"}).text
    assert "| base model: `embedded_policy` (a local folder) | apache-2.0 |" in text
    assert "AceMath-7B-RM) | cc-by-nc-4.0 |" in text
    assert "CC-BY-NC-4.0: non-commercial use only. Its scores shaped these weights." in text
    assert "This card claims no licence for these weights." in text
    free = make(reward_model_name_or_path="my/own").text
    assert "my/own) | not known here |" in free
    assert "non-commercial" not in free


def test_system_prompt_keeps_its_place_in_code_and_tables(make):
    text = make(system_prompt=SYSTEM_PROMPT, reward_model_system_prompt="a | b\nc `d`").text
    assert "| its system prompt | `a \\| b c 'd'` |" in text
    assert f'{{"role": "system", "content": {SYSTEM_PROMPT!r}}},' in text


@pytest.mark.parametrize("adapter", [True, False])
def test_snippet_without_system_prompt_is_code(make, adapter):
    (code,) = re.findall(r"```python\n(.*?)```", make(adapter=adapter, max_completion_length=40).text, re.DOTALL)
    compile(code, "card", "exec")
    assert "system" not in code
    assert ("from peft import AutoPeftModelForCausalLM\n" in code) is adapter
    assert "name = 'me/tiny'\n" in code
    assert "max_new_tokens=40" in code


def test_mixture_names_its_parts(make):
    card = make(datasets=[{"path": "a/first", "split": "train"}, {"path": "data/addition", "split": "train"}])
    assert "[a/first](https://huggingface.co/datasets/a/first), `addition` (local)" in card.text
    assert "training did not see (split off the data named below)" in card.text
    assert card.data.datasets == ["a/first"]
    assert card.data.eval_results[0].dataset_type == "custom"


def test_licence_of_a_local_copy_is_what_its_card_says(tmp_path):
    api = HfApi()
    assert licence_of(str(tmp_path), api) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    assert licence_of(str(tmp_path), api) == "mit"
    assert licence_of("/copies/AceMath-7B-RM", api) is None  # a name says nothing about what lies there
    assert licence_of("nvidia/AceMath-7B-RM", api) == "cc-by-nc-4.0"
    # Nothing is guessed where the Hub cannot be asked.
    assert licence_of("someone/some-model", api) is None


def test_models_and_data_that_were_local_stay_so_in_another_folder(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", reward_model_name_or_path="data/embedded_reward_model")
    write_evaluation(folder, "data/addition", ["data/addition"])
    monkeypatch.chdir(tmp_path)
    made = make_card(read_record(folder), "me/tiny", {})
    assert made.data.base_model is None
    assert made.data.datasets is None
    assert "huggingface.co/data" not in made.content
    assert "on 100 problems of `addition` (local)" in made.text
    assert "`addition` (local)" in made.text
    assert "`embedded_policy` (a local folder)" in made.text
