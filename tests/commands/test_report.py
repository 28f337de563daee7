"""`trl-hybrid report` writes the page where it is asked to."""

import json
import webbrowser

import pytest

from trl_hybrid.cli import main


@pytest.fixture
def run_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.jsonl").write_text(json.dumps({"step": 1, "hybrid/pass_rate": 0.5}) + "\n")
    return tmp_path / "run"


def test_the_page_lies_in_the_runs_folder_and_can_be_opened(run_folder, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["report", str(run_folder), "--open"]) == 0
    page = run_folder / "report.html"
    assert capsys.readouterr().out == f"Open in a browser: {page}\n"
    assert opened == [page.as_uri()]
    assert "<h1>run</h1>" in page.read_text()


def test_the_page_lies_where_it_was_asked_for(run_folder, tmp_path):
    assert main(["report", str(run_folder), "--output", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").exists()
    assert not (run_folder / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["empty"], "There is no run in 'empty'"),
        (["missing"], "A run's folder must be given, got 'missing'"),
        (["run", "--max_completions", "0"], "--max_completions must be at least 1, got 0"),
        (["run", "--output", "empty"], "--output must be a file, got the folder 'empty'"),
    ],
)
def test_what_cannot_be_done_is_said(run_folder, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["report", *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_fits_a_screen_and_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 40
    assert "trl-hybrid report runs/embedded" in shown
