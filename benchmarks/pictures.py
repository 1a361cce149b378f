"""Pictures of what was measured, for the documents: plotly's figures, photographed in a Chromium.

python -m benchmarks.pictures     draws those of docs/RESULTS.md and docs/research/scale.md again, from committed runs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from benchmarks.kept_runs import KeptRuns
from dynlora.viz.kit import theme
from tools.docs import measured

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH, HEIGHT = 960, 380
COLOURS = 128
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


ALPHA = {
    "uniform LoRA": (
        "lora, scaling 0.25",
        "lora, scaling 0.5",
        "lora, scaling 1",
        "lora",
        "lora, scale",
        "lora, scale at 10",
        "lora, fast head",
    ),
    "dynamic": (
        None,
        "dynamic, scaling 0.5",
        "dynamic, scaling 1",
        "dynamic",
        "dynamic, scale",
        "dynamic, scale at 10",
        "dynamic, scale, fast head",
    ),
}
"""Sides of the first picture of the scale, in the order of `ALPHA_PLACES`; None where nothing ran."""

ALPHA_PLACES = ("0.25", "0.5", "1", "2", "2, a scale", "2, a scale at<br>10 times the rate", "2, a fast head")

SCALES = {
    "stays at 1": "lora, scale at 0",
    "0.1 times the rate": "lora, scale at 0.1",
    "the rate of A": "lora, scale",
    "10 times the rate": "lora, scale at 10",
    "what it learned,<br>frozen": "lora, learned scale frozen",
    "the same, dealt out<br>to other modules": "lora, shuffled scale frozen",
    "its mean,<br>frozen": "lora, mean scale frozen",
}
"""Labels and sides of the second picture of the scale."""

NORMS = {
    "uniform LoRA": "lora",
    "a learned scale": "lora, scale",
    "a scale at 10 times the rate": "lora, scale at 10",
    "uniform LoRA, alpha / r = 0.25": "lora, scaling 0.25",
}
"""Labels and sides of the third picture of the scale."""

MOST_LOSS = 0.7
"""Upper end of the axis of losses, nats; a run above it ended at chance."""


def clinc150_runs(side: str) -> list[Mapping[str, Any]]:
    """Return the committed runs of a side on CLINC150 at rank 1, those of seeds that chose no rate."""
    runs = KeptRuns.of("tuned").finished(f"clinc150-minilm-r1-300-1500-{side.replace(' ', '_')}")
    return [run for run in runs if run["job"]["method"] == side and run["job"]["seed"] < 1000]


def scale_pictures() -> list[Path | None]:
    """Draw the three pictures of docs/research/scale.md: alpha, the rate of the scale, sizes of updates."""
    figures = {"scale-alpha": alpha_figure(), "scale-rate": rate_figure(), "scale-norms": norms_figure()}
    return [photograph(figure, IMAGES / f"{name}.png") for name, figure in figures.items()]


def alpha_figure() -> go.Figure:
    """Return held-out losses over `alpha / r`, and with a learned scale in its place; a point for each seed."""
    figure = _losses("alpha / r")
    for (name, sides), (colour, symbol, _) in zip(ALPHA.items(), theme.contrasting(list(ALPHA)).values(), strict=True):
        losses = {
            place: [np.mean(run["loss"]) / 1000 for run in clinc150_runs(side)]
            for place, side in zip(ALPHA_PLACES, sides, strict=True)
            if side is not None
        }
        _add_points(figure, name, losses, colour, symbol)
        means = [float(np.mean(losses[place])) if place in losses else None for place in ALPHA_PLACES]
        for part in (slice(0, 4), slice(4, 6)):  # the scale's places are no values of alpha
            figure.add_scatter(
                x=ALPHA_PLACES[part], y=means[part], mode="lines", line={"color": colour, "width": 2}, showlegend=False
            )
    figure.update_layout(showlegend=True)
    return figure


def rate_figure() -> go.Figure:
    """Return held-out losses of uniform LoRA with a learned scale, by the rate of the scale and by what is frozen."""
    figure = _losses("learning rate of the scale")
    losses = {label: [np.mean(run["loss"]) / 1000 for run in clinc150_runs(side)] for label, side in SCALES.items()}
    _add_points(figure, "uniform LoRA with a scale", losses, theme.CATEGORICAL[0], "circle")
    for label, of in losses.items():
        for loss in of:
            if loss > MOST_LOSS:
                figure.add_annotation(x=label, y=MOST_LOSS - 0.02, text=f"{loss:.2f}, chance ↑", showarrow=False)
    return figure


def norms_figure() -> go.Figure:
    """Return the Frobenius norm of the update of each module, the mean over seeds, with a learned scale and without."""
    colours = theme.LIGHT
    figure = theme.figure(colours, HEIGHT)
    for (name, side), (colour, symbol, dash) in zip(
        NORMS.items(), theme.contrasting(list(NORMS)).values(), strict=True
    ):
        norms = np.mean([run["metrics"]["update_norms"] for run in clinc150_runs(side)], axis=0)
        figure.add_scatter(
            x=list(range(1, len(norms) + 1)),
            y=norms,
            name=f"{name}, mean {norms.mean():.1f}",
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 1.5},
            marker={"symbol": symbol, "size": 7},
        )
    figure.update_layout(showlegend=True, width=WIDTH, paper_bgcolor=colours.panel, margin={"t": 44, "r": 24})
    figure.update_xaxes(title={"text": "module, from the first layer to the last"})
    figure.update_yaxes(title={"text": "Frobenius norm of the update"}, rangemode="tozero")
    return figure


def _losses(title: str) -> go.Figure:
    """Return an empty figure of held-out losses over places with names."""
    figure = theme.figure(theme.LIGHT, HEIGHT)
    figure.update_layout(width=WIDTH, paper_bgcolor=theme.LIGHT.panel, margin={"t": 44, "r": 24, "b": 64})
    figure.update_xaxes(title={"text": title}, type="category")
    figure.update_yaxes(title={"text": "held-out loss, nats"}, range=[0.3, MOST_LOSS])
    return figure


def _add_points(figure: go.Figure, name: str, losses: Mapping[str, Sequence[float]], colour: str, symbol: str) -> None:
    """Add a point for each run."""
    figure.add_scatter(
        x=[place for place, of in losses.items() for _ in of],
        y=[loss for of in losses.values() for loss in of],
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.75},
    )


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
    Image.open(path).quantize(COLOURS).save(path, optimize=True)  # a third of the size
    return path


if __name__ == "__main__":
    print("drawn:", results(), *scale_pictures())
