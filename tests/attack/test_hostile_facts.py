"""What a stranger's run says of itself, each value of another kind than it should be: one odd run hides no other.

An integer of 400 digits in one run took down the Runs page and `dynlora runs`; a configuration whose sections are no
objects the Run page; a negative step the Capacity page.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from dynlora.analysis import run_reading
from dynlora.cli.main import main
from dynlora.config import RunConfig
from dynlora.errors import CorruptRunError
from dynlora.store import catalogue, jsontext, meta, queries
from dynlora.store.reader import RunReader
from dynlora.store.summary import run_summary
from dynlora.viz.runs import table as runs_table
from dynlora.viz.ui import run_picker
from tests.pages.app import open_page
from tests.pages.conftest import _dashboard  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.store.builder import finished_run

HUGE = "1" + "0" * 400
KEYS = sorted(
    {
        *catalogue.KEYS,
        "own_signals",
        "labels",
        "task",
        "planned_events",
        "data_size",
        "data_warnings",
        "machine",
        "model_path",
        "activity",
        "first_reallocation",
    }
)
KINDS = {
    "huge": HUGE,
    "below": f"-{HUGE}",
    "list": '[1, "a", null, [2]]',
    "text": '"a text"',
    "null": "null",
    "truth": "true",
    "nested": json.dumps(
        {key: [{"b": 1}] for key in ("active", "budget", "accuracy", "step", "threads", *meta.SECTIONS)}
    ),
    "texts": json.dumps({key: "x" for key in ("active", "budget", "accuracy", "step", "threads", *meta.SECTIONS)}),
    "huge inside": "{"
    + ", ".join(f'"{key}": {HUGE}' for key in ("active", "budget", "accuracy", "step", "seed"))
    + "}",
}
STATUS = (
    "step = -9223372036854775808",
    "step = 9223372036854775807",
    "max_steps = -3",
    "heartbeat = -1e300",
    "opened = -1",
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("original"), 30, "sound")


def spoiled(original: Path, folder: Path, *statements: str) -> Path:
    """Return a copy of a run with statements run on its database."""
    shutil.copytree(original, folder)
    connection = sqlite3.connect(folder / "run.db")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return folder


def set_to(key: str, text: str) -> str:
    return f"INSERT OR REPLACE INTO meta VALUES ('{key}', '{text}')"


@pytest.fixture(scope="module")
def crowded(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one sound run, one run for every key and kind, and some whose status cannot be."""
    runs_dir = tmp_path_factory.mktemp("crowded")
    shutil.copytree(original, runs_dir / "sound")
    for key in KEYS:
        for number, kind in enumerate(KINDS):
            spoiled(original, runs_dir / f"{key.replace('_', '-')}-{number}", set_to(key, KINDS[kind]))
    for number, statement in enumerate(STATUS):
        spoiled(original, runs_dir / f"status-{number}", f"UPDATE status SET {statement}")
    return runs_dir


def test_no_value_of_one_run_hides_the_others(crowded: Path) -> None:
    rows = {row["id"]: row for row in catalogue.run_rows(crowded)}
    assert len(rows) == 1 + len(KEYS) * len(KINDS) + len(STATUS)
    assert rows["sound"]["status"] == "finished"
    assert {name for name, row in rows.items() if row["status"] == "corrupt"} == {
        f"status-{number}" for number in range(len(STATUS))
    }
    frame = queries.list_runs(crowded, None)
    assert len(runs_table.runs_table(frame)) == len(rows)
    assert json.loads(runs_table.export_json(frame))
    for args in (["runs"], ["runs", "--json"]):
        done = CliRunner().invoke(main, [*args, "--runs-dir", str(crowded)])
        assert done.exit_code == 0, done.output
        assert "sound" in done.output
    for folder in sorted(crowded.glob("[a-z]*-*")):
        if folder.name.startswith("status"):
            with pytest.raises(CorruptRunError):
                run_summary(folder)
            continue
        summary = run_summary(folder)
        run_reading.uniform_rank(summary)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_all_of_whose_facts_are_odd_is_shown(kind: str, original: Path, runs_dir: Path) -> None:
    spoiled(original, runs_dir / "odd", *(set_to(key, KINDS[kind]) for key in KEYS))
    for args in (["show", "odd"], ["show", "odd", "--json"], ["compare", "odd", "odd"]):
        done = CliRunner().invoke(main, [*args, "--runs-dir", str(runs_dir)])
        assert done.exit_code == 0, (args, done.output, done.exception)
    open_page("capacity", run="odd")


def test_the_runs_page_shows_the_sound_run_among_odd_ones(crowded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run_picker.RUNS_DIR_VARIABLE, str(crowded))
    app = open_page("runs")
    listed = [frame.value for frame in app.dataframe]
    assert any("id" in frame and "sound" in list(frame["id"]) for frame in listed)


@pytest.mark.parametrize("kind", ["huge inside", "texts"])
def test_pages_of_a_run_all_of_whose_facts_are_odd(kind: str, original: Path, runs_dir: Path) -> None:
    spoiled(original, runs_dir / "odd", *(set_to(key, KINDS[kind]) for key in KEYS))
    open_page("run", run="odd")
    open_page("compare", runs="odd")


def test_a_step_that_cannot_be_is_said_on_the_capacity_page(original: Path, runs_dir: Path) -> None:
    """A step of -2^63 left an IndexError."""
    spoiled(original, runs_dir / "odd", f"UPDATE status SET {STATUS[0]}")
    app = open_page("capacity", run="odd")
    assert any("its status cannot be read" in str(error.value) for error in app.error)


def test_a_size_that_cannot_be_is_refused_before_it_is_counted_to(original: Path, tmp_path: Path) -> None:
    """A rank of 2^62 had the names of as many components written out."""
    folder = spoiled(
        original, tmp_path / "odd", f"UPDATE modules SET max_rank = {2**62}", "UPDATE signals SET axis = 'component'"
    )
    with RunReader(folder) as reader, pytest.raises(CorruptRunError, match="a size of the run"):
        reader.modules()
    wide = spoiled(
        original, tmp_path / "wide", f"UPDATE modules SET max_rank = {2**30}", "UPDATE signals SET axis = 'component'"
    )
    assert list(queries.signal_frame(wide, "probe_loss"))[1:] == [f"component {place}" for place in range(4)]


def test_numbers_that_nothing_can_hold_are_null() -> None:
    assert jsontext.load(f"[{HUGE}, -{HUGE}, 1e999, {2**53}, true]") == [None, None, None, 2**53, True]


def test_an_error_nobody_thought_of_is_a_corrupt_row(
    original: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(original, runs_dir / "one")
    for error in (ValueError, TypeError, OverflowError, AttributeError):

        def broken(*_: object, error: type[Exception] = error) -> None:
            raise error("odd")

        with monkeypatch.context() as patch:
            patch.setattr(catalogue, "_read", broken)
            catalogue._kept.clear()
            (row,) = catalogue.run_rows(runs_dir)
        assert row["status"] == "corrupt"
        assert error.__name__ in row["reason"]


def test_the_sections_are_those_of_a_configuration() -> None:
    sections = [name for name, field in RunConfig.model_fields.items() if hasattr(field.annotation, "model_fields")]
    assert set(meta.SECTIONS) == set(sections)
