"""A link to a page gets streamlit's own document, told where its server is."""

from __future__ import annotations

import ast
import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest
from streamlit.runtime.pages_manager import PagesManager

from dynlora.server import asgi, entry_page
from dynlora.server.serve import app_root
from dynlora.viz.kit import theme
from dynlora.viz.kit.page_style import style_sheet


def test_every_page_has_a_route() -> None:
    named = [
        str(ast.literal_eval(call.args[0]))
        for call in ast.walk(ast.parse(Path(app_root(), "app.py").read_text("utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "st.Page"
    ]
    assert len(named) > 5
    assert sorted(route.path for route in entry_page.page_routes()) == sorted(
        ["/", *(f"/{Path(name).stem}" for name in named)]
    )


def test_the_document_is_streamlits_with_one_line_in_its_head() -> None:
    """Should streamlit write its head otherwise, the line is missing and deep links cost two errors again."""
    page = entry_page.document("runs")
    assert page.count(entry_page.TOLD) == 1
    assert page.index("<head>") < page.index(entry_page.TOLD) < page.index("<script type=")


def test_the_style_sheet_is_in_the_document_after_everything_that_streamlit_adds_to_its_head() -> None:
    """Without it the first heading is unstyled until the page's first run has begun: seconds on a busy machine."""
    for page in ("", "run"):
        markup = entry_page.document(page)
        head, _, body = markup.partition("</head>")
        assert "<style" not in head
        for colours in (theme.LIGHT, theme.DARK):
            sheet = style_sheet(colours).removeprefix("<style>")
            assert f'<style media="(prefers-color-scheme: {colours.mode})">{sheet}' in body
        assert body.index('id="root"') < body.index("<style")


def test_pages_with_charts_fetch_what_draws_them_at_once() -> None:
    """Should streamlit name the file otherwise, nothing breaks, but first charts wait for it again."""
    name = entry_page.chart_file()
    assert (entry_page.streamlit_files() / name).is_file()
    for page in entry_page.WITH_CHARTS:
        assert f'<link rel="modulepreload" href="./{name}">' in entry_page.document(page)
        assert Path(app_root(), "pages", f"{page}.py").is_file()
    assert name not in entry_page.document("methods")


def test_the_document_is_asked_for_anew_each_time() -> None:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/run", "headers": [], "query_string": b"run=x"}

    async def ask() -> None:
        await entry_page.page_routes()[0].app(scope, receive, send)

    asyncio.run(ask())
    assert messages[0]["status"] == 200
    assert dict(messages[0]["headers"])[b"cache-control"] == b"no-cache"
    assert entry_page.TOLD.encode() in messages[1]["body"]


def test_no_tab_ever_runs_a_page_without_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PagesManager, "uses_pages_directory", None)  # as in a process that has just started
    importlib.reload(asgi)
    PagesManager(str(app_root() / "app.py"))  # what every tab begins with, before the first `st.navigation`
    assert PagesManager.uses_pages_directory is False
