"""A dashboard for each test: a runs folder of its own, no samples, no child process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.runtime.caching import cache_data
from streamlit.runtime.pages_manager import PagesManager

from dynlora.jobs import launch
from dynlora.server.serve import sample_runs_dir
from dynlora.viz import knockout
from dynlora.viz.ui import model_client, run_picker
from tests.pages.app import CATALOG
from tests.pages.trained import Here

_INIT = PagesManager.__init__


@pytest.fixture(autouse=True)
def _dashboard(runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A runs folder of the test's own, no samples, no child process."""
    monkeypatch.setenv(run_picker.RUNS_DIR_VARIABLE, str(runs_dir))
    monkeypatch.setattr(run_picker, "sample_runs_dir", lambda: tmp_path / "samples")
    monkeypatch.setattr(launch, "catalog", lambda: CATALOG)
    monkeypatch.setattr(launch, "wake", lambda _: None)
    monkeypatch.setattr(PagesManager, "__init__", _init_as_in_a_warm_server)
    cache_data.clear()
    yield
    cache_data.clear()


@pytest.fixture
def _samples(_dashboard: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the sample runs beside one's own."""
    monkeypatch.setattr(run_picker, "sample_runs_dir", sample_runs_dir)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Let pages ask this process."""
    child = Here()
    monkeypatch.setattr(model_client, "shared", lambda: child)
    monkeypatch.setattr(knockout, "BEGUN", {})
    return child


@pytest.fixture
def run(trained_run: Path, runs_dir: Path) -> Path:
    """A trained run in the runs folder of the test."""
    folder = runs_dir / trained_run.name
    shutil.copytree(trained_run, folder, ignore=shutil.ignore_patterns("knockout.json"))
    return folder


def _init_as_in_a_warm_server(self: PagesManager, *args: Any, **keywords: Any) -> None:
    """AppTest forgets before each run that `st.navigation` has run once; a server does not."""
    _INIT(self, *args, **keywords)
    PagesManager.uses_pages_directory = False
