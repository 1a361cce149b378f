"""Pictures of what was measured, for the documents: plotly's figures, photographed in a Chromium.

python -m benchmarks.pictures     draws the picture of docs/RESULTS.md again, from the committed figures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from dynlora.viz.kit import theme
from tools.docs import measured

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
    figure.add_hline(
        100 * goal,
        line={"color": colours.warning, "dash": "dash", "width": 1.5},
        annotation={
            "text": f"goal<br>{100 * goal:g} %",
            "font": {"color": colours.warning},
            "x": 1.0,
            "xanchor": "left",
            "yanchor": "middle",
        },
    )
    figure.update_layout(
        barmode="stack", showlegend=True, width=WIDTH, paper_bgcolor=colours.panel, margin={"t": 40, "r": 64}
    )
    figure.update_yaxes(title={"text": "share of a step of dynamic, %"})
    return photograph(figure, IMAGES / "overhead.png")


OTHERS = (("uniform LoRA", "peft-lora"), ("random ranks", ""))
"""What `dynamic` is drawn against, and the name of the method; the random control differs from row to row."""


def results() -> Path | None:
    """Draw the loss of `dynamic` minus uniform LoRA's and random ranks', task by task; see `photograph`."""
    colours = theme.LIGHT
    drawn, labels = theme.figure(colours, HEIGHT), []
    for (name, other), (colour, symbol, _), shift in zip(
        OTHERS, theme.contrasting([name for name, _ in OTHERS]).values(), (-0.14, 0.14), strict=True
    ):
        rows = list(measured.compared(other))
        labels = [f"{label} ({loss['seeds']} seeds)" for label, loss in rows]
        means = [loss["mean"] for _, loss in rows]
        drawn.add_scatter(
            x=means,
            y=[place + shift for place in range(len(rows))],
            mode="markers",
            name=f"minus {name}",
            marker={"color": colour, "symbol": symbol, "size": 9},
            error_x={
                "type": "data",
                "symmetric": False,
                "color": colour,
                "thickness": 1.6,
                "width": 4,
                "array": [loss["wide_high"] - mean for (_, loss), mean in zip(rows, means, strict=True)],
                "arrayminus": [mean - loss["wide_low"] for (_, loss), mean in zip(rows, means, strict=True)],
            },
        )
    drawn.add_vline(0, line={"color": colours.muted, "width": 1})
    drawn.update_layout(showlegend=True, width=WIDTH, paper_bgcolor=colours.panel, margin={"t": 44, "l": 320, "r": 24})
    drawn.update_xaxes(title={"text": "held-out loss of dynamic minus the other, nats (left is better), 95 % CI"})
    drawn.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.5, -0.5])
    return photograph(drawn, IMAGES / "results.png")


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


if __name__ == "__main__":
    print("drawn:", results())
