"""The Inputs page: gates against chance, groups, and from a point of the probe set to its text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynlora.viz.kit import theme
from tests.pages.app import charts, open_page, open_whole, words
from tests.viz.runs import N_EXAMPLES, make_run

RUN = "20260101-000000-00000001"


def test_only_the_gate_that_differs_is_named(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN)
    text = words(open_whole("inputs", run=RUN)).replace("\\", "")
    assert "1 of 12 gates differ between groups beyond chance" in text
    assert "The groups explain the largest fraction of the variation in key 0" in text


def test_points_in_the_address_list_their_texts(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN)
    app = open_page("inputs", run=RUN, points="3,7")
    assert "Selected examples: 2" in words(app).replace("\u200b", "")
    tables = [
        frame.value for frame in app.dataframe if "example" in frame.value.columns and "text" in frame.value.columns
    ]
    assert sorted(tables[0]["example"]) == [3, 7]
    assert tables[0]["text"].str.startswith(("3 ", "7 ")).all()
    assert "their mean gates differ most in layer" in words(app).replace("\\", "")


def test_a_module_that_was_selected_elsewhere_is_followed_here(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN)
    app = open_page("inputs", run=RUN, module="bert.encoder.layer.1.attention.self.key")
    (bars,) = [trace for trace in charts(app)[0]["data"] if trace["type"] == "bar"]
    assert bars["marker"]["color"].count(theme.LIGHT.second) == 1
    assert "key 1: " in words(app).replace("\\", "").replace("\u200b", "")


def test_a_kind_that_was_selected_elsewhere_is_the_only_one_here(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN)
    app = open_whole("inputs", run=RUN, kind="value", depth="layer 1")
    assert (app.selectbox(key="address-kind").value, app.selectbox(key="address-depth").value) == ("value", "layer 1")
    (bars,) = [trace for trace in charts(app)[0]["data"] if trace["type"] == "bar"]
    assert [name for name, _ in bars["customdata"]] == ["bert.encoder.layer.1.attention.self.value"]
    text = words(app).replace("\\", "").replace("\u200b", "")
    assert "no gate differs between groups beyond chance" in text, "the one that does is of another kind"


@pytest.mark.parametrize("colour", ["group", "loss", "prediction", "gate"])
def test_the_probe_set_can_be_coloured(colour: str, runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN)
    app = open_page("inputs", run=RUN, colour=colour)
    scatter = json.dumps(charts(app)[-1])
    assert scatter.count('"selectedpoints"') == 0
    assert ("Gate of" in scatter) == (colour == "gate")


@pytest.mark.parametrize("points", ["x", "-1", "99999", "1,,2;3", ",".join(map(str, range(999)))])
def test_nonsense_points_are_ignored(points: str, runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN)
    app = open_whole("inputs", run=RUN, points=points)
    tables = [
        frame.value for frame in app.dataframe if "example" in frame.value.columns and "text" in frame.value.columns
    ]
    assert len(tables[0]) <= N_EXAMPLES


def test_members_that_disagree_are_shown_by_group_and_example(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN, extras=True)
    app = open_whole("inputs", run=RUN, colour="disagreement")
    text = words(app).replace("\\", "")
    assert "Disagreement by input group" in text
    assert "disagreement is best for fine (0.010) and worst for tweets (0.200)" in text
    assert json.dumps(charts(app)[2]).count('"Disagreement"') == 1
    assert any("disagreement" in frame.value.columns for frame in app.dataframe)


def test_a_method_without_members_says_nothing_of_disagreement(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN)
    app = open_whole("inputs", run=RUN, colour="disagreement")
    assert "disagreement" not in words(app)
    assert not any("disagreement" in frame.value.columns for frame in app.dataframe)


def test_groups_say_how_far_their_probabilities_can_be_believed(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=RUN, extras=True)
    app = open_whole("inputs", run=RUN)
    text = words(app)
    assert "Calibration error by input group" in text
    assert "Brier score by input group" in text
    served = next(frame.value for frame in app.dataframe if "calibration error" in frame.value.columns)
    assert served["calibration error"].tolist() == pytest.approx([0.02, 0.3])
    assert served["Brier score"].tolist() == pytest.approx([0.1, 0.4])


def test_no_text_is_hidden(runs_dir: Path) -> None:
    """A list of strong language hid texts of the user's own data."""
    make_run(runs_dir, run_id=RUN, text="what a crock of shit")
    app = open_whole("inputs", run=RUN)
    listed = next(frame.value for frame in app.dataframe if "text" in frame.value.columns)
    assert listed["text"].str.contains("crock").all()
