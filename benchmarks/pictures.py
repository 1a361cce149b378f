"""Pictures of what was measured, for the documents: plotly's figures, photographed in a Chromium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from dynlora.viz.kit import theme

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH, HEIGHT = 960, 380
NAMES = {"scoring": "scoring", "allocating": "allocating", "gating": "gates", "gate product": "gates, in the product"}


def overhead(rows: Sequence[Mapping[str, Any]], goal: float) -> Path | None:
    """Draw the shares of a step that the dynamics take over the sizes of a model; see `photograph`."""
    colours = theme.LIGHT
    figure = theme.figure(colours, HEIGHT)
    keys = {"layers": "layers", "rank": "rank", "hidden size": "hidden"}
    places = [[row["varied"] for row in rows], [str(row[keys[row["varied"]]]) for row in rows]]
    for (part, name), colour in zip(NAMES.items(), theme.CATEGORICAL, strict=False):
        shares = [100 * row["shares"][part] for row in rows]
        figure.add_trace(go.Bar(x=places, y=shares, name=name, marker={"color": colour}))
    figure.add_hline(100 * goal, line={"color": colours.warning, "dash": "dash", "width": 1.5},
                     annotation={"text": f"goal<br>{100 * goal:g} %", "font": {"color": colours.warning},
                                 "x": 1.0, "xanchor": "left", "yanchor": "middle"})  # fmt: skip
    figure.update_layout(barmode="stack", showlegend=True, width=WIDTH, paper_bgcolor=colours.panel,
                         margin={"t": 40, "r": 64})  # fmt: skip
    figure.update_yaxes(title={"text": "share of a step of dynamic, %"})
    return photograph(figure, IMAGES / "overhead.png")


def photograph(figure: go.Figure, path: Path) -> Path | None:
    """Write a figure as PNG; None where there is no Playwright or no Chromium."""
    if find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    from tests.browser.chromium import find_chromium

    browser_path = find_chromium()
    if browser_path is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2).new_page()
        page.set_content(figure.to_html(include_plotlyjs=True, config={"displayModeBar": False}))
        page.locator(".js-plotly-plot .main-svg").first.wait_for()
        page.locator(".js-plotly-plot").first.screenshot(path=path)
        browser.close()
    return path
