"""A page of a running run, left alone: its controls leave the address as it is, and what it shows grows."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.pages.app import open_page, words
from tests.viz.growing import PLANNED, RUN, Running


@pytest.fixture
def running(runs_dir: Path) -> Running:
    """A run at step 22 of 400."""
    run = Running(runs_dir)
    run.advance(22)
    return run


def address(app: AppTest) -> dict[str, str]:
    """Return the names and values in the address of a page."""
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}


@pytest.mark.parametrize(("page", "key"), [("capacity", "address-steps"), ("inputs", "address-step")])
def test_a_page_left_alone_keeps_its_address_and_follows_the_run(page: str, key: str, running: Running) -> None:
    app = open_page(page, run=RUN)
    before = address(app)
    identity = app.slider(key=key).proto.id
    for step in (23, 24, 41, 60):
        running.advance(step)
        app.run()
        assert not app.exception
        assert address(app) == before, "nobody has touched a control"
        assert app.slider(key=key).proto.id == identity, "drawn anew it would flicker, and lose what is being dragged"
    running.writer.finish("stopped", None)
    app = open_page(page, run=RUN)
    assert app.slider(key=key).max == 60


def test_an_end_that_was_picked_stays_and_an_open_one_follows(running: Running) -> None:
    app = open_page("capacity", run=RUN)
    app.slider(key="address-steps").set_range(5, 20).run()
    assert address(app)["steps"] == "5-20"
    running.advance(30)
    app.run()
    assert address(app)["steps"] == "5-20"
    app.slider(key="address-steps").set_range(5, PLANNED).run()
    assert address(app)["steps"] == "5-"
    assert "steps 5 to 30" in words(app).replace("\\", "")
    running.advance(35)
    app.run()
    assert address(app)["steps"] == "5-"
    assert "steps 5 to 35" in words(app).replace("\\", "")
