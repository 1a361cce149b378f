"""The browser that the tests in this folder drive, and the dashboard that it opens: one of each for all of them.

Each test has a runs folder of its own all the same: the folder that the server was started with is a link, which every
test points at its own.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from dynlora.jobs import launch
from dynlora.store import queries
from tests.browser.chromium import find_chromium
from tests.viz.runs import make_run
from tests.waiting import PATIENCE_MS, PATIENCE_S, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
ROOT = Path(__file__).resolve().parents[2]
OTHER = "20260101-000000-00000001"
"""A finished run that every browser test finds in its runs folder."""

LOG = "server.log"
"""What the dashboard's server writes, beside the folder whose runs it shows."""

DREW = "A fragment rerun was triggered with a callback that displays one or more elements"
"""Streamlit's warning that the page has lost its first elements, the style sheet among them."""

DRAWING = '[data-testid="stApp"][data-test-script-state="running"]'
"""A page whose script runs."""

DRAWN_IN_MS = 5_000
"""Milliseconds that an action waits for a page that is drawn."""

WIDTH, HEIGHT = 1280, 1000
"""Of a page, pixels."""

Window = Callable[..., "BrowserContext"]
"""Opens a window: width, height, and what else playwright takes."""

MODES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

IS_DARK = """dark => {
  const colour = getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor;
  return (colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) < 200) === dark;
}"""
"""Says whether the page is in the dark mode, or not, by its background."""

Picture = Callable[..., None]
"""Takes a picture: of what, its name, and what else playwright takes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder, so that `-m "not browser"` leaves them out."""
    folder = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(folder):
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failed test what its pages showed when it failed."""
    report = yield
    if report.when == "call" and report.failed:
        for name in ("page", "other_page"):
            page = getattr(item, "funcargs", {}).get(name)
            if page is not None and not page.is_closed():
                report.sections.append((f"{name} at {page.url}", page.locator("body").inner_text()[-4000:]))
    return report


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium; with the folder ends playwright's event loop, beside which no test may run its own."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    path = find_chromium()
    if path is None:
        message = "no Chromium: install one, or name it in the variable CHROMIUM"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    arguments = ["--process-per-site", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    arguments += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="session")
def picture() -> Picture:
    """Takes a picture of a page or a part of it, where SCREENSHOTS is set; they go to `tests/artifacts`."""
    if not os.environ.get("SCREENSHOTS"):
        return lambda area, name, **options: None
    ARTIFACTS.mkdir(exist_ok=True)

    def take(area: Page | Locator, name: str, **options: Any) -> None:
        area.screenshot(path=ARTIFACTS / f"{name}.png", **options)

    return take


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The dashboard on a free port: its address, and the folder whose runs it shows."""
    folder = tmp_path_factory.mktemp("served") / "runs"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dynlora", "ui", "--port", str(port), "--runs-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        open(folder.with_name(LOG), "wb") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/_stcore/health", process), "the dashboard")
            folder.rmdir()
            yield f"http://127.0.0.1:{port}", folder
        finally:
            _end(process)


@pytest.fixture
def server(served: tuple[str, Path], runs_dir: Path) -> Iterator[str]:
    """The dashboard's address, its runs in a folder of the test's own."""
    make_run(runs_dir, run_id=OTHER, text="another run")
    address, link = served
    link.symlink_to(runs_dir, target_is_directory=True)
    log = link.with_name(LOG)
    before = log.stat().st_size
    yield address
    _stop_runs(runs_dir)
    link.unlink()
    written = log.read_bytes()[before:].decode("utf-8", "replace")
    sys.stdout.write(written)  # pytest shows it where the test failed
    assert DREW not in written, "a callback of a fragment drew over the first elements of the page"


def answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the dashboard's server ended"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _stop_runs(runs_dir: Path) -> None:
    """Let no run outlive its test."""
    for row in queries.list_runs(runs_dir, None).to_dict("records"):
        if row["status"] in ("queued", "running"):
            launch.stop(runs_dir, row["id"])
            until(lambda run=row["id"]: not launch.is_alive(runs_dir, run), "the end of a run")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and the child it serves with."""
    import psutil

    family = [*psutil.Process(process.pid).children(recursive=False), psutil.Process(process.pid)]
    for member in family:
        if "streamlit" in " ".join(member.cmdline()) or member.pid == process.pid:
            member.terminate()
    psutil.wait_procs(family, timeout=PATIENCE_S)


@pytest.fixture
def window(browser: Browser) -> Iterator[Window]:
    """Opens a window that shares nothing with others: `window(offline=True)`; what it loads it loads for itself."""
    opened: list[BrowserContext] = []

    def open_one(width: int = WIDTH, height: int = HEIGHT, **options: Any) -> BrowserContext:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        context.on("page", wait_while_drawn)
        opened.append(context)
        return context

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture(scope="package")
def tabs(browser: Browser) -> Iterator[Tabs]:
    """The window that tests use one after the other."""
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    context.on("page", wait_while_drawn)
    yield Tabs(context)
    context.close()


@pytest.fixture
def other_page(tabs: Tabs) -> Iterator[Page]:
    """A second page: for a link that is opened again, or for somebody else who looks.

    It is behind `page`, where timers are slow, until it is brought to the front.
    """
    with tabs.lent("other") as page:
        yield page


@pytest.fixture
def page(tabs: Tabs, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that fails the test on a request to another machine."""
    if "other_page" in request.fixturenames:
        request.getfixturevalue("other_page")
    with tabs.lent("page") as page:
        foreign: list[str] = []
        page.on("request", lambda request: foreign.append(request.url) if _is_foreign(request.url) else None)
        yield page
        assert foreign == []


class Tabs:
    """Pages of one window, lent to one test after the other.

    Streamlit and plotly are megabytes of JavaScript: a page in a new window loads and compiles them again, which takes
    longer than what most tests do there.
    """

    def __init__(self, context: BrowserContext) -> None:
        """Open no page yet."""
        self.context = context
        self.pages: dict[str, Page] = {}

    @contextmanager
    def lent(self, name: str) -> Iterator[Page]:
        """Lend a page as if it were new: of the usual size, without storage, cookies and listeners of another test."""
        page = self.pages.get(name)
        if page is None or page.is_closed():
            page = self.pages[name] = self.context.new_page()
        show(page)
        listeners: list[tuple[Any, Any]] = []
        add = cast("Any", page.on)
        page.on = cast("Any", lambda event, handler: listeners.append((event, handler)) or add(event, handler))
        try:
            yield page
        finally:
            page.on = add
            for event, handler in listeners:
                page.remove_listener(event, handler)
            if not page.is_closed():
                if page.url.startswith("http"):
                    page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
                page.goto("about:blank")
            self.context.clear_cookies()


def show(page: Page, width: int = WIDTH, height: int = HEIGHT, scheme: Literal["light", "dark"] = "light") -> None:
    """Bring a page to the front, in a window of a size and in a mode."""
    page.bring_to_front()
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")


def fits(page: Page, scheme: Literal["light", "dark"]) -> None:
    """Check that a page is as wide as its window, follows the mode, and shows no exception."""
    page.wait_for_function(IS_DARK, arg=scheme == "dark")
    settled(page)
    main = page.get_by_test_id("stMain")
    until(lambda: main.evaluate("element => element.scrollWidth <= element.clientWidth"), f"{page.url} in its width")
    assert page.locator("[data-testid=stException]").count() == 0, page.url


def open_run(page: Page) -> None:
    """Follow the link to the run that was started, and press again where the press came while the page was redrawn.

    The card draws itself anew when the run begins; a press between two drawings of a link leads nowhere.
    """
    from playwright.sync_api import TimeoutError as NotInTime

    def leads_there() -> bool:
        with suppress(NotInTime):
            page.get_by_role("link", name="Open run").click(timeout=10_000)
        with suppress(NotInTime):
            page.wait_for_url(re.compile(r"/run\?"), timeout=10_000, wait_until="commit")
        return "/run?" in page.url

    until(leads_there, "the page of the run")


def fill(page: Page, values: Mapping[str, str]) -> None:
    """Enter values into the fields of a form, by their labels, each as soon as the one before has arrived."""
    for label, value in values.items():
        box = page.get_by_label(label, exact=True)
        box.fill(value)
        box.press("Enter")
        settled(page)


def repair_each(page: Page) -> None:
    """Press the button of each fault of the data check, first that of all safe ones, until the check finds none.

    The warnings are folded: what is left may have to be unfolded. Between two drawings there may be no button for a
    moment: the check says when it is done.
    """
    from playwright.sync_api import TimeoutError as NotInTime

    buttons = page.locator('[class*="st-key-repair-"] button')
    warnings = page.locator("summary", has_text="Review")
    clean = page.get_by_text("no faults in").first

    def repaired() -> bool:
        settled(page)
        if clean.is_visible():
            return True
        with suppress(NotInTime):  # the last one may go while it is pressed
            (buttons if buttons.first.is_visible() else warnings).first.click(timeout=10_000)
        return False

    until(repaired, "a data check without faults")


def wait_while_drawn(page: Page) -> None:
    """Let each action on a page wait while the page is drawn, as a person does: a click on what is replaced is lost.

    A page that is drawn for longer, as an answer is while it is written, takes the action meanwhile.
    """
    from playwright.sync_api import TimeoutError as NotInTime

    def wait() -> None:
        with suppress(NotInTime):
            page.wait_for_function(f"() => !document.querySelector('{DRAWING}')", timeout=DRAWN_IN_MS)

    page.add_locator_handler(page.locator(DRAWING), wait, no_wait_after=True)


def settled(page: Page) -> None:
    """Wait until nothing is being drawn: what is typed or picked before may be lost when it is drawn again."""
    from playwright.sync_api import expect

    expect(page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')).to_be_visible()
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)


def click_point(page: Page, point: Locator, address: re.Pattern[str]) -> None:
    """Click the middle of a chart's point, again where a click came while the chart was drawn, until the page is there.

    Plotly listens to the pointer and not to the element.

    Args:
        page: that shows the chart.
        point: of the chart.
        address: what the click puts into the address of the page.
    """
    from playwright.sync_api import Error, expect

    def leads_there() -> bool:
        settled(page)
        if address.search(page.url):
            return True
        try:
            point.scroll_into_view_if_needed(timeout=10_000)
            box = point.bounding_box(timeout=10_000)
        except Error:  # the chart is drawn again meanwhile
            return False
        if box is None:
            return False
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*middle)
        page.mouse.click(*middle)
        with suppress(AssertionError):
            expect(page).to_have_url(address, timeout=10_000)
        return address.search(page.url) is not None

    until(leads_there, f"a click that leads to {address.pattern}")


def _is_foreign(address: str) -> bool:
    return re.match(r"(data|blob):|(http|ws)://127\.0\.0\.1:", address) is None
