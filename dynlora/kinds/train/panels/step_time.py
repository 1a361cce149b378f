"""The time of each step, and the strategy's part of it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary
from dynlora.analysis.run_reading import RunReading
from dynlora.text import percent
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import HEIGHT, titled
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

SECONDS_FROM = 10_000
"""A median step of so many milliseconds is drawn in seconds."""


@dataclass(frozen=True)
class Times:
    """Columns step, step_ms and strategy_ms; and bytes of the optimizer's state, empty in runs of earlier versions."""

    rows: pd.DataFrame
    optimizer_bytes: pd.DataFrame


class StepTime(Panel[Times]):
    """The time of the whole step and of the strategy."""

    id = "time"
    order = 16
    part = "Cost"
    title = "Step time"
    missing = "No step has been timed yet."

    def data(self, view: RunView) -> Times | None:
        """Return the times; None before the first step."""
        run: RunReading = view.result
        times = run_summary.step_times(run.scalars)
        return None if times.empty else Times(times, run.series("optimizer_bytes"))

    def caption(self, data: Times) -> str:
        """Return what a step takes, the strategy's part of it, and the size of the optimizer state."""
        return step_time_caption(data.rows, data.optimizer_bytes)

    def table(self, data: Times) -> pd.DataFrame:
        """Return the times of each step."""
        return data.rows

    def figure(self, data: Times, colours: Palette) -> go.Figure:
        """Draw the times."""
        return step_time(data.rows, colours)


def step_time_caption(times: pd.DataFrame, kept: pd.DataFrame) -> str:
    """Say what a step takes, the strategy's part of it, and the size of the optimizer state.

    Args:
        times: columns step, step_ms, strategy_ms.
        kept: bytes of the optimizer's state, columns step and value; empty in runs of earlier versions.
    """
    words = (
        f"The median step takes {_step_length(times['step_ms'].median())}; the strategy takes "
        f"{percent(run_summary.strategy_share(times))} of "
        "all step time"
    )
    most = 0.0 if kept.empty else float(kept["value"].max())
    return f"{words}; the optimizer state takes {most / 2**20:.2f} MiB." if most > 0 else f"{words}."


def _step_length(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:,.1f} s"


def step_time(times: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the time of each step and the strategy's part of it; columns step, step_ms, strategy_ms."""
    drawn = theme.figure(colours, HEIGHT)
    unit, per = ("s", 1000) if len(times) and times["step_ms"].median() >= SECONDS_FROM else ("ms", 1)
    for column, name, colour in (
        ("step_ms", "Whole step", colours.accent),
        ("strategy_ms", "Strategy", colours.second),
    ):
        drawn.add_scatter(
            x=times["step"],
            y=times[column] / per,
            mode="lines",
            name=name,
            line={"color": colour, "width": 1.5},
            hovertemplate=f"step %{{x}}<br>{name} %{{y:.1f}} {unit}<extra></extra>",
        )
    drawn.update_yaxes(rangemode="tozero", tickformat=",")
    drawn.update_layout(showlegend=True)
    return titled(drawn, f"Time ({unit})")
