"""The notebook for a free GPU: its commands are ones that the programs take, and its cells run, on a CPU and small."""

import re
import shlex
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from hub_server import HubServer, client_env

from trl_hybrid.cli import parse
from trl_hybrid.commands.recipe_options import parse_recipe_options


NOTEBOOK = Path("recipes/notebooks/free_gpu.ipynb")
SMALL = """
CONFIG = "recipes/configs/embedded.yaml"
STEPS = 2
PROBLEMS = 8
HUB_MODEL_ID = "me/sums"
"""


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def settings_cell(notebook):
    (index,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    return index


def test_its_commands_are_taken_with_its_own_settings(notebook, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = {}
    exec(notebook.cells[settings_cell(notebook)].source, settings)  # as the kernel does
    assert Path(settings["CONFIG"]).is_file()
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code").replace("\\\n", " ")
    commands = [shlex.split(line.format(**settings)) for line in re.findall(r"^ *!(.*)", code, re.M)]
    assert [words[1] for words in commands] == [
        "init", "check", "recipes/tinyllama_grpo.py", "eval", "push",
    ]  # fmt: skip
    for program, *words in commands:
        if program == "python":
            assert Path(words[0]).is_file()
            parse_recipe_options(None, [*words[1:], "--use_cpu", "true"])
        else:
            parse(words if words[0] != "push" else [*words[:2], "--hub_model_id", "me/sums"])


def test_it_is_small_and_has_been_run(notebook):
    assert NOTEBOOK.stat().st_size < 150_000
    nbformat.validate(notebook)
    assert all(cell.outputs for cell in notebook.cells if cell.cell_type == "code" and "!" in cell.source[:1])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's client
def test_its_cells_run_from_the_first_to_the_last(notebook, tmp_path):
    from nbclient import NotebookClient

    notebook.cells.insert(settings_cell(notebook) + 1, nbformat.v4.new_code_cell(SMALL))
    with HubServer() as hub:
        bin_folder = Path(sys.executable).parent
        environment = client_env(hub, tmp_path / "home")
        # What it installs is here already, so that pip has nothing to look for.
        environment |= {
            "PATH": f"{bin_folder}:{environment['PATH']}",
            "PIP_NO_INDEX": "1",
            "IPYTHONDIR": str(tmp_path),
        }
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
        client.execute(env=environment)
        pushed = hub.files("me/sums")
    run = tmp_path / "my-project/runs/notebook"
    said = ["".join(shown(cell)) for cell in notebook.cells if cell.cell_type == "code"]
    checked, trained, looked, measured = (said[index] for index in (3, 4, 5, 6))
    assert "No problems, " in checked
    assert "step    2 |" in trained
    assert len(looked) > len((run / "report.html").read_text())
    assert "greedy" in measured
    assert {"README.md", "adapter_model.safetensors", "trl_hybrid.json"} <= set(pushed)


def shown(cell):
    """Yield what a cell has shown, as text or as HTML."""
    for output in cell.outputs:
        assert output.output_type != "error", output
        yield output.get("text") or output.data.get("text/html", "")
