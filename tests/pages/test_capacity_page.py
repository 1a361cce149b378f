"""The Capacity page: every part of the view lives in the address, and what it shows follows the steps shown."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dynlora.analysis.run_reading import read_run
from dynlora.kinds.train.panels.capacity import SignalMap
from dynlora.server.serve import sample_runs_dir
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import RunView
from tests.pages.app import charts, components, open_page, open_whole, plain, words
from tests.viz.drawn import layout_of
from tests.viz.runs import HOSTILE, make_run

RUN = "20260101-000000-00000001"
MANY = "20261205-151835-85d82515"
"""A sample of 210 modules in 30 layers."""


def replay(app: AppTest) -> dict:
    """Return what the page hands to the replay element."""
    (element,) = components(app)
    return json.loads(element.proto.json)


def test_an_address_restores_the_whole_view(runs_dir: Path) -> None:
    make_run(runs_dir)
    name = "bert.encoder.layer.1.attention.self.key"
    app = open_whole("capacity", run=RUN, signal="importance", rows="depth", step="5", steps="2-30", module=name)
    assert app.slider(key="address-steps").value == (2, 30)
    assert app.selectbox(key="address-module").value == name
    assert "key 1: importance over time" in words(app).replace("\u200b", "")
    assert "At step 5, importance is highest" in words(app)
    assert "Rank and importance at step 5" in plain(app)
    frames = replay(app)
    assert frames["steps"][frames["frame"]] == 5
    assert [module["name"] for module in frames["modules"] if module["marked"]] == [name]
    edges = np.frombuffer(base64.b64decode(charts(app)[0]["data"][0]["x"]["bdata"]))
    assert edges.tolist() == [step - 0.5 for step in range(2, 32)]  # one column for each step shown


def test_a_kind_and_a_depth_select_the_modules_of_every_card(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_whole("capacity", run=RUN, kind="key", depth="layer 1")
    assert (app.selectbox(key="address-kind").value, app.selectbox(key="address-depth").value) == ("key", "layer 1")
    assert [module["short"] for module in replay(app)["modules"]] == ["key 1"]
    assert len(charts(app)[0]["data"][0]["meta"]["positions"]) == 1
    assert "Bands from or to the selected modules are drawn" in words(app)
    app.selectbox(key="address-depth").select("").run()
    assert "depth" not in app.query_params
    assert [module["short"] for module in replay(app)["modules"]] == ["key 0", "key 1", "key 2"]


@pytest.mark.parametrize(
    ("address", "rows"),
    [({"open": "14"}, 37), ({"rows": "kind"}, 210)],
)
@pytest.mark.usefixtures("_samples")
def test_a_map_of_many_modules_begins_with_its_layers(address: dict[str, str], rows: int) -> None:
    app = open_page("capacity", run=MANY, **address)
    assert len(charts(app)[0]["data"][0]["meta"]["positions"]) == rows


def test_parts_are_closed_until_an_address_names_them_or_a_control_in_them(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("capacity", run=RUN)
    assert len(charts(app)) == 1, "what is closed is not computed"
    assert "LoraConfig" not in str([code.value for code in app.code])
    app = open_page("capacity", run=RUN, section=["transfers", "ranks"])
    assert "Rank transfers" in words(app)
    assert "LoraConfig" in str([code.value for code in app.code])
    assert "Module ablation" not in words(app)


def test_a_changed_range_goes_to_the_address(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_whole("capacity", run=RUN)
    app.slider(key="address-steps").set_range(12, 20).run()
    assert app.query_params["steps"] == "12-20"
    assert "Rank transfers, steps 12 to 20" in plain(app)
    assert "No rank moved between step 12 and step 20" in plain(app)


@pytest.mark.parametrize(
    "address",
    [
        {"step": "-1", "steps": "9-2", "signal": "nope"},
        {"step": "9" * 30, "steps": "99999-", "module": "$x$"},
        {"steps": "1-2-3", "flow": "<b>", "rows": "x", "kind": "<b>", "depth": "layer 99"},
    ],
)
def test_nonsense_in_the_address_is_ignored(address: dict[str, str], runs_dir: Path) -> None:
    make_run(runs_dir)
    assert len(charts(open_whole("capacity", **address))) == 3


def test_a_methods_own_signals_and_decisions_are_drawn_without_knowing_it(runs_dir: Path) -> None:
    make_run(runs_dir, own=True, text="low-rank [A]")
    app = open_whole("capacity", run=RUN, signal="group")
    assert "12 modules form 6 groups." in plain(app)
    titles = [one.value for one in app.markdown]
    assert "##### Low\\-rank \\[A\\] by module over time" in titles, "safe twice, and people would read the backslashes"
    assert app.dataframe[0].value["modules"].tolist()[0] == "query 0, key 0"


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        pytest.param(text, signal, marks=() if at == 3 * place else pytest.mark.torture)
        for at, text in enumerate(HOSTILE)
        for place, signal in enumerate(("group", "path"))
    ],
)
def test_what_a_method_calls_its_signals_is_text(text: str, signal: str, runs_dir: Path) -> None:
    make_run(runs_dir, own=True, text=text)
    app = open_whole("capacity", run=RUN, signal=signal)
    drawn = json.dumps(charts(app)[0])
    assert "<img" not in json.dumps(charts(app))
    assert "%{customdata" not in drawn.replace("%{customdata:,.0f}", "")


def test_a_map_by_layers_outlines_the_layers_that_hold_a_module_that_needs_rank() -> None:
    run = read_run(sample_runs_dir() / MANY)
    facts = {"planted": {"sizes": {"model.layers.3.mlp.up_proj": 1.0, "model.layers.5.mlp.up_proj": 1.0}}}
    run = replace(run, summary=run.summary.model_copy(update={"task_facts": facts}), order="layer", opened=5)
    panel, view = SignalMap(), RunView(run.folder, run, run.store)
    layout = layout_of(panel.figure(panel.data(view), theme.LIGHT))  # pyright: ignore[reportArgumentType]
    rows = dict(zip(np.round(layout.yaxis.tickvals, 6), layout.yaxis.ticktext, strict=True))
    outlined = [rows[round((one.y0 + one.y1) / 2, 6)] for one in layout.shapes if one.type == "rect"]
    assert [row.split("<br>")[1] for row in outlined] == ["layer 3", "layer 5", "model.layers.5.mlp.up_proj"]


def test_a_map_opens_on_importance_where_no_rank_moved(runs_dir: Path) -> None:
    make_run(runs_dir, moves=False, about={"planned_events": 0})
    assert replay(open_page("capacity", run=RUN))["quantity"] == "importance"
