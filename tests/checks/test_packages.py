"""Packages are compared with what the installed metadata ask for."""

import sys

import pytest
from packaging.requirements import Requirement

from trl_hybrid.checks import packages


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put distributions that hold nothing but metadata where Python looks for packages."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(packages, "PACKAGE", "fake-house")

    def add(name, version, *lines):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
        )

    return add


EXTRAS = [f"Provides-Extra: {extra}" for extra in packages.OPTIONAL]


def found():
    return {finding.text: finding for finding in packages.check_packages()}


def test_a_version_out_of_range_and_a_missing_package_are_problems_with_the_command_that_mends_them(install):
    install("fake-old", "5.2.0")
    install("fake-new", "2.13.0+cpu")
    install(
        "fake-house", "1.0", "Requires-Python: >=3.11", "Requires-Dist: fake-old<6,>=5.5.4",
        "Requires-Dist: fake-new<3,>=2.6", "Requires-Dist: fake-lost>=1",
        "Requires-Dist: fake-windows; os_name == 'nt'", *EXTRAS,
    )  # fmt: skip
    by_text = found()
    old = by_text["fake-old 5.2.0 is installed, <6,>=5.5.4 is needed"]
    assert (old.status, old.fix) == ("problem", "pip install 'fake-old<6,>=5.5.4'")
    assert by_text["fake-lost is not installed, >=1 is needed"].status == "problem"
    assert by_text["fake-new 2.13.0+cpu"].status == "ok"
    assert not any("fake-windows" in text for text in by_text)


def test_an_extra_may_be_missing_but_not_be_of_the_wrong_version(install):
    install("fake-lib", "1.0", "Provides-Extra: fast", "Requires-Dist: fake-engine<=0.31.0,>=0.22.0; extra == 'fast'")
    install("fake-house", "1.0", "Requires-Python: >=3.11", *EXTRAS, "Requires-Dist: fake-lib[fast]; extra == 'vllm'")
    assert any("Not installed: fake-engine; only for use_vllm" in text for text in found())
    install("fake-engine", "0.24.0+cu129")
    assert found()["fake-engine 0.24.0+cu129"].status == "ok"


def test_an_engine_that_trl_does_not_support_is_a_problem(install):
    install("fake-engine", "0.40.0")
    install(
        "fake-house", "1.0", "Requires-Python: >=3.11", *EXTRAS, "Requires-Dist: fake-engine<=0.31; extra == 'vllm'"
    )
    assert found()["fake-engine 0.40.0 is installed, <=0.31 is needed"].status == "problem"


def test_an_old_python_is_a_problem(install):
    install("fake-house", "1.0", "Requires-Python: >=4", *EXTRAS)
    [python] = [finding for finding in packages.check_packages() if finding.text.startswith("Python 3.")]
    assert (python.status, python.fix) == ("problem", "Make a virtual environment with Python >=4.")


def test_the_real_requirements_are_read():
    names = {requirement.name for requirement in packages.requirements("trl-hybrid")}
    assert {"torch", "transformers", "trl", "math-verify"} <= names
    assert names.isdisjoint({"deepspeed", "pytest", "wandb"})
    assert [r.name for r in packages.requirements("trl-hybrid", "deepspeed")] == ["deepspeed"]
    # Through TRL's own extra, so that the range is that of the installed TRL.
    engine = next(r for r in packages.requirements("trl-hybrid", "vllm") if r.name == "vllm")
    assert engine.specifier
    assert isinstance(engine, Requirement)
