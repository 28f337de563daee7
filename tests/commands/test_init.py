"""`trl-hybrid init` gives a folder in which the README's commands work."""

import json
import re
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from trl_hybrid.cli import main
from trl_hybrid.commands.init import SHIPPED, shipped_files


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_everything_that_a_recipe_needs_is_copied(tmp_path, capsys):
    assert main(["init", str(tmp_path / "mine")]) == 0
    copied = files_below(tmp_path / "mine")
    shipped = {
        str(path) for name in ("recipes", "accelerate_configs", "data", "docs") for path in Path(name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }  # fmt: skip
    assert copied == shipped | {"README.md", ".gitignore"}
    assert "/runs/" in (tmp_path / "mine/.gitignore").read_text().splitlines()
    assert "data/embedded_policy/model.safetensors" in copied
    recipe = Path("recipes/tinyllama_grpo.py")
    assert (tmp_path / "mine" / recipe).read_bytes() == recipe.read_bytes()
    said = capsys.readouterr().out
    assert f"Copied {len(copied)} files" in said
    *_, into, command = said.splitlines()
    assert into == f"  cd {tmp_path / 'mine'}"
    launcher, script, option, config = command.split()
    assert (launcher, option) == ("python", "--config")
    assert {script, config} <= copied


def test_the_readme_leads_nowhere_that_was_not_copied(tmp_path):
    main(["init", str(tmp_path)])
    text = (tmp_path / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^()#]+)", text) if not link.startswith("http")]
    assert "docs/method.md" in links
    assert all((tmp_path / link).exists() for link in links)
    assert "how to cite: CITATION.cff" in text


def test_what_was_changed_stays(tmp_path, capsys):
    main(["init", str(tmp_path)])
    changed = tmp_path / "recipes/configs/embedded.yaml"
    changed.write_text("run_name: mine\n")
    (tmp_path / "data/dummy_math_tasks.jsonl").unlink()
    (tmp_path / "README.md").write_text("Mine.")
    capsys.readouterr()
    assert main(["init", str(tmp_path)]) == 0
    assert changed.read_text() == "run_name: mine\n"
    assert (tmp_path / "README.md").read_text() == "Mine."
    assert (tmp_path / "data/dummy_math_tasks.jsonl").is_file()
    assert "Copied 1 files" in capsys.readouterr().out


def test_a_file_in_its_place_is_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TRL_HYBRID_TRACEBACK", raising=False)
    (tmp_path / "mine").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["init", str(tmp_path / "mine")])
    assert stop.value.code == 2
    assert "FOLDER must be a folder" in capsys.readouterr().err


def test_a_wheel_brings_everything_that_is_copied_and_its_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    copied = {str(target.relative_to("x")) for name in SHIPPED for _, target in shipped_files(name, Path("x"))}
    assert "docs/data.md" in copied
    assert {f"trl_hybrid/shipped/{name}" for name in copied} <= names
    assert "trl_hybrid/py.typed" in names


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wheel_in_an_empty_environment_checks_itself_and_trains(wheel, tmp_path):
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    venv.create(tmp_path / "venv", with_pip=True)
    python, bin_folder = tmp_path / "venv/bin/python", tmp_path / "venv/bin"
    subprocess.run(
        [python, *pip, "install", "-c", "constraints.txt", str(wheel)], check=True, timeout=400, capture_output=True
    )

    def run(*command, cwd):
        result = subprocess.run(
            [bin_folder / command[0], *command[1:]], cwd=cwd, capture_output=True, text=True, timeout=200, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("trl-hybrid", "init", "mine", cwd=tmp_path)
    assert (tmp_path / "mine/docs/data.md").read_bytes() == Path("docs/data.md").read_bytes()
    mine = tmp_path / "mine"
    config = ("--config", "recipes/configs/embedded.yaml")
    checked = run("trl-hybrid", "check", "--yes", *config, cwd=mine)
    assert checked.splitlines()[-1].startswith("No problems, ")
    launch = ("accelerate", "launch", "--quiet", "--num_processes", "1", "recipes/tinyllama_grpo.py")
    run(*launch, *config, "--max_steps", "2", "--max_test_rows", "8", cwd=mine)
    assert json.loads((mine / "runs/embedded/summary.json").read_text())["steps"] == 2
    assert (mine / "runs/embedded/report.html").is_file()
