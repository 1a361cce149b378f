"""The card Data check of Launch: a CSV with ten odd rows is repaired by its buttons, and the run that follows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.config import parse_config
from dynlora.jobs import uploads
from dynlora.store.lifecycle import annotate
from dynlora.store.reader import RunReader
from dynlora.training import run
from dynlora.training.run import plan
from dynlora.viz.launch import data_check
from tests.data_files.files import csv_text
from tests.data_files.odd import CLEAN, WITH_ODD_ROWS
from tests.pages.app import field, open_page, plain, shown_config
from tests.tiny import tiny_values
from tests.viz.runs import config, make_run


@pytest.fixture
def odd(runs_dir: Path) -> str:
    """Digest of an uploaded CSV with ten odd rows."""
    return uploads.keep(runs_dir, "reviews.csv", csv_text(WITH_ODD_ROWS, ";").encode("utf-16")).parent.name


def press(app: AppTest, key: str) -> AppTest:
    """Press a button."""
    app.button(key=key).click().run()
    return app


def test_each_fault_is_a_row_with_lines_and_a_button(odd: str) -> None:
    app = open_page("launch", data="upload", upload=odd)
    text = plain(app)
    assert "Read reviews.csv: UTF-16, semicolon between the cells. 63 training and 7 held-out examples" in text
    assert "training refuses the file until it is repaired" in text
    assert re.search(r"Empty text\*\* \(2\): reviews\.csv, lines \d+ and \d+: the text is empty", text)
    buttons = {button.key: button.label for button in app.button}
    assert buttons["repair-empty_text"] == "Leave out 2 rows"
    assert buttons["repair-empty_label"] == "Leave out 1 row"
    assert buttons["repair-spelling"] == "Merge 2 spellings"
    assert buttons["repair-duplicate"] == "Leave out 1 row"
    assert "“a lovely plot” (good)" in text
    assert "repair" not in shown_config(app)["data"]
    assert any(option.startswith("thread (t0, t1, t2)") for option in field(app.selectbox, "Label column").options)


def test_what_blocks_the_start_is_marked_repaired_at_once_and_undone(odd: str) -> None:
    app = open_page("launch", data="upload", upload=odd)
    text = plain(app)
    assert re.search(r"Blocks the start\]\s*\*\*Empty text", text)
    assert re.search(r"Warning\]\s*\*\*", text)
    assert app.button(key="start").disabled
    assert app.button(key="check").disabled
    press(app, "repair-safe")
    assert not app.button(key="start").disabled
    assert "drop_near_duplicates" not in shown_config(app)["data"]["repair"], "it may be about rows that are right"
    press(app, "undo-0")
    assert "drop_empty_texts" not in shown_config(app)["data"]["repair"]
    assert app.button(key="start").disabled


def test_a_row_with_too_many_cells_is_left_out_by_a_button(runs_dir: Path) -> None:
    lines = csv_text(CLEAN).splitlines()
    lines[5] += ",more,cells"
    digest = uploads.keep(runs_dir, "rows.csv", "\n".join(lines).encode()).parent.name
    app = open_page("launch", data="upload", upload=digest)
    assert "has 5 cells where the header has 3" in app.error[0].value
    assert "data.repair" not in app.error[0].value
    press(app, "repair-long-rows")
    assert not app.error
    assert "Left out 1 row: rows of a CSV file with more cells than the header (line 6)" in plain(app)
    assert shown_config(app)["data"]["repair"] == ["drop_long_rows"]
    assert not app.button(key="start").disabled


def test_the_odd_rows_are_repaired_one_by_one_and_the_run_trains(odd: str, tiny_bert: Path, runs_dir: Path) -> None:
    app = open_page("launch", data="upload", upload=odd)
    for kind in ("empty_text", "empty_label", "spelling", "duplicate", "near_duplicate", "conflict", "rare"):
        press(app, f"repair-{kind}")
    assert "no faults in" in plain(app)
    assert not [button for button in app.button if str(button.key).startswith("repair-")]
    data = shown_config(app)["data"]
    assert data["repair"] == [
        "drop_empty_texts",
        "drop_empty_labels",
        {"merge": {"Good": "good", "good ": "good"}},
        "drop_duplicates",
        "drop_near_duplicates",
        "drop_conflicts",
        "drop_rare",
    ]
    command = next(code.value for code in app.code if code.language == "bash")
    assert "data.repair=[drop_empty_texts, drop_empty_labels, {merge: {Good: good" in command
    values = tiny_values(tiny_bert, Path(data["path"]), train__steps=3)
    settings = parse_config({**values, "data": {**data, "max_length": 16}})
    planned = plan(settings)
    assert planned.meta["labels"] == ["bad", "good"]
    outcome = run.train(settings, runs_dir, progress=False)
    assert outcome.state == "finished", outcome.error
    with RunReader(outcome.folder) as reader:
        meta, logs = reader.meta(), [line.message for line in reader.logs()]
    assert meta["config"]["data"]["repair"] == data["repair"]
    assert len(meta["data_repairs"]) == 7
    assert set(meta["data_repairs"]) <= set(logs)
    assert meta["data_size"]["train"] + meta["data_size"]["held_out"] == len({row["text"] for row in CLEAN}) + 2


def test_a_link_holds_the_repairs_of_its_own_file_only(odd: str, runs_dir: Path) -> None:
    app = press(open_page("launch", data="upload", upload=odd), "repair-empty_text")
    address = app.query_params["repair"]
    link = address if isinstance(address, str) else address[0]
    assert shown_config(open_page("launch", data="upload", upload=odd, repair=link))["data"]["repair"]
    other = uploads.keep(runs_dir, "other.csv", csv_text(CLEAN).encode()).parent.name
    assert "repair" not in shown_config(open_page("launch", data="upload", upload=other, repair=link))["data"]
    key = link.partition(":")[0]
    for hostile in (f'{key}:["<img src=x>"]', f"{key}:{'[' * 5000}", f'{key}:[{{"merge":5}}]'):
        assert "repair" not in shown_config(open_page("launch", data="upload", upload=odd, repair=hostile))["data"]


def test_a_run_started_again_keeps_its_repairs(odd: str, runs_dir: Path) -> None:
    path = next((runs_dir / ".uploads" / odd).iterdir())
    run_id = "20260101-000000-00000001"
    repairs = ["drop_empty_texts", {"merge": {"Good": "good"}}]
    data = {"path": str(path), "text": "text", "label": "label", "repair": repairs}
    annotate(make_run(runs_dir, run_id=run_id), meta={"config": config("lora", 0) | {"data": data}})
    app = open_page("launch", **{"from": run_id, "upload": odd})
    assert shown_config(app)["data"]["repair"] == repairs
    press(app, "undo-0")
    press(app, "undo-0")
    assert "repair" not in shown_config(app)["data"]


def test_a_repair_that_cannot_be_done_is_said_and_can_be_undone(odd: str) -> None:
    app = press(open_page("launch", data="upload", upload=odd), "repair-spelling")
    label = field(app.selectbox, "Label column")
    label.set_value("thread").run()
    assert "no row is of class Good" in app.error[0].value.replace("\\", "")
    press(app, "undo-all")
    assert not app.error


def test_a_large_file_is_left_to_the_command_line(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_check, "MAX_CHECKED_BYTES", 100)
    app = open_page("launch", data="upload", upload=odd)
    assert "Check it on the command line: dynlora data check reviews.csv" in plain(app)


def test_the_encoding_of_a_file_is_chosen_and_its_rows_are_read_with_it(runs_dir: Path) -> None:
    rows = [{"text": f"хороший фильм {i}", "label": ("да", "нет")[i % 2]} for i in range(30)]
    digest = uploads.keep(runs_dir, "rows.csv", csv_text(rows).encode("cp1251")).parent.name
    app = open_page("launch", data="upload", upload=digest)
    assert "Encoding guessed** (30)" in plain(app)
    assert "encoding" not in shown_config(app)["data"]
    assert field(app.selectbox, "Encoding").value == "auto"
    field(app.selectbox, "Encoding").set_value("windows-1251").run()
    assert "no faults in 30 rows" in plain(app)
    assert shown_config(app)["data"]["encoding"] == "windows-1251"
    assert "label (да, нет)" in field(app.selectbox, "Label column").options
    field(app.selectbox, "Encoding").set_value("utf-8").run()
    assert "is not utf-8 text" in app.error[0].value.replace("\\", "")
    assert field(app.selectbox, "Encoding").value == "utf-8"
