"""A dashboard that serves other machines: it only looks until its token is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st
from streamlit import config
from streamlit.testing.v1 import AppTest

from dynlora.jobs import environment
from dynlora.server import serve
from dynlora.viz.ui import run_picker
from tests.pages.app import open_page, words

TOKEN = "0123456789abcdef-token"


@pytest.fixture(autouse=True)
def _served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    monkeypatch.setenv(environment.TOKEN_VARIABLE, TOKEN)
    monkeypatch.setattr(serve, "WRONG_COSTS_S", 0.0)


def unlocked_with(app: AppTest, token: str) -> AppTest:
    app.sidebar.text_input[0].set_value(token)
    next(button for button in app.sidebar.button if button.label == "Unlock").click().run()
    return app


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_nothing_starts_before_the_token_and_everything_after_it() -> None:
    app = open_page("launch")
    assert "Read-only, because it serves other machines." in words(app)
    assert "Start" not in labels(app)
    unlocked_with(app, TOKEN[:-1])
    assert "Wrong token." in words(app)
    assert "Start" not in labels(app)
    unlocked_with(app, TOKEN)
    assert "Unlocked for this session" in words(app)
    assert "Start" in labels(app)
    assert TOKEN not in str(app.query_params)
    assert "Start" not in labels(open_page("launch")), "another session has to give it too"


def test_without_a_token_there_is_nothing_to_type(monkeypatch: pytest.MonkeyPatch, runs_dir: Path) -> None:
    monkeypatch.delenv(environment.TOKEN_VARIABLE)
    app = open_page("runs")
    assert "Read-only" in words(app)
    assert not app.sidebar.text_input


@pytest.mark.parametrize(("address", "locked"), [("0.0.0.0", True), ("::1", False)])
def test_streamlit_alone_serves_other_machines_read_only(
    address: str, locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`streamlit run app.py --server.address=0.0.0.0` let everyone who reached it start and delete runs."""
    monkeypatch.delenv(run_picker.READ_ONLY_VARIABLE)
    before = st.get_option("server.address")
    config.set_option("server.address", None)
    assert run_picker.serves_others(), "without an address it binds all of the machine's"
    config.set_option("server.address", address)
    try:
        app = open_page("launch")
        assert ("Read-only, because it serves other machines." in words(app)) is locked
        assert ("Start" in labels(app)) is not locked
        if locked:
            assert "Start" in labels(unlocked_with(app, TOKEN))
    finally:
        config.set_option("server.address", before)
