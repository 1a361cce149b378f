"""What a person waits for, in a real browser: start, check, answers, pages.

python -m benchmarks.waits [--quick] [--only launch,buttons,answers,pages]

The dashboard is served as `dynlora ui` serves it. Model and data are in the cache before the clock starts. Every time
is from the click, or the request, until what it brings is on screen. Runs are real: minilm on sentiment4 at defaults,
60 steps, and smollm2-135m on arithmetic for the chat. 23 runs to compare are those that come with dynlora.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from benchmarks import results
from benchmarks.screen import seen, server
from dynlora import assets
from dynlora.analysis import run_summary
from dynlora.config import parse_config
from dynlora.jobs.environment import WARM_VARIABLE
from dynlora.jobs.launch import catalog
from dynlora.server.serve import sample_runs_dir
from dynlora.store import queries
from dynlora.training import run as training_run
from tests.browser.chromium import find_chromium

STEPS = 60
WAIT_MS = 60_000
TITLES = "[data-testid=stMain] h1, [data-testid=stMain] h2, [data-testid=stMain] h3"
QUIET_S = 1.5
"""Seconds without work of its processes after which a server counts as ready: what is kept warm has imported."""

VIEWS = ("run", "capacity", "inputs", "playground", "shrink")
"""Pages of a run."""

GOALS: Mapping[str, float] = {
    "start until queued": 1.0,
    "start until queued, nothing warm": 1.0,
    "start until the first step": 8.0,
    "check, warm": 2.0,
    "check, cold": 8.0,
    "experiment until Compare": 3.0,
    "share until its first picture": 3.0,
    "report": 3.0,
    "compare of 23 runs": 3.0,
    "first answer": 2.0,
    "first word of a chat": 2.0,
    "shift": 8.0,
    "one text word by word": 5.0,
    **{f"page {name}": 1.0 for name in ("home", "runs", "tour", "methods")},
    **{f"page {name}": 2.0 for name in (*VIEWS, "compare", "launch", "decode", "recycle")},
    **{f"page {name}, while a run trains": 4.0 for name in VIEWS},
    "evaluation's share": 0.2,
}
"""Goals on a quiet machine: seconds, but for the share."""

Page = Any
"""A page of playwright."""


@contextmanager
def browser_page() -> Iterator[Page]:
    """Yield a page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    if path is None:
        raise SystemExit("no Chromium: install one, or name it in the variable CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
        page.set_default_timeout(WAIT_MS)
        yield page
        browser.close()


@contextmanager
def served(runs_dir: Path, *, warm: bool) -> Iterator[tuple[str, psutil.Process]]:
    """Serve the dashboard, with processes kept warm or without."""
    with mock.patch.dict(os.environ, {WARM_VARIABLE: "1" if warm else "0"}), server(runs_dir, door=True) as started:
        yield started


def settled(page: Page) -> None:
    """Wait until the page's script has ended."""
    seen(page.locator('[data-testid=stApp][data-test-script-state="notRunning"]'))


def rest(process: psutil.Process) -> None:
    """Wait until a server and its children do nothing: nobody presses a button the moment a page has opened."""
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S:
        before = _work(process)
        time.sleep(0.25)
        if _work(process) - before > 0.05:
            quiet_since = time.monotonic()


def _work(process: psutil.Process) -> float:
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        try:
            total += sum(member.cpu_times()[:2])
        except psutil.Error:
            continue
    return total


def seconds(act: Callable[[], object], until: Callable[[], object]) -> float:
    """Return the seconds from an act until what it brings is there."""
    start = time.perf_counter()
    act()
    until()
    return time.perf_counter() - start


def launch_form(page: Page, address: str, steps: int) -> None:
    """Open a form of the Launch page and enter the number of steps."""
    page.goto(address)
    box = page.get_by_label("Steps", exact=True)
    box.fill(str(steps))
    box.press("Enter")
    command = page.locator('[class*="st-key-card-command"] code')
    command.filter(has_text=re.compile(rf"steps[=:] ?{steps}\b")).first.wait_for()
    settled(page)


def check(page: Page) -> float:
    """Press Check and return the seconds until its result is drawn."""
    heading = page.get_by_role("heading", name="Tokenized examples")
    return seconds(page.get_by_role("button", name="Check", exact=True).click, lambda: seen(heading))


def start(page: Page, steps: int) -> tuple[float, float]:
    """Press Start, open the run, and return the seconds until it is queued and until its first step is on screen."""
    begun = time.perf_counter()
    page.get_by_role("button", name="Start", exact=True).click()
    seen(page.get_by_text(re.compile(r"Started as \S+\.")).first)
    queued = time.perf_counter() - begun
    page.get_by_role("link", name="Open run").first.click()
    seen(page.get_by_text(re.compile(rf"step [1-9][\d,]* of {steps}")).first)
    return queued, time.perf_counter() - begun


def launch_waits(runs_dir: Path, steps: int, *, warm: bool) -> dict[str, float]:
    """Return the waits of the Launch page; the run is left to end by itself."""
    with served(runs_dir, warm=warm) as (address, process), browser_page() as page:
        launch_form(page, f"{address}/launch", steps)
        rest(process)
        checked = check(page)
        rest(process)
        queued, first = start(page, steps)
        page.get_by_text("finished").first.wait_for()
    names = ("check, warm", "start until queued", "start until the first step")
    cold = ("check, cold", "start until queued, nothing warm", "start until the first step, nothing warm")
    return dict(zip(names if warm else cold, (checked, queued, first), strict=True))


def evaluation_share(folder: Path) -> float:
    """Return which part of a run, from its first evaluation to its last, was spent on evaluating and checkpoints."""
    logs, events = queries.logs_frame(folder), queries.events_frame(folder, ("evaluate",))
    began = float(logs[logs["message"].str.startswith("First evaluation")]["time"].iloc[0])
    whole = float(events["time"].iloc[-1]) - began
    steps_s = float(run_summary.series(queries.scalars_frame(folder), "step_ms", "train")["value"].sum()) / 1000
    return (whole - steps_s) / whole


def answer_waits(runs_dir: Path, run_id: str) -> dict[str, float]:
    """Return the seconds of first answers: each from a server of its own, whose page has been open for a while."""
    times = {}
    with served(runs_dir, warm=True) as (address, process), browser_page() as page:
        opened(page, process, f"{address}/playground?run={run_id}")
        page.get_by_label("Text", exact=True).fill("the food was great but the service was slow")
        answer = page.get_by_text(re.compile("Adapter predicts"))
        times["first answer"] = seconds(page.get_by_role("button", name="Predict").click, lambda: seen(answer.first))
    with served(runs_dir, warm=True) as (address, process), browser_page() as page:
        opened(page, process, f"{address}/inputs?run={run_id}&kind=negated&strength=1.0")
        card = page.locator('[class*="st-key-card-shift"]')
        pressed = card.get_by_text("Evaluate perturbed text").click
        table = card.get_by_test_id("stDataFrame").first
        times["shift"] = seconds(pressed, lambda: seen(table))
    with served(runs_dir, warm=True) as (address, process), browser_page() as page:
        opened(page, process, f"{address}/inputs?run={run_id}")
        card, link = page.locator('[class*="st-key-card-token-view"]'), f"{address}/inputs?run={run_id}&example=1"
        words = card.get_by_title(re.compile("log-odds")).first
        times["one text word by word"] = seconds(lambda: page.goto(link), lambda: seen(words))
    return times


def button_waits(runs_dir: Path, run_id: str, steps: int) -> dict[str, float]:
    """Return the seconds until what a button brings: pictures, a report, Compare of an experiment, a chat."""
    times = {}
    samples = queries.list_runs(sample_runs_dir())
    compared = ",".join(samples["id"][:23])
    with served(runs_dir, warm=True) as (address, process), browser_page() as page:
        opened(page, process, f"{address}/run?run={run_id}")
        share, picture = page.get_by_role("button", name="Share", exact=True), page.locator(".dl-shared").first
        times["share until its first picture"] = seconds(share.click, lambda: seen(picture))
        settled(page)
        rest(process)
        times["report"] = seconds(lambda: downloaded(page, "Report"), lambda: None)
        times["compare of 23 runs"] = seconds(
            lambda: page.goto(f"{address}/compare?runs={compared}"), lambda: drawn(page)
        )
        launch_form(page, f"{address}/launch?mode=experiment&methods=lora,dynamic", steps)
        rest(process)
        start_all = page.get_by_role("button", name=re.compile(r"Start \d+ runs"))
        times["experiment until Compare"] = seconds(start_all.click, lambda: page.wait_for_url(re.compile("/compare")))
        while set(queries.list_runs(runs_dir)["status"]) & set(run_summary.ACTIVE):
            time.sleep(1)
    return times


def downloaded(page: Page, button: str) -> None:
    """Press a button and wait until what it downloads has begun to arrive."""
    with page.expect_download():
        page.get_by_role("button", name=button, exact=True).click()


def chat_wait(runs_dir: Path) -> float:
    """Return the seconds from Enter until the first word of a language model that was just trained."""
    values = {"model": {"name": "smollm2-135m"}, "data": {"name": "arithmetic", "max_eval": 16}, "train": {"steps": 4}}
    run_id = training_run.train(parse_config(values), runs_dir, progress=False).folder.name
    with served(runs_dir, warm=True) as (address, process), browser_page() as page:
        opened(page, process, f"{address}/playground?run={run_id}&mode=chat")
        field = page.get_by_label("Message", exact=True)
        field.fill("What is 12 plus 30?")
        word = page.get_by_text(re.compile(r"^Adapter · [1-9]\d* token")).first
        return seconds(lambda: field.press("Enter"), lambda: seen(word))


def page_waits(runs_dir: Path, run_ids: list[str], repeats: int) -> dict[str, float]:
    """Return the median seconds until a page that was drawn before is drawn again, by a new request.

    The views of a run are drawn of a finished one, and of one that trains meanwhile.
    """
    addresses = {
        "home": "",
        **{name: name for name in ("runs", "tour", "methods", "launch", "decode", "recycle")},
        "compare": f"compare?runs={','.join(run_ids)}",
        **{view: f"{view}?run={run_ids[0]}" for view in VIEWS},
    }
    page_times = {}
    with served(runs_dir, warm=True) as (address, process), browser_page() as page:
        for name, place in addresses.items():
            page_times[f"page {name}"] = drawn_again(page, process, f"{address}/{place}", repeats)
        with training(runs_dir) as run_id:
            for view in VIEWS:
                wait = drawn_again(page, process, f"{address}/{view}?run={run_id}", repeats, rested=False)
                page_times[f"page {view}, while a run trains"] = wait
    return page_times


def drawn_again(page: Page, process: psutil.Process, address: str, repeats: int, *, rested: bool = True) -> float:
    """Return the median seconds until a page is drawn that was drawn before."""
    page.goto(address)
    drawn(page)
    if rested:
        rest(process)
    return statistics.median(seconds(lambda: page.goto(address), lambda: drawn(page)) for _ in range(repeats))


def drawn(page: Page) -> None:
    """Wait until a page has its title and its script has ended."""
    seen(page.locator(TITLES).first)
    settled(page)


def opened(page: Page, process: psutil.Process, address: str) -> None:
    """Open a page and wait until the server has nothing to do any more."""
    page.goto(address)
    drawn(page)
    rest(process)


@contextmanager
def training(runs_dir: Path) -> Iterator[str]:
    """Yield the id of a run that trains until the block ends."""
    before = set(queries.list_runs(runs_dir)["id"])
    command = [sys.executable, "-m", "dynlora", "train", "--runs-dir", str(runs_dir), "--set", "train.steps=5000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not (new := set(queries.list_runs(runs_dir)["id"]) - before) or not _has_stepped(runs_dir, new):
                if process.poll() is not None:
                    raise SystemExit("the run beside the pages ended before its first step")
                time.sleep(0.5)
            yield next(iter(new))
        finally:
            process.terminate()


def _has_stepped(runs_dir: Path, run_ids: set[str]) -> bool:
    return not run_summary.series(queries.scalars_frame(runs_dir / next(iter(run_ids))), "step_ms", "train").empty


def show(times: Mapping[str, float]) -> None:
    """Print what was measured beside its goal."""
    print("\nWaits")
    for name, value in times.items():
        goal = GOALS.get(name)
        verdict = "" if goal is None else f"   goal {goal:5.2f}  {'met' if value <= goal else 'MISSED'}"
        print(f"  {name:42} {value:8.2f}{verdict}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps and repeats: does it work, nothing more")
    parser.add_argument("--only", default="launch,buttons,answers,pages", help="parts to measure, separated by commas")
    arguments = parser.parse_args()
    parts, quick = set(arguments.only.split(",")), arguments.quick
    steps, repeats = (8, 2) if quick else (STEPS, 5)
    figures: dict[str, Any] = {"load_before": os.getloadavg(), "goals": GOALS, "steps": steps}
    assets.resolve_model("minilm")
    assets.resolve_data("sentiment4")
    catalog()
    with tempfile.TemporaryDirectory() as place:
        runs_dir = Path(place) / "runs"
        runs_dir.mkdir()
        times = launch_waits(runs_dir, steps, warm=True) | launch_waits(runs_dir, steps, warm=False)
        run_ids = queries.list_runs(runs_dir)["id"].tolist()
        times["evaluation's share"] = evaluation_share(runs_dir / run_ids[-1])
        if "buttons" in parts:
            times |= button_waits(runs_dir, run_ids[-1], min(steps, 8))
            times["first word of a chat"] = chat_wait(runs_dir)
        if "answers" in parts:
            times |= answer_waits(runs_dir, run_ids[-1])
        if "pages" in parts:
            times |= page_waits(runs_dir, run_ids, repeats)
    figures |= {"waits": times, "load_after": os.getloadavg()}
    show(times)
    print("\nload of the machine before and after:", json.dumps([figures["load_before"], figures["load_after"]]))
    print("written:", results.write("waits-quick" if quick else "waits", figures, "benchmarks.waits"))


if __name__ == "__main__":
    main()
