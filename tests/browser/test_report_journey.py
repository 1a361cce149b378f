"""Reports opened from disk with the network off: charts are drawn, nothing is asked for, nothing breaks out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dynlora.viz.kit.theme import DARK, LIGHT
from dynlora.viz.report import comparison_report, run_report
from tests.browser.conftest import Picture, Window
from tests.viz.runs import HOSTILE, make_run

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

DARK_MUTED, LIGHT_MUTED = ("rgb({}, {}, {})".format(*bytes.fromhex(colours.muted[1:])) for colours in (DARK, LIGHT))
BREAK_OUT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Opened(NamedTuple):
    """A page of a file, and what it did that it should not."""

    page: Page
    troubles: list[str]

    @property
    def charts(self) -> int:
        """Charts that are drawn."""
        return self.page.locator(".plot .main-svg:first-child").count()


@pytest.fixture
def offline(window: Window) -> Iterator[BrowserContext]:
    """A browser without a network."""
    context = window(1280, 1000, offline=True)
    yield context
    context.close()


def opened(context: BrowserContext, path: Path) -> Opened:
    """Open a file and wait until all of its charts are drawn."""
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(f"dialog {dialog.message}") or dialog.dismiss())
    page.on("request", lambda request: troubles.append(request.url) if _is_asked_for(request.url, path) else None)
    page.goto(path.as_uri())
    page.locator("html[data-drawn]").wait_for(state="attached")  # the page's policy lets nothing be evaluated
    return Opened(page, troubles)


def _is_asked_for(address: str, path: Path) -> bool:
    """Say whether an address is another than the file's own and nothing that lies in the page itself."""
    return address != path.as_uri() and not address.startswith(("data:", "blob:"))


@pytest.mark.journey
def test_a_run_and_a_comparison_open_from_disk(
    offline: BrowserContext, runs_dir: Path, tmp_path: Path, picture: Picture
) -> None:
    from playwright.sync_api import expect

    ids = [f"20260101-000000-0000000{i}" for i in range(2)]
    texts = (BREAK_OUT, HOSTILE[0])
    folders = [
        make_run(runs_dir, run_id=ids[i], text=texts[i], strategy=name, extras=True, own=True)
        for i, name in enumerate(["dynamic", "lora"])
    ]
    one, several = tmp_path / "run.html", tmp_path / "comparison.html"
    one.write_bytes(run_report(folders[0]))
    several.write_bytes(comparison_report(folders))
    for path in (one, several):
        report = opened(offline, path)
        assert report.troubles == []
        assert report.charts == report.page.locator(".plot").count() >= 4
        assert report.page.locator("img, iframe, script[src]").count() == 0
        report.page.locator("summary").first.click()
        assert report.page.locator("details[open] td").first.is_visible()
        picture(report.page, f"report-{path.stem}")

        report.page.emulate_media(color_scheme="dark")
        title = report.page.locator(".plot .xtitle").first
        expect(title).to_have_css("fill", DARK_MUTED)
        report.page.set_viewport_size({"width": 375, "height": 900})
        expect(report.page.locator(".plot .main-svg").first).to_have_css("width", re.compile(r"3\d\d(\.\d+)?px"))
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert report.page.evaluate(wide) <= 0
        report.page.get_by_role("button", name="Light").click()
        expect(title).to_have_css("fill", LIGHT_MUTED)
        picture(report.page, f"report-{path.stem}-narrow")
        assert report.troubles == []


@pytest.mark.journey
def test_without_javascript_the_tables_remain(window: Window, runs_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.write_bytes(run_report(make_run(runs_dir)))
    context = window(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert "The charts need JavaScript" in page.inner_text("body")
    page.locator("summary").first.click()
    assert page.locator("details[open] td").first.is_visible()
    context.close()
