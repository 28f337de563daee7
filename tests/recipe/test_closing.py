"""A run's end: its summary says how long it took, and nothing that can be made again costs the check of the model."""

import errno
import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from report_runs import row, write_history, write_settings, write_table
from transformers import AutoTokenizer
from trl import ModelConfig

from trl_hybrid.errors import InputError
from trl_hybrid.hub.saved import Trained, probe_logits
from trl_hybrid.recipe.closing import finish, summary_of
from trl_hybrid.recipe.options import JudgeArguments, TaskArguments


SETTINGS = {
    "tasks": asdict(TaskArguments()),
    "judges": asdict(JudgeArguments(reward_model_name_or_path="data/embedded_reward_model")),
    "model": asdict(ModelConfig(model_name_or_path="data/embedded_policy")),
}


def test_seconds_are_those_of_all_steps_and_of_the_last_attempt(tmp_path):
    times = {"time/generation": 2.0, "time/judging": 1.0, "time/update": 3.0}
    history = [{"step": 1, **times}, {"step": 3, **times}, {"step": 3, "train_runtime": 7.5}]
    trainer = SimpleNamespace(args=SimpleNamespace(seed=1), state=SimpleNamespace(global_step=3, log_history=history))
    summary = summary_of(tmp_path, trainer, None, SETTINGS, seconds=9.25)
    assert summary["seconds"] == {"total": 9.2, "training": 7.5, "steps": 18.0}
    assert summary["steps"] == 3


class TestFinish:
    @pytest.fixture
    def close(self, tmp_path, policy, monkeypatch):
        """Finish a run of three steps whose saved model is the embedded policy, begun 100 seconds ago."""
        tokenizer = AutoTokenizer.from_pretrained("data/embedded_policy")
        policy.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        write_settings(tmp_path)
        write_history(tmp_path, 3)
        write_table(tmp_path, 3, [row(3, "What is 5 + 7?", f"It is {n}.", n == 12, n, n / 20) for n in (7, 12)])
        rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
        trainer = SimpleNamespace(
            args=SimpleNamespace(seed=1, trust_remote_code=False),
            state=SimpleNamespace(global_step=3, log_history=[*rows, {"step": 3, "train_runtime": 7.5}]),
        )
        monkeypatch.setattr("trl_hybrid.recipe.closing.time.time", lambda: 1100.0)

        def close(logits=None):
            trained = Trained(probe_logits(policy, tokenizer) if logits is None else logits, "float32", 1e-3)
            finish(tmp_path, trainer, None, SETTINGS, trained, started=1000.0)

        return close

    def test_says_that_the_model_was_checked_and_how_long_all_took(self, close, tmp_path, capsys):
        close()
        shown = capsys.readouterr().out
        assert "could not be made" not in shown
        assert "-> right, RM score 12.00" in shown
        assert "Saved model checked: ok" in shown
        assert shown.splitlines()[-1] == "Total time:          1 min 40 s"
        assert {"summary.json", "curves.png", "report.html"} <= {path.name for path in tmp_path.iterdir()}

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyError("no such font")])
    def test_a_picture_that_cannot_be_drawn_costs_nothing_else(self, close, tmp_path, capsys, monkeypatch, error):
        drawn = Figure.savefig

        def savefig(self: Figure, target: Any, **how: Any) -> None:
            if target == tmp_path / "curves.png":
                raise error
            drawn(self, target, **how)

        monkeypatch.setattr(Figure, "savefig", savefig)
        close()
        shown = capsys.readouterr().out
        assert f"curves.png could not be made ({type(error).__name__}: " in shown
        assert "report.html could not be made" not in shown
        assert "Saved model checked: ok" in shown
        assert {"summary.json", "report.html"} <= {path.name for path in tmp_path.iterdir()}

    def test_a_page_that_cannot_be_written_says_how_to_write_it_again(self, close, tmp_path, capsys):
        (tmp_path / "report.html").mkdir()
        close()
        shown = capsys.readouterr().out
        assert f"To write it again: trl-hybrid report {tmp_path}" in shown
        assert "Saved model checked: ok" in shown

    def test_without_a_summary_the_model_is_checked_and_the_run_is_not_finished(self, close, tmp_path, capsys):
        (tmp_path / "summary.json").mkdir()
        with pytest.raises(IsADirectoryError):
            close()
        shown = capsys.readouterr().out
        assert "Saved model checked: ok" in shown
        assert "Share it" not in shown

    def test_a_saved_model_that_is_another_one_is_said_after_the_report(self, close, tmp_path, policy, capsys):
        other = 2 * probe_logits(policy, AutoTokenizer.from_pretrained("data/embedded_policy"))
        with pytest.raises(InputError, match="its logits differ"):
            close(other)
        assert "checked: ok" not in capsys.readouterr().out
        assert (tmp_path / "report.html").exists()
