"""What surrounds the code fits it: the site has every page and name, and GitHub runs what CI runs."""

import re
from pathlib import Path

import yaml

import trl_hybrid


WORKFLOW = Path(".github/workflows/ci.yml")


def leaves(node):
    if isinstance(node, str):
        return [node]
    return [leaf for child in (node.values() if isinstance(node, dict) else node) for leaf in leaves(child)]


def test_the_site_has_every_page_once():
    # index.md is the README.
    pages = leaves(yaml.safe_load(Path("mkdocs.yml").read_text())["nav"])
    assert sorted(pages) == sorted(["index.md", *(path.name for path in Path("docs").glob("*.md"))])


def test_the_site_has_every_public_name_once():
    named = re.findall(r"^::: trl_hybrid\.(\w+)$", Path("docs/api.md").read_text(), re.M)
    assert sorted(named) == sorted(trl_hybrid.__all__)


def make_targets(lines):
    return [found[1] for line in lines if (found := re.match(r"make ([a-z-]+)", line))]


def test_github_runs_the_steps_of_ci():
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    steps = [step["run"] for step in jobs["test"]["steps"] if "run" in step]
    ci = Path(".ci/run").read_text()
    vllm = [step["run"] for step in jobs["vllm"]["steps"] if "run" in step]
    assert make_targets([*steps, *vllm]) == make_targets(ci.splitlines())
    assert next(step for step in steps if ".[gym,trackers]" in step) in ci
    assert jobs["test"]["env"] == jobs["canary"]["env"] == {"TRL_HYBRID_REQUIRE_ALL": 1}
    assert make_targets(step.get("run", "") for step in jobs["canary"]["steps"]) == ["canary"]
    supported = re.findall(r"Python :: (3\.\d+)", Path("pyproject.toml").read_text())
    assert jobs["test"]["strategy"]["matrix"]["python"] == supported


def test_workflows_read_only_and_use_pinned_actions():
    for path in WORKFLOW.parent.glob("*.yml"):
        text = path.read_text()
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}
        assert all("permissions" not in job for job in workflow["jobs"].values())
        assert "secrets." not in text
        used = re.findall(r"uses: (\S+)", text)
        assert used
        assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in used)


def test_reports_bring_what_check_says():
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in Path(".github/ISSUE_TEMPLATE").glob("*.yml")}
    assert forms["config"] == {"blank_issues_enabled": False}
    for name in ("bug", "verdict"):
        field = next(field for field in forms[name]["body"] if field.get("id") == "check")
        assert "`trl-hybrid check`" in field["attributes"]["label"]
        assert field["validations"]["required"] is True
