"""The chosen signal of one module over the steps."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import capacity_frames
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.text import one_line, plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class ModuleSeries:
    """A signal of the module that is followed: columns step and value.

    Attributes:
        run: what is chosen of the run.
        module: its name.
        unit: of the signal.
        series: the values.
    """

    run: RunReading
    module: str
    unit: str
    series: pd.DataFrame


class ModuleOverSteps(CapacityPanel[ModuleSeries]):
    """One module's row of the map as a line."""

    id = "module"
    order = 3
    title = "Module over time"
    missing = "Choose a module to see it over the steps."
    is_wide = True
    is_live = True

    def applies(self, view: RunView) -> bool:
        """Say whether a module is followed."""
        return super().applies(view) and view.result.module is not None

    def heading(self, view: RunView) -> str:
        """Return module and signal."""
        run: RunReading = view.result
        return f"{run.short[run.module or '']}: {one_line(run.about.word, 60)} over time"

    def data(self, view: RunView) -> ModuleSeries | None:
        """Return the series of the module that is followed; None for no module."""
        run: RunReading = view.result
        if run.module is None:
            return None
        heat = run.heat(run.signal)
        series = capacity_frames.one_module(heat.frame, run.modules, run.module)
        return ModuleSeries(run, run.module, heat.unit, series)

    def caption(self, data: ModuleSeries) -> str:
        """Return the full name of the module."""
        return f"{data.run.short[data.module]} is the module {data.module}."

    def table(self, data: ModuleSeries) -> pd.DataFrame:
        """Return step and value."""
        return data.series

    def figure(self, data: ModuleSeries, colours: Palette) -> go.Figure:
        """Draw the line."""
        return module_lines(data.series, data.run.about.word, data.unit, data.run.step, colours)


def module_lines(series: pd.DataFrame, title: str, unit: str, step: int | None, colours: Palette) -> go.Figure:
    """Draw one module's signal over the steps; `series` holds step and value."""
    drawn = theme.figure(colours, 190)
    drawn.add_scatter(
        x=series["step"],
        y=series["value"],
        mode="lines",
        line={"color": colours.accent, "width": 1.8, "shape": "hv"},
        hovertemplate=f"step %{{x}}<br>{plotly_text(title)} %{{y:.4~g}}<extra></extra>",
    )
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(
        title_text=plotly_text(sentence_case(f"{title} ({unit})" if unit else title)), rangemode="tozero"
    )
    if step is not None:
        drawn.add_vline(x=step, line={"color": colours.text, "width": 1.2})
    return drawn
