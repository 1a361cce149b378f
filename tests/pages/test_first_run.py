"""The run that a page begins with where neither its address nor the session names one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages.app import open_page, plain, words
from tests.viz.runs import make_run

pytestmark = pytest.mark.usefixtures("_samples")

ABLATED, SHRUNK = "20261205-150635-e9038c42", "20261205-144905-03e6ddf3"
"""The sample whose modules were ablated, and the one whose adapter was measured at smaller sizes."""

REACTS = "20261205-153533-21b95200"
"""The sample whose gates react to the input."""


def test_without_a_run_of_ones_own_that_suits_the_fullest_sample_comes_first(runs_dir: Path) -> None:
    make_run(runs_dir, run_id="20261225-000001-00000000", moves=False, state="running", steps=6)
    assert open_page("capacity").selectbox(key="address-run").value == ABLATED


def test_inputs_begins_with_a_sample_whose_effects_by_input_are_recorded() -> None:
    app = open_page("inputs")
    assert app.selectbox(key="address-run").value == REACTS
    assert "% of the adapter's effect moves" in plain(app)
    assert "Worst examples" in [one.proto.label for one in app.get("page_link")]


def test_a_run_of_ones_own_that_suits_comes_before_every_sample(runs_dir: Path) -> None:
    mine = "20200101-000001-00000000"
    make_run(runs_dir, run_id=mine)
    assert open_page("capacity").selectbox(key="address-run").value == mine


def test_shrink_begins_with_an_adapter_that_is_finished(runs_dir: Path) -> None:
    run = make_run(runs_dir, run_id="20261225-000001-00000000", state="running", steps=6)
    (run / "checkpoint").mkdir()
    app = open_page("shrink")
    assert app.selectbox(key="address-run").value == SHRUNK
    assert "measured once its run has ended" not in words(app)
