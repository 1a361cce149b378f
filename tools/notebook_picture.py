"""The pictures of the guide on notebooks: cells of the example notebook with what they show, in a real browser.

python -m tools.notebook_picture [--out docs/images]

Executes `examples/notebook.ipynb` on the sample runs and draws some of its cells as notebooks do: source above, output
below. Writes `notebook-comparison.png` and `notebook-run.png`. Needs the extra `test`; pillow comes with streamlit.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
PICTURES = {"notebook-comparison": ("compare", "differences"), "notebook-run": ("run", "play")}
"""Name of each picture, and the ids of the cells on it."""

WIDTH, HEIGHT, COLOURS = 900, 1400, 128
STYLE = """
body { margin: 0; padding: 14px 18px; font: 14px/1.45 system-ui, sans-serif; background: #fff; color: #1f2430 }
pre { margin: 6px 0; font: 13px/1.5 ui-monospace, monospace }
pre.source { background: #f5f6f7; border: 1px solid #e1e3e6; border-radius: 4px; padding: 7px 11px }
"""


def executed() -> dict[str, Any]:
    """Return the cells of the example notebook by id, executed."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return {cell["id"]: cell for cell in notebook.cells}


def page(cells: Sequence[Any]) -> str:
    """Return cells with their outputs as one HTML page that needs no network."""
    parts = [f'<pre class="source">{escape(cell.source)}</pre>{"".join(map(_shown, cell.outputs))}' for cell in cells]
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8")
    return f'<!DOCTYPE html><meta charset="utf-8"><style>{STYLE}</style><script>{plotly}</script>{"".join(parts)}'


def _shown(output: Any) -> str:
    """Return one output: a figure, HTML or text."""
    data = output.get("data", {})
    if (figure := data.get("application/vnd.plotly.v1+json")) is not None:
        values = json.dumps(figure).replace("<", "\\u003c")
        return (
            '<div class="figure"></div><script>{ const figure = '
            f"{values}; const place = document.currentScript.previousElementSibling;"
            "Plotly.newPlot(place, figure.data, figure.layout, { displayModeBar: false, responsive: true }) }</script>"
        )
    return data.get("text/html") or f"<pre>{escape(output.get('text', ''))}</pre>"


def main() -> int:
    """Draw both pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    out = parser.parse_args().out
    from playwright.sync_api import sync_playwright

    from tests.browser.chromium import find_chromium
    from tools.picture import CHROMIUM

    cells = executed()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM))
        window = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name, ids in PICTURES.items():
            window.set_content(page([cells[one] for one in ids]))
            window.wait_for_function(
                "[...document.querySelectorAll('.figure')].every(one => one.querySelector('.main-svg'))"
            )
            if frame := window.query_selector("iframe"):
                (frame.content_frame() or window.main_frame).wait_for_selector(".replay rect.bar", state="attached")
            window.wait_for_timeout(1000)
            size = _write(window.locator("body").screenshot(), out / f"{name}.png")
            print(f"{out / name}.png: {size:,} bytes")
        browser.close()
    return 0


def _write(picture: bytes, path: Path) -> int:
    """Write a picture in few colours, which is a third of its size; returns that in bytes."""
    from PIL import Image

    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS).save(path, optimize=True)
    return path.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
