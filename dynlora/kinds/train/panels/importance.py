"""Whether rank followed importance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import capacity_frames
from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.text import one_line, plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class ModuleShares:
    """The modules at the chosen step, as `capacity_frames.module_state` returns them, and the one that is followed."""

    state: pd.DataFrame
    module: str | None


class RankAndImportance(CapacityPanel[ModuleShares]):
    """The share of rank against the share of importance, a point for each module."""

    id = "importance_vs_rank"
    card = "scatter"
    order = 5
    title = "Rank and importance"
    missing = "No importance was recorded up to this step."
    chooses_module = True

    def heading(self, view: RunView) -> str:
        """Return the title with the chosen step."""
        return f"Rank and importance at step {view.result.step}"

    def data(self, view: RunView) -> ModuleShares | None:
        """Return the modules at the chosen step; None where no importance was recorded."""
        run: RunReading = view.result
        return None if run.values("importance", run.step) is None else ModuleShares(run.state, run.module)

    def caption(self, data: ModuleShares) -> str:
        """Return how rank and importance agree, and which modules are farthest from it."""
        return followed(data.state)

    def table(self, data: ModuleShares) -> pd.DataFrame:
        """Return rank and importance of each module."""
        return capacity_frames.state_table(data.state)

    def figure(self, data: ModuleShares, colours: Palette) -> go.Figure:
        """Draw the points."""
        return importance_scatter(data.state, data.module, colours)


def followed(state: pd.DataFrame) -> str:
    """Say whether rank followed importance, and which modules are farthest from the diagonal."""
    rows = state.dropna(subset=["importance_share", "rank_share"])
    if rows.empty or not rows["importance_share"].sum():
        return "No importance was recorded up to this step."
    gap = rows["importance_share"] - rows["rank_share"]
    more, idle = rows.loc[at_highest(gap), "short"], rows.loc[at_lowest(gap), "short"]
    first = capacity_frames.agreement(rows) or "All ranks are equal, so there is no correlation"
    return f"{first}. Most importance for its rank: {one_line(more, 40)}. Least: {one_line(idle, 40)}."


def importance_scatter(state: pd.DataFrame, module: str | None, colours: Palette) -> go.Figure:
    """Draw the share of rank against the share of importance, a point per module, the diagonal dashed.

    Args:
        state: as `capacity.module_state` returns it.
        module: name of the module to mark.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 340)
    high = float(np.nanmax([1.0, state["importance_share"].max(), state["rank_share"].max()])) * 1.06
    drawn.add_shape(
        type="line",
        x0=0,
        y0=0,
        x1=high,
        y1=high,
        line={"color": colours.muted, "width": 1, "dash": "dash"},
        layer="below",
    )
    style = theme.kind_styles(state["label"].tolist())
    for label, part in state.groupby("label", sort=False):
        colour, symbol, _ = style[str(label)]
        drawn.add_scatter(
            x=part["importance_share"],
            y=part["rank_share"],
            mode="markers",
            name=plotly_text(label, 24),
            marker={
                "color": colour,
                "symbol": symbol,
                "size": [13 if name == module else 9 for name in part["name"]],
                "line": {"width": [2 if name == module else 0.6 for name in part["name"]], "color": colours.panel},
            },
            customdata=[
                [plotly_text(short), plotly_text(name), int(rank), int(position)]
                for short, name, rank, position in zip(
                    part["short"], part["name"], part["rank"], part["position"], strict=True
                )
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>%{x:.2f} % of importance"
            "<br>%{y:.2f} % of rank (%{customdata[2]} components)<extra></extra>",
        )
    drawn.update_xaxes(title_text="Importance (% of total)", rangemode="tozero")
    drawn.update_yaxes(title_text="Rank (% of total)", rangemode="tozero")
    drawn.update_layout(showlegend=True)
    return drawn
