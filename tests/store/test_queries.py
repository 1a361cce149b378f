"""Frames, summaries and lists hold what the run holds."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynlora.errors import ConfigError
from dynlora.store import catalogue, meta, queries, whole_tables
from dynlora.store.writer import RunWriter
from tests.store.builder import CONFIG, SUMMARY_KEYS, define, finished_run, new_run, record, values

NAMES = ["encoder.0.query", "encoder.1.query", "encoder.2.query"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("runs"), 40, params={"budget": 96}, model_path="/models/minilm")


def test_a_summary_has_the_documented_shape(folder: Path) -> None:
    summary = queries.run_summary(folder)
    assert tuple(summary.model_dump())[: len(SUMMARY_KEYS)] == SUMMARY_KEYS
    assert summary.ranks == dict(zip(NAMES, [4, 0, 2], strict=True))
    assert summary.metrics == {"accuracy": 0.04}
    assert summary.config == meta.config(CONFIG)
    assert (summary.status, summary.step, summary.max_steps, summary.seed) == ("finished", 40, 100, 1)
    json.dumps(summary.model_dump(), allow_nan=False)


def test_a_summary_of_a_run_that_has_not_begun(tmp_path: Path) -> None:
    summary = queries.run_summary(new_run(tmp_path, state="queued"))
    assert (summary.status, summary.ranks, summary.metrics, summary.best) == ("queued", {}, {}, {})


def test_signals_as_frames(folder: Path) -> None:
    wide = queries.signal_frame(folder, "importance")
    assert list(wide.columns) == ["step", *NAMES]
    np.testing.assert_array_equal(wide[NAMES].to_numpy()[6], values(7))
    assert list(queries.signal_frame(folder, "group_gate").columns)[1:3] == [f"short/{NAMES[0]}", f"short/{NAMES[1]}"]
    assert list(queries.signal_frame(folder, "probe_loss").columns)[1:] == ["0", "1", "2", "3"]
    with pytest.raises(KeyError, match="has no signal"):
        queries.signal_frame(folder, "gate")


def test_a_heat_map_is_binned(folder: Path) -> None:
    heatmap = queries.heatmap(folder, "importance", 8)
    assert heatmap.frame.index.tolist() == NAMES
    assert heatmap.frame.shape[1] <= 8
    assert heatmap.points == 40
    np.testing.assert_array_equal(heatmap.frame.iloc[:, -1], values(40))
    high = queries.heatmap(folder, "importance", 1, value="high").frame
    np.testing.assert_array_equal(high[40], np.max([values(step) for step in range(1, 41)], axis=0))
    assert queries.heatmap(folder, "importance", 400, 10, 20).frame.columns.tolist() == list(range(10, 20))
    with pytest.raises(ValueError, match="value 'mean'"):
        queries.heatmap(folder, "importance", value="mean")


def test_scalars_events_and_moves(folder: Path) -> None:
    scalars = queries.scalars_frame(folder)
    assert scalars.groupby(["name", "split"]).size().to_dict() == {("accuracy", "validation"): 4, ("loss", "train"): 40}
    assert queries.scalars_frame(folder, "none").empty
    assert queries.events_frame(folder)["modules"].tolist() == [[NAMES[0], NAMES[2]]] * 4
    moves = queries.rank_moves(folder)
    assert moves.iloc[0].to_dict() == {
        "seq": 1,
        "step": 10,
        "edit": "move",
        "donor": NAMES[0],
        "receiver": NAMES[2],
        "count": 1,
        "donor_score": 0.5,
        "receiver_score": 2.0,
    }


def test_moves_of_a_hostile_run_do_not_break(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    edits = [{"edit": "drop", "module": 1, "count": "x"}, {"donor": 99, "donor_score": "high"}, 7, {"receiver": True}]
    with RunWriter.open(run, resume_from=None) as writer:
        define(writer)
        writer.event(1, "reallocate", [], {"edits": edits})
        writer.event(2, "reallocate", [], {"edits": 3})
        writer.finish("finished")
    moves = queries.rank_moves(run)
    assert moves["donor"].tolist()[:2] == [NAMES[1], "module 99"]
    assert moves["count"].isna().tolist() == [True, False, False]


def test_groups_gates_and_examples(folder: Path) -> None:
    gates = queries.gates_by_group(folder)
    assert gates.index.tolist() == ["short", "long"]
    assert gates.loc["long", NAMES[0]] == 43
    assert queries.gates_by_group(folder, step=19).loc["short", NAMES[0]] == 10
    assert queries.gates_by_group(folder, step=5).empty
    examples = queries.examples_frame(folder, step=20)
    assert examples["loss"].tolist() == [0, 20, 40, 60]
    assert examples["prediction"].isna().all()  # pyright: ignore
    assert queries.probe_gates(folder).empty
    assert queries.groups_frame(folder)["group"].tolist() == ["short", "long"]
    assert queries.logs_frame(folder).empty
    assert queries.system_frame(folder).empty
    assert queries.modules_frame(folder)["layer"].tolist() == [0, 1, 2]


def test_the_list_shows_every_run_and_why_one_cannot_be_read(tmp_path: Path) -> None:
    first, second = finished_run(tmp_path, 10, "one", created=1.0), new_run(tmp_path, "two", "queued", created=2.0)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.db").write_bytes(b"nothing")
    (tmp_path / "20260101-000000-0123abcd").mkdir()
    (tmp_path / "notes").mkdir()
    runs = queries.list_runs([tmp_path, tmp_path / "missing"])
    assert list(runs.columns) == list(queries.RUN_COLUMNS)
    assert runs["id"].tolist()[:2] == [second.name, first.name]
    assert runs["status"].tolist() == ["queued", "finished", "corrupt", "corrupt"]
    assert runs.iloc[1]["metrics"] == {"accuracy": 0.01}
    assert "not a SQLite database" in runs.set_index("id")["reason"]["broken"]
    assert queries.list_runs(tmp_path / "missing").empty


def test_a_kept_row_is_used_until_the_store_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished_run(tmp_path, 10)
    catalogue.run_rows(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "_read", lambda _: pytest.fail("a finished run was opened again"))
        assert catalogue.run_rows(tmp_path)[0]["name"] == "a"
    RunWriter.annotate(folder, meta={"name": "b"})
    assert catalogue.run_rows(tmp_path)[0]["name"] == "b"
    with RunWriter.open(folder, resume_from=10) as writer:
        record(writer, 11, 20)
        writer.commit()
        row = catalogue.run_rows(tmp_path)[0]
        assert (row["status"], row["step"], row["metrics"]) == ("running", 20, {"accuracy": 0.02})


def test_tables_are_written_in_every_format() -> None:
    frame = pd.DataFrame({"step": [1, 2], "=cmd()": np.array([-0.5, np.nan], np.float32), "text": ["@x", "fine"]})
    text = whole_tables.encode(frame, "csv").decode()
    assert text == "step,'=cmd(),text\n1,-0.5,'@x\n2,,fine\n"
    assert json.loads(whole_tables.encode(frame, "json"))[1] == {"step": 2, "=cmd()": None, "text": "fine"}
    pd.testing.assert_frame_equal(pd.read_parquet(BytesIO(whole_tables.encode(frame, "parquet"))), frame)
    with pytest.raises(ConfigError, match="format 'xlsx'"):
        whole_tables.encode(frame, "xlsx")
