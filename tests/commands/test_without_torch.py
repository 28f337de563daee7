"""What needs no model is installed, as docs/verifier.md says, and runs where there is no torch."""

import json
import os
import re
import resource
import subprocess
import venv
from pathlib import Path

import pytest
from report_runs import row, write_history, write_settings, write_table

from trl_hybrid.report import write_report


PAGE = Path("docs/verifier.md").read_text()
INDEX_PROBLEM = "Could not fetch|No matching distribution|Could not find a version|dns error|error sending request"
MANY = 1000


def documented(start):
    """The one command of the page that begins with a word, as it stands there."""
    (command,) = re.findall(rf"^{start} (?:.*\\\n)*.*$", PAGE, re.M)
    return command


def sh(command, **options):
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, check=False, **options)


def install(command, environment):
    result = sh(command, env=environment)
    if result.returncode and re.search(INDEX_PROBLEM, result.stderr) and not os.environ.get("TRL_HYBRID_REQUIRE_ALL"):
        pytest.skip("the package index cannot be reached")
    assert result.returncode == 0, result.stderr


def cpu_seconds():
    """Of the commands that have run; on a busy machine the clock says more."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory):
    """The variables of an environment that was made as the page says, in its order."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, with_pip=True)
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONSTRAINT": str(Path("constraints.txt").resolve()),
    }  # fmt: skip
    lines = re.findall(r"^pip install .*$", PAGE, re.M)
    assert [line.split()[2] for line in lines] == ["math-verify", "jinja2", "--no-deps"]
    for line in lines:
        install(f"python -m {line.replace('trl-hybrid', str(wheel))}", environment)
    return environment


@pytest.fixture
def answers(tmp_path):
    """Completions like GSM8K's, one in four wrong, and a pair that only algebra decides."""
    rows = [
        {
            "question": f"Tom buys {n} pens at $3 each. What does he pay?",
            "completion": f"A pen is $3, so {n}*3 = <<{n}*3={3 * n}>>{3 * n}.\n#### {3 * n - (n % 4 == 0)}",
            "answer": f"He pays {n} * 3 = <<{n}*3={3 * n}>>{3 * n}.\n#### {3 * n}",
        }
        for n in range(1, MANY + 1)
    ]
    rows[2] = {"completion": r"\boxed{\frac{1}{\sqrt{2}}}", "answer": r"\frac{\sqrt{2}}{2}"}
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
@pytest.mark.timeout(400)
class TestWithoutTorch:
    def test_there_is_no_torch(self, light):
        code = (
            "import sys, trl_hybrid.verifier; from importlib.util import find_spec; assert trl_hybrid.MathVerifier\n"
            "print([name for name in sys.argv[1:] if find_spec(name)])"
        )
        command = ["python", "-c", code, "torch", "transformers", "trl", "datasets", "math_verify"]
        found = subprocess.run(command, capture_output=True, text=True, check=True, env=light, cwd="/")
        assert found.stdout.strip() == "['math_verify']"

    def test_verify_grades_a_thousand_answers_in_seconds(self, light, answers):
        before = cpu_seconds()
        result = sh(f"trl-hybrid verify --completions {answers} --output {answers.with_name('v.jsonl')}", env=light)
        taken = cpu_seconds() - before
        assert result.returncode == 0, result.stderr
        last = result.stdout.splitlines()[-1].split()
        assert last == ["right", "of", "all", "750", "75.0%"]
        verdicts = [json.loads(line) for line in answers.with_name("v.jsonl").read_text().splitlines()]
        assert verdicts[2]["correct"] is True
        assert verdicts[2]["reason"] == "symbolic"
        assert taken < 5

    def test_it_starts_in_an_instant(self, light, tmp_path):
        (tmp_path / "one.jsonl").write_text('{"completion": "It is 12.", "answer": "12"}\n')
        before = cpu_seconds()
        assert sh(f"trl-hybrid verify --completions {tmp_path / 'one.jsonl'}", env=light).returncode == 0
        assert cpu_seconds() - before < 1.5

    def test_report_writes_the_page_that_it_writes_elsewhere(self, light, tmp_path):
        write_settings(tmp_path)
        write_history(tmp_path, 4)
        write_table(tmp_path, 4, [row(4, "What is 5 + 7?", "12", 1.0, 1.5, 1.1), row(4, "?", "7", 0.0, 0.5, 0.1)])
        result = sh(f"trl-hybrid report {tmp_path}", env=light)
        assert result.returncode == 0, result.stderr
        page = (tmp_path / "report.html").read_bytes()
        assert write_report(tmp_path, tmp_path / "here.html").read_bytes() == page

    def test_uvx_runs_it_by_the_line_of_the_page(self, light, wheel, answers, tmp_path):
        install("python -m pip install uv", {**light, "PIP_CONSTRAINT": ""})
        command = documented("uvx").replace("answers.jsonl", str(answers))
        command = command.replace("trl-hybrid verify", f"--from {wheel} trl-hybrid verify")
        environment = {**light, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_PYTHON_DOWNLOADS": "never"}
        install(command, environment)
        found = [path.name.split("-")[0] for path in (tmp_path / "cache").rglob("*.dist-info")]
        assert "math_verify" in found
        assert not {"torch", "transformers", "trl", "datasets"} & set(found)
