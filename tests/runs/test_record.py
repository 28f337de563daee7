"""One reader of what a run says of itself, in folders of every age and state."""

import json
from pathlib import Path

import pytest
from run_folders import SETTINGS, changed, checkpoint, save_settings

from trl_hybrid.errors import InputError
from trl_hybrid.runs.record import RunRecord, read_record, record_of_model
from trl_hybrid.runs.settings import write_settings


SUMMARY = {
    "accuracy": {"greedy": {"before": 0.25, "after": 0.5}, "mean_of_8": {"before": float("nan"), "after": None}},
    "test_rows": 71,
    "test_file": "data/addition/test.jsonl",
    "steps": 6,
    "seconds": {"total": 90.0, "training": 60.0, "steps": 168.0},
    "versions": {"trl": "1.15.0"},
    "commits": {"model": "a" * 40, "reward_model": None},
    "settings": SETTINGS,
}


def save_summary(folder, **changes):
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, **changes}))


def test_a_finished_run(tmp_path):
    save_settings(tmp_path / "mine")
    save_summary(tmp_path / "mine")
    record = read_record(tmp_path / "mine")
    assert record.name == "mine"
    assert (record.base_model, record.reward_model) == ("data/embedded_policy", "data/embedded_reward_model")
    assert record.data == ["data/addition"]
    assert (record["max_steps"], record["lora_r"], record.asked["system_prompt"]) == (6, 16, None)
    assert record.steps == 6
    assert record.accuracy == {"greedy": (0.25, 0.5), "mean_of_8": (None, None)}
    assert (record.test_rows, record.test_file, record.seconds) == (71, "data/addition/test.jsonl", 168.0)
    assert record.commits == {"model": "a" * 40, "reward_model": None}
    assert record.versions == {"trl": "1.16.0"}  # those of the last start


def test_a_run_under_way_and_one_killed_before_it_wrote_anything(tmp_path):
    save_settings(tmp_path)
    record = read_record(tmp_path)
    assert (record.steps, record.accuracy, record.seconds, record.commits) == (None, {}, 0.0, {})
    assert record.base_model == "data/embedded_policy"
    assert record.at(record.steps) is record
    (tmp_path / "killed" / "completions").mkdir(parents=True)
    killed = read_record(tmp_path / "killed")
    assert killed == RunRecord(tmp_path / "killed")
    assert (killed.base_model, killed.reward_model, killed.data, killed.asked) == ("", "", [], {})


def test_a_run_that_goes_on_is_what_it_was_last_asked_for_and_its_saved_model_what_it_was_then(tmp_path):
    asked = changed(max_steps=10, learning_rate=0.3, hybrid_alpha=0.2)
    changes = [
        {"step": 2, "settings": {"learning_rate": [0.1, 0.2], "max_steps": [4, 6]}},
        {"step": 6, "settings": {"learning_rate": [0.2, 0.3], "max_steps": [6, 10], "hybrid_alpha": [0.1, 0.2]}},
    ]
    write_settings(tmp_path, asked, changes)
    save_summary(tmp_path, settings={})
    record = read_record(tmp_path)
    assert record.changes == changes
    rates = {step: record.at(step)["learning_rate"] for step in (None, 7, 6, 3, 2)}
    assert rates == {None: 0.3, 7: 0.3, 6: 0.2, 3: 0.2, 2: 0.1}
    assert [record.at(step)["max_steps"] for step in (None, record.steps, 1)] == [10, 6, 4]
    assert [record.at(step)["hybrid_alpha"] for step in (7, 1)] == [0.2, 0.1]
    assert record.at(1)["num_generations"] == 8
    assert record.at(1).settings["model"] == record.settings["model"]


def test_older_and_foreign_summaries(tmp_path):
    """Without settings.json, commits and accuracy; a cold start's, whose seconds are one number."""
    cold_start = {"steps": 4, "seconds": 12.5, "settings": {"model": SETTINGS["model"]}, "versions": {"trl": "1.14.0"}}
    (tmp_path / "summary.json").write_text(json.dumps(cold_start))
    record = read_record(tmp_path)
    assert (record.steps, record.seconds, record.commits, record.accuracy) == (4, 0.0, {}, {})
    assert (record.base_model, record.versions, record.reward_model) == ("data/embedded_policy", {"trl": "1.14.0"}, "")
    (tmp_path / "settings.json").write_text('{"tab_width": 4}')  # another program's
    assert read_record(tmp_path) == record
    (tmp_path / "summary.json").write_text(json.dumps({**cold_start, "seconds": {"total": 12.5}}))
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("content", ['{"settings": 1}', '{"settings": {"editor": "vi"}}', "{}"])
def test_settings_of_another_program_are_none(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    assert read_record(tmp_path) == RunRecord(tmp_path)


def test_a_setting_that_an_older_version_did_not_write_is_asked_for(tmp_path):
    save_settings(tmp_path)
    with pytest.raises(InputError, match=r"must say its hybrid_k, and those in .* do not\. Add it to settings"):
        read_record(tmp_path)["hybrid_k"]


def test_the_parts_of_a_mixture_are_its_data(tmp_path):
    save_settings(tmp_path, changed(datasets=[{"path": "a/b"}, {"path": "c/d"}]))
    assert read_record(tmp_path).data == ["a/b", "c/d"]


def test_what_was_local_elsewhere_is_no_id_here_at_no_step(tmp_path, monkeypatch):
    changes = [{"step": 2, "settings": {"dataset_name": ["data/embedded_policy", "data/addition"]}}]
    write_settings(tmp_path, {**SETTINGS, "judges": {"reward_model_name_or_path": "lab/rm"}}, changes)
    here = read_record(tmp_path)
    assert here.local == ["data/addition", "data/embedded_policy"]
    assert (here.base_model, here.data) == ("data/embedded_policy", ["data/addition"])
    monkeypatch.chdir(tmp_path)
    away = read_record(tmp_path)
    assert (away.base_model, away.data, away.reward_model) == ("./data/embedded_policy", ["./data/addition"], "lab/rm")
    assert away.at(1).data == ["./data/embedded_policy"]


@pytest.mark.parametrize("file", ["settings.json", "summary.json"])
@pytest.mark.parametrize(("content", "said"), [("{", "but is none: Expecting"), ("[1]", r"got \[1\]")])
def test_a_broken_file_is_named_with_what_to_do(tmp_path, file, content, said):
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=rf"{file}' must hold a JSON object, .*{said}.*\. Mend or remove it\."):
        read_record(tmp_path)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"must be given, got '.*none', which is none below .*\. Try: ls runs"):
        read_record(tmp_path / "none")


class TestRecordOfModel:
    def test_it_is_found_from_the_run_s_folder_and_the_folders_in_it(self, tmp_path):
        (tmp_path / "merged").mkdir()
        assert record_of_model(str(tmp_path / "merged")).settings == {}
        assert record_of_model("some/id") == RunRecord(Path("some/id"))
        save_settings(tmp_path)
        for folder in (tmp_path, tmp_path / "merged"):
            assert record_of_model(str(folder)).settings == SETTINGS
        (tmp_path / "merged" / "settings.json").write_text('{"settings": {"tasks": {"system_prompt": "Hurry."}}}')
        assert record_of_model(str(tmp_path / "merged")).asked == {"system_prompt": "Hurry."}

    def test_a_checkpoint_and_the_saved_model_have_the_settings_of_their_step(self, tmp_path):
        changes = [
            {"step": step, "settings": {"system_prompt": [f"until {step}", f"until {step + 2}"]}} for step in (2, 4)
        ]
        write_settings(tmp_path, changed(system_prompt="until 6"), changes)
        prompts = {step: record_of_model(str(checkpoint(tmp_path, step)))["system_prompt"] for step in (2, 3, 4, 5)}
        assert prompts == {2: "until 2", 3: "until 4", 4: "until 4", 5: "until 6"}
        assert record_of_model(str(tmp_path))["system_prompt"] == "until 6"
        save_summary(tmp_path, steps=4)
        assert record_of_model(str(tmp_path))["system_prompt"] == "until 4"
