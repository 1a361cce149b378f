"""The moving picture and the still of the README: the Capacity replay of a sample run, recorded in a real browser.

python -m tools.picture [--run ID] [--frames 30] [--out docs/images]

Serves the dashboard on the sample runs, opens the Capacity page in headless Chromium, and moves the replay's slider
through the run. Writes `replay.webp` (at most 3 MB) and `capacity.png`. Needs the extra `test`; pillow comes with
streamlit.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dynlora.analysis.planted_ranks import needed_modules
from dynlora.server.serve import sample_runs_dir, server_command, server_environment
from dynlora.store import queries

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH, HEIGHT, START_S = 1180, 900, 120
FRAME_MS, LAST_MS, DRAWN_MS, MOST_BYTES = 180, 2500, 600, 3_000_000
CHROMIUM = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def sample() -> str:
    """Return the id of the sample run of `dynamic` whose need for rank is known."""
    summaries = [queries.run_summary(folder) for folder in sample_runs_dir().iterdir() if (folder / "run.db").is_file()]
    return next(run.id for run in summaries if run.strategy == "dynamic" and needed_modules(run))


@contextmanager
def dashboard() -> Iterator[str]:
    """Serve the dashboard on an empty runs folder, which shows the samples, and yield its address."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as runs:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment, _ = server_environment(Path(runs), "127.0.0.1", None)
        path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(server_command("127.0.0.1", port), env={**environment, "PYTHONPATH": path})
        try:
            _wait(f"http://127.0.0.1:{port}/_stcore/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _wait(address: str) -> None:
    """Return when a server answers.

    Raises:
        SystemExit: it does not within `START_S` seconds.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    sys.exit(f"{address} did not answer within {START_S} s")


def record(page: Page, address: str, frames: int) -> tuple[bytes, list[bytes]]:
    """Return the page as it opens and the replay's card at so many steps, as PNG."""
    page.goto(address)
    player = page.locator(".replay")
    slider = player.locator("input[type=range]")
    slider.wait_for(timeout=START_S * 1000)
    page.wait_for_timeout(3000)
    last = int(slider.get_attribute("max") or 0)
    still = page.screenshot()
    page.set_viewport_size({"width": WIDTH, "height": 2 * HEIGHT})
    both = (
        page.locator('[data-testid="stHorizontalBlock"]').filter(has=player).filter(has=page.locator(".js-plotly-plot"))
    )
    pictures = []
    for place in sorted({round(last * k / max(1, frames - 1)) for k in range(frames)}):
        slider.evaluate("(slider, value) => { slider.value = value; slider.oninput(); }", str(place))
        _follow(page, player.get_attribute("data-step") or "")
        pictures.append(both.first.screenshot())
    return still, pictures


def _follow(page: Page, step: str) -> None:
    """Return when the whole page shows a step: its map's line follows when the slider rests."""
    page.wait_for_function("step => new URLSearchParams(location.search).get('step') === step", arg=step)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_timeout(DRAWN_MS)


def animation(pictures: list[bytes], path: Path) -> int:
    """Write the pictures as one WebP that repeats and rests on the last; returns its size in bytes."""
    from PIL import Image

    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    size = images[-1].size
    images = [image if image.size == size else image.resize(size) for image in images]
    durations = [FRAME_MS] * (len(images) - 1) + [LAST_MS]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, quality=80, method=6)
    return path.stat().st_size


def main() -> int:
    """Record both pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default=None, help="id of a sample run (default: dynamic on planted ranks)")
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from tests.browser.chromium import find_chromium

    with dashboard() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        still, pictures = record(page, f"{address}/capacity?run={arguments.run or sample()}", arguments.frames)
        browser.close()
    (arguments.out / "capacity.png").write_bytes(still)
    size = animation(pictures, arguments.out / "replay.webp")
    print(f"{arguments.out / 'replay.webp'}: {len(pictures)} frames, {size:,} bytes")
    return int(size > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
