"""`trl-hybrid check`: one line a check, a fix for each problem, and an exit status for scripts."""

import io
import json
import re
import subprocess
import sys

import pytest

from trl_hybrid.checks import judges, machine, packages, problems
from trl_hybrid.checks.finding import Finding, findings
from trl_hybrid.cli import main


EMBEDDED = ["--config", "recipes/configs/embedded.yaml"]


@pytest.fixture(autouse=True)
def _right_packages(monkeypatch):
    # Whether this machine's are right is no question of these tests.
    monkeypatch.setattr(packages, "check_packages", lambda: [Finding("ok", "Python and all")])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def check(capsys, *args):
    status = main(["check", *args])
    return status, capsys.readouterr().out


def lines(out, status):
    return re.findall(rf"^  {status} +(.*)$", out, re.M)


def test_everything_is_right_with_the_embedded_models(capsys):
    status, out = check(capsys, "--yes", *EMBEDDED, "--max_rows", "20")
    assert (status, lines(out, "problem"), lines(out, "skipped")) == (0, [], [])
    ok = lines(out, "ok")
    assert "a right answer is right (numeric)" in ok
    assert any(line.startswith("an answer that would take for ever is wrong") for line in ok)
    assert "verdicts 1 0 0 1 0 and scores 2 1 3 4 2 give the rewards 0.90 -0.10 0.10 1.10 0.00" in ok
    assert any(line.startswith("data/addition: 20 problems load") for line in ok)
    assert any(line.startswith("It answers ") for line in ok)
    assert re.search(r"It scores the gold answers of 10 problems -?\d\.\d\d to ", out)
    assert re.search(r"The policy's completion is (right|wrong) \(\w+\), with a score of ", out)
    assert "No problems" in out


def test_without_a_terminal_no_model_is_loaded_and_that_is_said(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    status, out = check(capsys)
    assert status == 0
    assert lines(out, "skipped") == [
        "No model was loaded and no completion was scored: there is no terminal to ask; add --yes to load them"
    ]
    assert any(line.startswith("data/dummy_math_tasks.jsonl: 16 problems load") for line in lines(out, "ok"))


def test_each_model_is_asked_about(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("n\ny\n"))
    status, out = check(capsys, *EMBEDDED, "--max_rows", "3")
    assert status == 0
    # The terminal shows the typed answer between the two.
    asked = "Load the policy data/embedded_policy (3.3 MB in that folder)? [y/N] "
    assert f"{asked}  skipped  The policy data/embedded_policy was not loaded" in out
    assert "The gold answer as a completion is right (exact), with a score of" in out


def test_the_end_of_the_input_is_a_no(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    status, out = check(capsys, *EMBEDDED, "--max_rows", "3")
    assert status == 0
    assert len(lines(out, "skipped")) == 2


def test_every_problem_has_a_fix_and_does_not_hide_the_next_one(capsys):
    status, out = check(
        capsys, "--yes", "--dataset_name", "nowhere.jsonl", "--model_name_or_path", "no/such-model",
        "--reward_model_name_or_path", "data/embedded_policy",
    )  # fmt: skip
    assert status == 1
    data, policy, reward_model = lines(out, "problem")
    assert "'nowhere.jsonl' does not exist" in data
    assert "Check" in data  # a message with its own fix gets no second one
    assert "The policy 'no/such-model' cannot be loaded" in policy
    assert "is a causal language model" in reward_model
    assert "Give a reward model such as" in reward_model
    assert len(lines(out, "     fix")) == 1
    assert "3 problems" in out


def test_wrong_packages_end_the_check_before_anything_needs_them(capsys, monkeypatch):
    wrong = Finding("problem", "transformers 5.2.0 is installed, >=5.5.4,<6 is needed", "pip install 'transformers'")
    monkeypatch.setattr(packages, "check_packages", lambda: [wrong])
    status, out = check(capsys, "--yes")
    assert status == 1
    assert lines(out, "skipped") == ["Not checked until the packages are right"]
    assert "Verifier" not in out


def test_gold_answers_that_cannot_be_judged_are_counted(capsys, tmp_path):
    file = tmp_path / "tasks.jsonl"
    rows = [{"question": f"What is {i} + 1?", "answer": "" if i < 2 else str(i + 1)} for i in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out = check(capsys, "--no", "--dataset_name", str(file))
    assert status == 0
    assert any(line.startswith("2 of 6 problems cannot be judged, such as ''") for line in lines(out, "note"))
    file.write_text("".join(json.dumps({**row, "answer": "proof"}) + "\n" for row in rows))
    status, out = check(capsys, "--no", "--dataset_name", str(file))
    assert status == 1
    assert lines(out, "problem")[0].startswith("6 of 6 problems cannot be judged")


def test_the_shipped_problems_are_found_from_any_folder(monkeypatch, tmp_path):
    assert problems.find_shipped("openai/gsm8k") == "openai/gsm8k"
    monkeypatch.chdir(tmp_path)
    found = problems.find_shipped(problems.SHIPPED_TASKS)
    assert found.endswith(problems.SHIPPED_TASKS)
    assert found != problems.SHIPPED_TASKS


def test_a_broken_verifier_and_a_wrong_reward_are_found(monkeypatch):
    class Yes:
        timeout = 1.0

        def verify(self, prompt, completion, gold):
            from trl_hybrid.verifier import Verdict

            return Verdict(True, 1.0, "1", "exact")

    found = [finding.status for finding in judges.check_verifier(Yes())]
    assert found == ["ok", "ok", "problem", "problem", "problem"]
    monkeypatch.setattr("trl_hybrid.hybrid.hybrid_rewards", lambda verdicts, *args, **kwargs: verdicts)
    assert [finding.status for finding in judges.check_hybrid_reward()] == ["problem"]


def test_a_hub_that_does_not_answer_is_no_problem(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    [note] = machine.check_hub()
    assert note.status == "note"
    assert "does not answer" in note.text


def test_a_failure_is_a_problem_and_the_message_s_further_lines_are_its_fix():
    def broken(message):
        yield Finding("ok", "so far")
        raise OSError(message)

    so_far, problem = findings(broken, "no such thing\nlook elsewhere", fix="unused")
    assert (so_far.text, problem.text, problem.fix) == ("so far", "no such thing", "look elsewhere")
    assert list(findings(broken, "no such thing", fix="try again"))[1].fix == "try again"


def test_a_mistake_of_ours_is_not_taken_for_one_of_the_user_s():
    def broken():
        raise AssertionError
        yield

    with pytest.raises(AssertionError):
        list(findings(broken, fix="none"))


@pytest.mark.parametrize("args", [["--config", "nowhere.yaml"], ["--no_such_option", "1"], ["--yes", "--no"]])
def test_wrong_usage_exits_with_2(capsys, args):
    with pytest.raises(SystemExit) as stop:
        main(["check", *args])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_fits_a_screen_and_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    out = capsys.readouterr().out
    assert "trl-hybrid check --yes --config recipes/configs/embedded.yaml" in out
    assert len(out.splitlines()) < 40


def test_importing_the_command_loads_nothing_heavy():
    code = "import trl_hybrid.commands.check, trl_hybrid.checks.packages, sys; "
    code += "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
