"""Every page in every state of a store, with plain and hostile text: drawn without an exception, and saying it.

Pages that show one run meet every state; texts and gates are sampled so that each text meets each of these pages. Runs
and Compare meet all states in one store. The figures of sample runs are tried by `tests/kinds/train/test_panels.py`.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from itertools import cycle, product
from pathlib import Path

import pytest

from dynlora.server.serve import sample_runs_dir
from dynlora.viz.ui import run_picker
from tests.pages.app import actions, charts, is_text, open_page, words
from tests.viz.runs import HOSTILE, make_run

RUN_ID = "20260101-000000-00000001"
RUN_PAGES = ("run", "capacity", "inputs")
TEXTS = ("fine", *HOSTILE)


def change(folder: Path, statement: str) -> None:
    """Change a run as no writer of ours does."""
    with sqlite3.connect(folder / "run.db") as connection:
        connection.execute(statement)
    connection.close()


def stalled(folder: Path) -> None:
    change(folder, "UPDATE status SET heartbeat = heartbeat - 100")


def interrupted(folder: Path) -> None:
    change(folder, "UPDATE status SET process_start = 1.0")


def elsewhere(folder: Path) -> None:
    change(folder, "UPDATE status SET host = 'another machine', heartbeat = heartbeat - 100")


def corrupt(folder: Path) -> None:
    (folder / "run.db").write_bytes(b"not a database" * 100)


def truncated(folder: Path) -> None:
    data = (folder / "run.db").read_bytes()
    (folder / "run.db").write_bytes(data[: len(data) // 2])


def newer(folder: Path) -> None:
    change(folder, "PRAGMA user_version = 99")


def nothing(folder: Path) -> None:
    """Leave it as it is."""


STATES: dict[str, tuple[str, int, Callable[[Path], None], str]] = {
    "queued": ("queued", 0, nothing, "is in the queue"),
    "begun": ("running", 0, nothing, ""),
    "running": ("running", 17, nothing, ""),
    "stalled": ("running", 17, stalled, "has recorded nothing for 1 min"),
    "elsewhere": ("running", 17, elsewhere, "another machine"),
    "interrupted": ("running", 17, interrupted, "ended unexpectedly"),
    "failed": ("failed", 17, nothing, "the disk is full"),
    "stopped": ("stopped", 17, nothing, "Stopped at step 17"),
    "finished": ("finished", 40, nothing, ""),
    "corrupt": ("finished", 40, corrupt, "is not a SQLite database"),
    "truncated": ("finished", 40, truncated, ""),
    "newer": ("finished", 40, newer, "written by a newer dynlora"),
}
"""State to (stored state, last step, what is done to the folder, what the Run page says)."""

TRAINS = ["Train its plain LoRA baseline", "Stop"]

ACTIONS = {"queued": TRAINS, "running": TRAINS, "failed": ["Resume"], "stopped": ["Resume"]}
"""Buttons of the Run page that the state decides."""

UNREADABLE = ("corrupt", "truncated", "newer")
PAIRS = [
    pytest.param(
        *(page, state, text, gates),
        id=f"{page}-{state}",
        marks=() if page == "run" or place % 4 == RUN_PAGES.index(page) - 1 else pytest.mark.torture,
    )
    for place, ((page, state), text, gates) in enumerate(
        zip(product(RUN_PAGES, STATES), cycle(TEXTS), cycle([True, True, False]), strict=False)
    )
]
"""The Run page meets every state, Capacity and Inputs a quarter of them each; all of them in `make torture`."""


def make(root: Path, state: str, text: str = "fine", gates: bool = True, run_id: str = RUN_ID) -> Path:
    """Make a run in a state, tagged with its own text."""
    stored, steps, spoil, _ = STATES[state]
    error = "the disk is full" if stored == "failed" else None
    folder = make_run(root, run_id=run_id, state=stored, steps=steps, text=text, gates=gates, error=error)
    (folder / "notes.json").write_text(json.dumps({"tags": [text], "note": text}))
    spoil(folder)
    return folder


@pytest.mark.parametrize(("page", "state", "text", "gates"), PAIRS)
def test_every_page_of_a_run_in_every_state(page: str, state: str, text: str, gates: bool, runs_dir: Path) -> None:
    make(runs_dir, state, text, gates)
    app = open_page(page, run=RUN_ID)
    page_text = is_text(app)
    assert len(app.error) == (state in UNREADABLE) + (state == "failed")
    if state in UNREADABLE:
        assert "This run cannot be opened" in page_text
    assert STATES[state][3] in page_text
    if page == "run" and state in ACTIONS:
        assert actions(app) == ACTIONS[state]


@pytest.mark.parametrize("page", ["runs", "compare"])
def test_all_states_in_one_store(page: str, runs_dir: Path) -> None:
    ids = {f"20260101-000000-{number:08x}": state for number, state in enumerate(STATES)}
    for run_id, state in ids.items():
        make(runs_dir, state, TEXTS[3], run_id=run_id)
    app = open_page(page, **({"runs": ",".join(ids)} if page == "compare" else {}))
    is_text(app)
    assert not app.error
    if page == "runs":
        statuses = dict(app.dataframe[0].value[["id", "status"]].to_numpy().tolist())
        expected: dict[str, str] = {}
        expected |= dict.fromkeys(["begun", "stalled", "elsewhere"], "running")
        expected |= dict.fromkeys(UNREADABLE, "unreadable")
        assert statuses == {run_id: expected.get(state, state) for run_id, state in ids.items()}


SAMPLES = sorted(path.name for path in sample_runs_dir().iterdir() if (path / "run.db").is_file())


@pytest.mark.parametrize(
    ("page", "address"),
    [
        *(
            pytest.param(page, {"run": run_id}, marks=pytest.mark.torture)
            for page, run_id in zip(cycle(RUN_PAGES), SAMPLES)
        ),
        ("runs", {"group": "strategy"}),
        ("compare", {"runs": ",".join(SAMPLES[::3])}),
    ],
)
@pytest.mark.usefixtures("_samples")
def test_sample_runs_are_shown(page: str, address: dict[str, str]) -> None:
    app = open_page(page, **address)
    assert not app.error
    assert charts(app)


def test_eighty_runs(runs_dir: Path) -> None:
    first = make_run(runs_dir, run_id=RUN_ID)
    for number in range(2, 81):
        shutil.copytree(first, runs_dir / f"20260101-000000-{number:08x}")
    assert len(open_page("runs").dataframe[0].value) == 80
    assert len(open_page("run").selectbox(key="address-run").options) == 80


@pytest.mark.parametrize("page", ["runs", "compare"])
def test_a_store_of_unreadable_runs_only(page: str, runs_dir: Path) -> None:
    for number, state in enumerate(UNREADABLE):
        make(runs_dir, state, run_id=f"20260101-000000-0000000{number}")
    app = open_page(page)
    assert not app.error
    if page == "runs":
        assert "3 unreadable" in [expander.label for expander in app.expander]


@pytest.mark.parametrize(
    ("page", "state"), [("runs", "queued"), ("run", "queued"), ("run", "finished"), ("run", "failed")]
)
def test_a_dashboard_that_only_looks(page: str, state: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    make(runs_dir, state)
    assert not actions(open_page(page, run=RUN_ID))


def test_a_run_that_vanishes_while_it_is_looked_at(runs_dir: Path) -> None:
    folder = make(runs_dir, "finished")
    make(runs_dir, "finished", run_id="20260101-000000-00000002")
    app = open_page("run", run=RUN_ID)
    shutil.rmtree(folder)
    app.run()
    assert "Run not found" in words(app)
