"""The Inputs page: gates against chance, groups, and from a point of the probe set to its text."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dynlora.analysis.module_effects import LEAST_EXAMPLES
from dynlora.store import queries
from dynlora.store.measurements import Effects
from tests.pages.app import charts, open_page, open_whole, plain, press, words
from tests.pages.trained import Here, save_rows, train
from tests.viz.runs import N_EXAMPLES, make_run

RUN = "20260101-000000-00000001"


def test_a_run_without_gates_maps_how_strongly_each_module_acts(runs_dir: Path) -> None:
    make_run(runs_dir, gates=False, effects=True)
    app = open_page("inputs", run=RUN)
    assert "18 % of the adapter's effect moves, most of it to key of layer 0." in plain(app)
    maps = [trace for chart in charts(app) for trace in chart["data"] if "coloraxis" in trace]
    assert len(maps) == 3, "one for each group, and the difference"


def test_two_groups_that_a_reader_compares_are_in_the_address(runs_dir: Path) -> None:
    make_run(runs_dir, gates=False, effects=True)
    app = open_page("inputs", run=RUN, first="tweets", second="fine")
    assert "From tweets to fine" in plain(app)
    assert app.selectbox(key="address-first").value == "tweets"


def test_gates_are_a_second_map_and_importance_by_group_one_of_the_last_step(runs_dir: Path) -> None:
    make_run(runs_dir, effects=True)
    assert "1 of 12 gates differ between groups beyond chance" in plain(open_page("inputs", run=RUN, map="gates"))
    text = plain(open_page("inputs", run=RUN, map="importance_by_group"))
    assert "without key 0 on tweets (+0.250 nats) and without value 0 on fine (+0.125 nats)" in text
    earlier = plain(open_page("inputs", run=RUN, map="importance_by_group", step="20"))
    assert "Importance by group is recorded at the last evaluation." in earlier


def test_an_older_run_is_measured_now(run: Path, here: Here) -> None:
    """A run of an older version has no effects recorded; one pass of its adapter gives what a newer run recorded."""
    recorded = queries.probe_effects(run)
    with closing(sqlite3.connect(run / "run.db")) as database:
        database.execute("DELETE FROM vectors WHERE signal = (SELECT id FROM signals WHERE name = 'probe_effect')")
        database.commit()
    app = open_page("inputs", run=run.name)
    assert "by input was not recorded" in plain(app)
    press(app, "Measure now")
    here.finish()
    app.run()
    assert "Mean change of a module's output" in plain(app)
    effects = Effects.read(run / "effects.json")
    assert effects is not None
    np.testing.assert_allclose(np.array(effects.effects), recorded.to_numpy(), rtol=1e-3, atol=1e-6)


def test_points_in_the_address_list_their_texts(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("inputs", run=RUN, points="3,7")
    assert "Selected examples: 2" in words(app).replace("\u200b", "")
    tables = [
        frame.value for frame in app.dataframe if "example" in frame.value.columns and "text" in frame.value.columns
    ]
    assert sorted(tables[0]["example"]) == [3, 7]
    assert tables[0]["text"].str.startswith(("3 ", "7 ")).all()
    assert "their mean gates differ most in layer" in plain(app)


def test_a_kind_that_was_selected_elsewhere_is_the_only_one_here(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_whole("inputs", run=RUN, kind="value", depth="layer 1")
    assert (app.selectbox(key="address-kind").value, app.selectbox(key="address-depth").value) == ("value", "layer 1")
    (bars,) = [trace for trace in charts(app)[0]["data"] if trace["type"] == "bar"]
    assert [name for name, _ in bars["customdata"]] == ["bert.encoder.layer.1.attention.self.value"]
    text = plain(app)
    assert "no gate differs between groups beyond chance" in text, "the one that does is of another kind"


def test_the_probe_set_can_be_coloured(runs_dir: Path) -> None:
    make_run(runs_dir)
    scatter = json.dumps(charts(open_page("inputs", run=RUN, colour="gate"))[-1])
    assert scatter.count('"selectedpoints"') == 0
    assert "Gate of" in scatter


@pytest.mark.parametrize("points", ["x", "-1,99999,1,,2;3", ",".join(map(str, range(999)))])
def test_nonsense_points_are_ignored(points: str, runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_whole("inputs", run=RUN, points=points)
    tables = [
        frame.value for frame in app.dataframe if "example" in frame.value.columns and "text" in frame.value.columns
    ]
    assert len(tables[0]) <= N_EXAMPLES


def test_disagreement_and_calibration_are_shown_by_group_and_example(runs_dir: Path) -> None:
    make_run(runs_dir, extras=True)
    app = open_whole("inputs", run=RUN, colour="disagreement")
    assert "disagreement is highest for tweets (0.200) and lowest for fine (0.010)" in plain(app)
    assert any("disagreement" in frame.value.columns for frame in app.dataframe)
    served = next(frame.value for frame in app.dataframe if "calibration error" in frame.value.columns)
    assert served["calibration error"].tolist() == pytest.approx([0.02, 0.3])
    assert served["Brier score"].tolist() == pytest.approx([0.1, 0.4])


def test_a_regression_has_a_map_and_small_groups_are_not_named(tiny_bert: Path, tmp_path: Path, runs_dir: Path) -> None:
    data = save_rows(tmp_path / "numbers", "numbers")
    run = train(tiny_bert, data, runs_dir, data__task="regression")
    text = plain(open_page("inputs", run=run.name))
    assert "Mean change of a module's output" in text
    assert f"Fewer than two groups have {LEAST_EXAMPLES} examples" in text
    assert "Loss by group" not in text
