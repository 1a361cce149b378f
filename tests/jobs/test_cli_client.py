"""What pages ask of a child with torch: answered once per state of the source, refused in one sentence."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs import launch, warm
from dynlora.jobs.spawn import run_or_leave
from dynlora.store import lifecycle
from tests.tiny import tiny_values
from tests.waiting import PATIENCE_S, until


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    launch.catalog.cache_clear()
    yield
    launch.catalog.cache_clear()


def _hands_over(result: object) -> list[str]:
    """Return a command that does so as a helper."""
    program = f"from dynlora.jobs import helper_job; helper_job.attach(); helper_job.finish({result!r}, '')"
    return [sys.executable, "-c", program]


def test_the_catalog_is_asked_for_once_over_processes(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "strategies_command", lambda: _hands_over([{"name": "lora"}]))
    assert launch.catalog() is launch.catalog()
    assert launch.catalog() == {"strategies": [{"name": "lora"}]}
    launch.catalog.cache_clear()
    monkeypatch.setattr(launch, "strategies_command", lambda: [sys.executable, "-c", "exit('not asked again')"])
    assert launch.catalog() == {"strategies": [{"name": "lora"}]}
    [kept] = cache.glob("strategies-*.json")
    kept.write_text("[[[")
    launch.catalog.cache_clear()
    with pytest.raises(DynloraError, match="cannot be listed"):
        launch.catalog()


def test_another_source_is_another_catalog(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "_PACKAGE", tmp_path)
    (tmp_path / "engine").mkdir()
    (tmp_path / "strategies").mkdir()
    (tmp_path / "engine" / "strategy.py").write_text("")
    before = launch._catalog_version()
    (tmp_path / "strategies" / "new.py").write_text("x = 1")
    assert launch._catalog_version() != before


def test_a_cache_that_cannot_be_written_costs_time_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DYNLORA_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(launch, "strategies_command", lambda: _hands_over([]))
    assert launch.catalog() == {"strategies": []}


def test_a_check_leaves_nothing_and_hands_the_refusal_on(monkeypatch: pytest.MonkeyPatch, runs_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train.lr=99: must be at most 10; "):
        launch.preflight({"train": {"lr": 99}, "name": "; touch x"}, runs_dir)
    assert [item.name for item in (runs_dir / ".incoming").iterdir()] in ([], ["check.lock"])
    monkeypatch.setattr(launch, "preflight_command", lambda _: [sys.executable, "-c", "exit('it fell over')"])
    with pytest.raises(DynloraError, match=r"^the configuration was not checked \(exit 1\): it fell over"):
        launch.preflight({}, runs_dir)
    monkeypatch.setattr(launch, "preflight_command", lambda _: [sys.executable, "-c", "import time; time.sleep(3600)"])
    with pytest.raises(DynloraError, match="took longer"):
        launch.preflight({}, runs_dir, timeout_s=0.5)


def test_a_link_in_the_runs_folder_is_not_written_through(runs_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (runs_dir / ".incoming").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(DynloraError, match="is a link"):
        launch.preflight({}, runs_dir)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.torture  # in `make test` the browser presses Check, see tests/browser/test_launch_journey.py
def test_a_real_check_of_a_tiny_run(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    report = launch.preflight(tiny_values(tiny_bert, tiny_data), runs_dir)
    assert report["params"]["budget"] > 0
    assert report["preview"][0]["tokens"][0] == "[CLS]"


CHILD = """
import subprocess, sys, time
from pathlib import Path
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(sys.argv[1]).write_text(str(inner.pid))
time.sleep(600)
"""
"""Starts another process, notes its id, and goes on."""

WAITING = """
import sys, threading, time
from dynlora.jobs.spawn import run_or_leave as wait
program, note, where, kind = sys.argv[1:]
arguments = [sys.executable, "-c", program, note], 600
if where == "thread":
    threading.Thread(target=wait, args=arguments, daemon=kind == "daemon").start()
    time.sleep(600)
wait(*arguments)
"""
"""Waits for it, in the main thread or in one of its own."""


@pytest.mark.parametrize("how", [("main", ""), ("thread", "daemon"), ("thread", "page")])
def test_ctrl_c_ends_a_process_that_is_waited_for_and_what_it_started(how: tuple[str, ...], tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", WAITING, CHILD, str(note), *how], stderr=subprocess.PIPE) as asking:
        until(lambda: note.exists() and note.read_text() != "", "the process it waits for has started another one")
        inner = int(note.read_text())
        assert lifecycle.start_time(inner) is not None
        asking.send_signal(signal.SIGINT)  # what the terminal sends: the other two have sessions of their own
        asking.communicate(timeout=PATIENCE_S)
    until(lambda: lifecycle.start_time(inner) is None, "nothing is left of it")


def test_only_a_spare_that_was_used_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr(warm.KEEPER, "renew", lambda: kept.append("another"))
    assert run_or_leave([sys.executable, "-c", "print(1)"], PATIENCE_S).stdout.split() == [b"1"]
    assert kept == []
