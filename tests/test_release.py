"""What is released is whole: its page, its one version, and an sdist that tests itself."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata


PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]


@pytest.fixture(scope="module")
def metadata(wheel):
    """Of the wheel; read as the index reads it, which refuses what is not valid."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Metadata.from_email(archive.read(name), validate=True)


def test_every_link_of_the_page_is_a_whole_address_of_a_file_that_is_there(metadata):
    page = metadata.description
    assert metadata.description_content_type.startswith("text/markdown")
    links = re.findall(r"(!?)\[[^\[\]]*\]\(([^)]+)\)", page)
    assert all(link.startswith("https://") for _, link in links)
    own = [(mark, link.removeprefix(f"{REPOSITORY}/")) for mark, link in links if link.startswith(REPOSITORY)]
    written = re.findall(r"\]\((?!http)([^)]+)\)", Path("README.md").read_text())
    assert len(own) == len(written) > 20
    for mark, link in own:
        kind, tag, path = link.split("/", 2)
        assert (kind, tag) == ("raw" if mark else "blob", f"v{PROJECT['version']}")
        assert Path(path.partition("#")[0]).exists(), path
    assert all(address.startswith(REPOSITORY) for address in metadata.project_urls.values())


def test_the_version_is_the_projects_everywhere(wheel, metadata):
    version = PROJECT["version"]
    assert str(metadata.version) == wheel.name.split("-")[1] == version
    assert yaml.safe_load(Path("CITATION.cff").read_text())["version"] == version
    assert re.search(rf"^## \[(Unreleased|{re.escape(version)})\]", Path("CHANGELOG.md").read_text(), re.M)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_sdist_passes_its_own_tests_and_makes_the_same_wheel(wheel, tmp_path):
    def run(*words, cwd="."):
        command = [sys.executable, "-m", *words]
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500, check=False)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr

    run("hatchling", "build", "--target", "sdist", "--directory", str(tmp_path))
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = next(path for path in tmp_path.glob("trl_hybrid-*") if path.is_dir())
    where = unpacked / "tests/test_where.py"
    where.write_text(
        "from trl_hybrid import errors\n\n\ndef test_it_is_here():\n    assert errors.__file__.startswith("
    )
    with where.open("a") as file:
        file.write(f"{str(unpacked)!r})\n")
    tests = ("cli", "docs", "imports", "project", "where")
    rooms = ("hybrid", "report")
    run(
        "pytest",
        "-q",
        *(f"tests/test_{name}.py" for name in tests),
        *(f"tests/{room}" for room in rooms),
        cwd=unpacked,
    )
    where.unlink()
    run("hatchling", "build", "--target", "wheel", "--directory", str(tmp_path), cwd=unpacked)
    assert contents(tmp_path / wheel.name) == contents(wheel)


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "__pycache__" not in name}
