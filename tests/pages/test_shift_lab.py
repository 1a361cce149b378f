"""The shift lab of the Inputs page with a trained model: every view is a link, and other data comes from anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.viz.playground.model import Task
from dynlora.viz.shift import other_data
from dynlora.viz.ui import run_picker
from tests.pages.app import charts, field, open_page, open_whole, plain, press
from tests.pages.trained import Here, save_rows, train
from tests.tiny import save_data

GOOD = Task("classification", ("bad", "good"), paired=False)


@pytest.fixture(scope="module")
def short_run(tiny_bert: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with gates that was trained on one of two groups alone."""
    strategy = {"name": "dynamic", "gates": "module"}
    runs = tmp_path_factory.mktemp("short")
    return train(tiny_bert, tiny_data, runs, strategy=strategy, data__train_groups=["short"], train__steps=40)


def address(app: AppTest, name: str) -> list[str]:
    """Return what the address holds under a name."""
    values = app.query_params.get(name, [])
    return [values] if isinstance(values, str) else list(values)


def metrics(app: AppTest) -> list[list[str]]:
    """Return the columns of the tables of metrics on the page."""
    return [list(frame.value.columns) for frame in app.dataframe if "metric" in frame.value.columns]


def test_switches_are_kept_in_the_address(here: Here, run: Path) -> None:
    app = open_page("inputs", run=run.name, section="shift")
    field(app.toggle, "Evaluate perturbed text").set_value(True).run()
    assert address(app, "tried") == ["on"]
    field(app.toggle, "Evaluate perturbed text").set_value(False).run()
    assert address(app, "tried") == []


def test_groups_that_were_not_trained_on_are_marked(here: Here, short_run: Path, runs_dir: Path) -> None:
    shutil.copytree(short_run, runs_dir / short_run.name)
    app = open_whole("inputs", run=short_run.name, lab="group", apart="on")
    served = next(frame.value for frame in app.dataframe if "held-out loss" in frame.value.columns)
    assert set(served["group"]) == {"short", "long (not trained on)"}
    apart = next(frame.value for frame in app.dataframe if "examples" in frame.value.columns)
    assert set(apart["group"]) == {"all", "short", "long (not trained on)"}
    assert any("long (not trained on)" in str(chart["data"]) for chart in charts(app))
    listed = next(frame.value for frame in app.dataframe if "example" in frame.value.columns)
    assert set(listed["group"]) == {"short", "long (not trained on)"}


def test_groups_that_are_left_out_are_part_of_the_link_and_not_trained_on(
    here: Here, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: list[dict[str, Any]] = []
    monkeypatch.setattr(launch, "enqueue", lambda values, *_, key: queued.append(values) or launch.RunHandle("x", run))
    app = open_page("inputs", run=run.name, lab="train", left="short")
    assert app.multiselect(key="address-left").value == ["short"]
    assert not field(app.button, "Train on the other groups").disabled
    app.multiselect(key="address-left").set_value(["long"]).run()
    assert address(app, "left") == ["long"]
    press(app, "Train on the other groups")
    assert [values["data"]["train_groups"] for values in queued] == [["short"]]
    assert "run=x" in {link.proto.query_string for link in app.get("page_link") if link.proto.label == "Open run"}


def test_data_of_other_runs_is_offered_where_its_task_is_the_same(
    run: Path, tiny_bert: Path, tmp_path: Path, runs_dir: Path
) -> None:
    fits = save_data(_made(tmp_path / "fits"))
    train(tiny_bert, fits, runs_dir)
    for kind in ("numbers", "other"):
        train(tiny_bert, save_rows(tmp_path / kind, kind), runs_dir, data__group_by="none")
    summary, runs = queries.run_summary(run), queries.list_runs(runs_dir)
    choices = other_data(summary, GOOD, runs)
    assert {source: section["path"] for source, section in choices.items()} == {str(fits): str(fits)}
    positive = Task("classification", ("negative", "positive"), paired=False)
    assert set(other_data(summary, positive, runs)) == {"sentiment4", str(tmp_path / "other")}


def test_a_file_of_this_machine_is_tried(here: Here, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("review,verdict\n" + "the film was great,good\nthe plot was dull,bad\n" * 10)
    app = open_page("inputs", run=run.name, lab="data", source="file")
    app.text_input(key="address-path").set_value(str(path)).run()
    assert address(app, "path") == [str(path)]
    assert metrics(app) == [["metric", "own data", "reviews.csv", "change"]]
    assert "10 of reviews.csv" in plain(app)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-is-called-this/a.csv", "does not exist"),
        ("//elsewhere/share/a.csv", "is on another machine"),
        ("{here}/stars.csv", "its labels are one, two, the run's bad, good"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(
    path: str, message: str, here: Here, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "stars.csv").write_text("text,label\n" + "the film,one\nthe plot,two\n" * 10)
    app = open_page("inputs", run=run.name, lab="data", source="file", path=path.format(here=tmp_path))
    assert len(app.error) == 1
    assert message in plain(app)
    assert metrics(app) == []


def test_files_are_not_read_for_other_machines(
    here: Here, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    app = open_page("inputs", run=run.name, lab="data", source="file", path=str(tmp_path))
    assert not app.text_input
    assert "No data of other runs" in plain(app)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("kind", "caption"), [("typos", "Typing errors (100 %): accuracy"), ("upper", "Upper case (100 %): accuracy")]
)
def test_a_link_shows_texts_mistyped_and_in_capitals(kind: str, caption: str, here: Here, run: Path) -> None:
    app = open_page("inputs", run=run.name, kind=kind, strength="1.0", tried="on")
    text = plain(app)
    assert caption in text
    (before, after) = next(line for line in text.splitlines() if "→" in line).split(" → ")
    assert after != before
    assert (after == before.upper()) == (kind == "upper")
    assert ("may ignore upper case" in text) == (kind == "upper"), "the tiny tokenizer makes all letters small"
