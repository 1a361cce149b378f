"""An installed wheel works outside a checkout: the dashboard, its settings and the samples come along."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import dynlora
from dynlora.server.serve import app_root, sample_runs_dir

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300, stdin=subprocess.DEVNULL)
    return next(folder.glob("dynlora-*.whl"))


def _declared() -> set[tuple[str, str]]:
    """Return every extra and package of pyproject.toml; no extra for a plain installation, no package for none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    by_extra = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {extra: {Requirement(text).name for text in texts} - {"dynlora"} for extra, texts in by_extra.items()}
    return {(extra, name) for extra, requirements in names.items() for name in requirements or {""}}


def _explained() -> dict[tuple[str, str], str]:
    """Return the reason that the page of dependencies gives for each extra and package."""
    reasons: dict[tuple[str, str], str] = {}
    for line in (ROOT / "docs" / "DEPENDENCIES.md").read_text("utf-8").splitlines():
        if line.startswith(("| `", "| - ")):
            cells = line.strip("| ").split(" | ")
            packages = re.findall(r"`([^`]+)`", cells[0]) or [""]
            extras = re.findall(r"`([^`]+)`", cells[1]) if cells[1].startswith("`") else [""]
            reasons |= {(extra, name): cells[1 + (extras != [""])] for extra in extras for name in packages}
    return reasons


def test_every_dependency_has_a_reason_and_no_reason_is_left_of_another() -> None:
    explained = _explained()
    assert sorted(_declared() ^ set(explained)) == []
    assert [name for name, reason in explained.items() if len(reason.split()) < 2] == []


def _of_workflows(key: str) -> Iterator[str]:
    """Yield every value of a key of a step, in all workflows."""
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
            yield from (step[key] for step in job["steps"] if key in step)


def test_every_command_of_a_workflow_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = [word for run in _of_workflows("run") for line in run.splitlines() for word in _targets(line.strip())]
    assert {"test", "journeys", "lint", "docs", "reproducible"} <= set(called) <= targets


def _targets(line: str) -> list[str]:
    """Return the targets that a line makes."""
    program, *words = line.split()
    return [word for word in words if "=" not in word] if program == "make" else []


def test_the_image_copies_what_there_is_and_nothing_that_is_left_out() -> None:
    admitted = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    copied = [name for line in lines for name in line.split()]
    assert sorted(copied) == sorted(admitted)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    files = re.findall(r"^APP_FILES = (.+)$", (ROOT / "hatch_build.py").read_text("utf-8"), re.MULTILINE)
    needed = [name.partition("/")[0] for name in ast.literal_eval(files[0])]
    assert set(needed) <= set(copied), "the wheel is made of them"


def test_the_space_serves_the_port_of_the_image() -> None:
    text = (ROOT / ".github" / "space" / "README.md").read_text("utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    (port,) = re.findall(r"^EXPOSE (\d+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert (front["sdk"], front["app_port"]) == ("docker", int(port))
    assert len(front["short_description"]) <= 60, "the hub refuses a longer one"


def test_package_metadata_citation_and_changelog_have_one_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    heads = re.findall(r"^## (\S+)(?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    released = next(head for head in heads if head[0] != "Unreleased")
    assert released == (dynlora.__version__, cited["date-released"].isoformat())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert cited["version"] == project["version"] == dynlora.__version__


def test_a_checkout_serves_its_own_files() -> None:
    assert app_root() == ROOT
    assert sample_runs_dir() == ROOT / "sample_runs"


def test_each_sample_says_what_it_is_there_to_show_and_all_are_within_12_mb() -> None:
    samples = sample_runs_dir()
    rows = re.findall(r"^\| `(\S+)` \| ", (samples / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(path.parent.name for path in samples.glob("*/run.db"))
    assert (
        sum(path.stat().st_size for path in samples.rglob("*") if path.is_file() and path.name != ".listing.json")
        <= 12_000_000
    )


@pytest.mark.journey
@pytest.mark.slow
def test_the_wheel_finds_its_files_anywhere(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    program = "from dynlora.server.serve import app_root, sample_runs_dir; print(app_root()); print(sample_runs_dir())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    app, samples = map(Path, done.stdout.split())
    assert app == installed / "dynlora" / "_app"
    assert (app / ".streamlit" / "config.toml").read_bytes() == (ROOT / ".streamlit" / "config.toml").read_bytes()
    assert {path.name for path in (app / "pages").glob("*.py")} == {path.name for path in (ROOT / "pages").glob("*.py")}
    assert {path.name for path in samples.iterdir()} == {path.name for path in (ROOT / "sample_runs").iterdir()}


@pytest.mark.journey
@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
        names = set(archive.namelist())
    assert {name for name in folders if not name.endswith(".dist-info")} == {"dynlora"}
    assert {f"dynlora/viz/report/report.{ending}" for ending in ("html", "css", "js")} <= names
