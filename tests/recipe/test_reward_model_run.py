"""A run that trains a reward model: what it refuses, and whose answers it gathers where."""

import json

import pytest
from trl import RewardConfig

from trl_hybrid.errors import InputError
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.pair_options import PairArguments
from trl_hybrid.recipe.reward_model import RewardModelRun, check_base, refuse_what_is_not_done
from trl_hybrid.runs.overwrite import of_a_run, places_read


@pytest.fixture
def parsed(monkeypatch, reward_recipe):
    """Parse a command line as the recipe does."""

    def parse(*options):
        monkeypatch.setattr("sys.argv", ["train_reward_model.py", *map(str, options)])
        run = RewardModelRun()
        run.parse(reward_recipe.DEFAULTS)
        return run

    return parse


def test_every_policy_answers_at_every_temperature_with_its_own_random_numbers(parsed, tmp_path):
    run = parsed(
        *("--config", "recipes/configs/reward_model_embedded.yaml", "--output_dir", tmp_path / "rm", "--seed", 7),
        *("--policies", "data/embedded_policy", "data/embedded_policy", "--temperatures", 0.5, 1.0),
    )
    turns = run._turns()
    assert [turn.file for turn in turns] == ["samples.jsonl", "samples-2.jsonl", "samples-3.jsonl", "samples-4.jsonl"]
    drawn = [(turn.decoding.temperature, turn.decoding.seed) for turn in turns]
    assert drawn == [(0.5, 7), (1.0, 8), (0.5, 9), (1.0, 10)]
    assert turns[0].made_by()["base_model"] == "data/embedded_policy"
    assert run.renderer.max_length == 256
    assert run.renderer.system_prompt is None


def test_rows_are_as_long_as_the_base_can_read(parsed, tmp_path):
    options = ("--config", "recipes/configs/reward_model_embedded.yaml", "--output_dir", tmp_path / "rm")
    assert parsed(*options, "--max_length", 4096).renderer.max_length == 512


def test_what_was_answered_belongs_to_the_run_and_what_it_reads_does_not(tmp_path):
    for name in ("samples.jsonl", "samples-2.jsonl", "mine.jsonl"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in of_a_run(tmp_path)] == ["samples-2.jsonl", "samples.jsonl"]
    asked = {"pairs": {"policies": ["data/embedded_policy", "no/such"], "samples": [str(tmp_path / "mine.jsonl")]}}
    assert dict(places_read(asked)).keys() == {"policies", "samples"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policies", "runs/none"], "'runs/none' does not exist"),
        (["--policies", "data/embedded_reward_model"], "must be a language model that writes answers"),
        (["--model_name_or_path", "data/addition"], "base of the reward model"),
        (["--dataset_streaming", "true"], "dataset_streaming is for recipes/tinyllama_grpo.py only"),
        (["--save_strategy", "best", "--eval_strategy", "epoch"], "save_strategy 'best'"),
        (["--temperatures", "0"], "temperatures must be one or more numbers above 0"),
        (["--held_out_share", "0"], "held_out_share must be between 0 and 1; got 0.0"),
        (["--report_to", "nobody"], "report_to must be"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_made(parsed, tmp_path, options, said):
    config = ("--config", "recipes/configs/reward_model_embedded.yaml", "--output_dir", tmp_path / "rm")
    with pytest.raises(InputError, match=said):
        parsed(*config, *options)
    assert not (tmp_path / "rm").exists()


def test_answers_from_files_must_be_judged(parsed, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "1 + 1?", "solution": "2", "samples": [{"completion": "2"}]}) + "\n")
    run = parsed(
        *("--config", "recipes/configs/reward_model_embedded.yaml", "--output_dir", tmp_path / "rm"),
        *("--samples", file, "--policies", "not/looked-for"),
    )
    assert run.load_tasks(None) == []
    with pytest.raises(InputError, match=r"row 1 of .*rows\.jsonl.* has no correct, truncated, boxed"):
        run.answer([], None)
    assert not (tmp_path / "rm").exists()


def test_no_other_process_starts_in_the_folder_while_problems_are_answered(parsed, tmp_path, monkeypatch):
    options = ("--config", "recipes/configs/reward_model_embedded.yaml", "--output_dir", tmp_path / "rm")
    run = parsed(*options)
    with monkeypatch.context() as patch, run._answering():
        patch.setattr("trl_hybrid.runs.overwrite.HELD", {})  # as another process sees it
        for more in (("--overwrite_output_dir", "true"), ("--resume_from_checkpoint", "latest")):
            with pytest.raises(InputError, match="is under way"):
                parsed(*options, *more)


def test_a_reward_model_may_learn_on_and_an_adapter_may_not(tmp_path):
    check_base("data/embedded_policy", None, False)
    check_base("data/embedded_reward_model", None, False)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "data/embedded_policy"}')
    with pytest.raises(InputError, match="adapter"):
        check_base(str(tmp_path), None, False)


def test_a_mixture_is_refused():
    tasks = TaskArguments(datasets=[{"path": "data/addition"}])
    with pytest.raises(InputError, match="datasets is for recipes/tinyllama_grpo"):
        refuse_what_is_not_done(tasks, RewardConfig("unused", use_cpu=True, bf16=False))


def test_a_decoding_is_of_the_options():
    decoding = PairArguments(num_samples=3, max_completion_length=9).decoding(0.5, 4)
    assert (decoding.answers, decoding.max_completion_length, decoding.temperature, decoding.seed) == (3, 9, 0.5, 4)
