"""Which modules gave rank to which, and whether rank followed importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import capacity_frames
from dynlora.analysis.capacity_frames import FREE, OTHERS, RELEASED, Balance
from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.text import number, one_line, plotly_text, plural
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import modules_of_bands
from dynlora.viz.kit.panel import Choice, RunView
from dynlora.viz.kit.theme import Palette

NO_MODULES: Mapping[str, int] = MappingProxyType({})
"""The ends of a flow are no modules."""

BY = Choice("flow", "Group transfers", capacity_frames.BY, "kind", is_row=True)
"""What the ends stand for."""


@dataclass(frozen=True)
class Transfers:
    """What moved in the chosen steps.

    Attributes:
        run: what is chosen of the run.
        traced: as `capacity_frames.trace` returns it.
        balance: the check of both sides.
        numbers: what moved between the ends, as `capacity_frames.flows` returns it.
        ends: in their order.
    """

    run: RunReading
    traced: pd.DataFrame
    balance: Balance
    numbers: pd.DataFrame
    ends: Sequence[str]


class RankTransfers(CapacityPanel[Transfers]):
    """Who gave rank to whom in the chosen steps, in parameters."""

    id = "flow"
    order = 4
    chooses_module = True
    title = "Rank transfers"
    missing = "No ranks have been recorded in these steps."

    def heading(self, view: RunView) -> str:
        """Return the title with the chosen steps."""
        return f"Rank transfers, steps {view.result.first} to {view.result.last}"

    def choice(self, view: RunView) -> Choice:
        """Return how the ends are put together."""
        return BY

    def data(self, view: RunView) -> Transfers:
        """Return what moved between kinds of modules, layers or modules."""
        run: RunReading = view.result
        traced, balance = run.traced()
        by = BY.of(view)
        band = capacity_frames.bands(run.modules, by, run.moves)
        drawn = traced[traced[["origin", "holder"]].isin(run.selected["position"].tolist()).any(axis=1)]
        bands, ends = (
            capacity_frames.flows(run.modules, drawn, band),
            capacity_frames.band_order(run.modules, band, by),
        )
        return Transfers(run, traced, balance, bands, ends)

    def caption(self, data: Transfers) -> str:
        """Return how much rank moved, and whether the totals match."""
        run = data.run
        words = flow(data.traced, data.balance, len(run.events_shown), run.first, run.last)
        some = len(run.selected) < len(run.modules)
        return f"{words} Bands from or to the selected modules are drawn; the numbers are of all." if some else words

    def figure(self, data: Transfers, colours: Palette) -> go.Figure:
        """Draw the bands."""
        modules = data.run.modules
        return rank_flow(
            data.numbers, data.ends, colours, dict(zip(modules["short"], modules["position"], strict=True))
        )


def flow(traced: pd.DataFrame, sides: Balance, events: int, first: int, last: int) -> str:
    """Say how much rank moved between two steps, and whether the totals match."""
    moved = traced[(traced["origin"] != traced["holder"]) & (traced["holder"] >= 0)]
    if moved.empty and not sides.released:
        return f"No rank moved between step {first} and step {last}."
    check = "The totals match" if sides.adds_up else f"The totals differ by {number(round(sides.gap))}"
    amount = number(round(moved["parameters"].sum()))
    return (
        f"After {plural(events, 'reallocation')}, {amount} parameters are in other modules than at step {first}. "
        f"Pale bands did not move; moves that were undone are not shown. {check} (without gates): before, "
        f"{number(round(sides.held_before))} in use and {number(round(sides.free))} free; after, "
        f"{number(round(sides.held_after))} in use and {number(round(sides.released))} released."
    )


def rank_flow(
    bands: pd.DataFrame, labels: Sequence[str], colours: Palette, positions: Mapping[str, int] = NO_MODULES
) -> go.Figure:
    """Draw who gave to whom, in parameters; pale bands stayed where they were.

    Args:
        bands: as `capacity_frames.flows` returns them.
        labels: of the ends, in the order they are drawn and coloured.
        colours: of the mode.
        positions: of modules as recorded, by the label of their end; a click on a band chooses the receiver.
    """
    drawn = theme.figure(colours, 340, left=8)
    bands = bands.drop(bands.index[bands["kept"] & (bands["source"] == OTHERS)])  # it would dwarf what is named
    ends = [*labels, RELEASED, FREE]
    left = [label for label in ends if label in set(bands["source"])]
    right = [label for label in ends if label in set(bands["target"])]
    colour = {label: style[0] for label, style in theme.kind_styles(labels).items() if label != OTHERS}
    place = {("left", label): i for i, label in enumerate(left)}
    place |= {("right", label): len(left) + i for i, label in enumerate(right)}
    heights = [*_middles(bands, "source", left), *_middles(bands, "target", right)]
    drawn.add_sankey(
        arrangement="fixed",  # else plotly changes the order of the ends from one look to the next
        node={
            "label": [plotly_text(label, 24) for label in [*left, *right]],
            "pad": 12,
            "thickness": 10,
            "x": [0.001] * len(left) + [0.999] * len(right),
            "y": heights,
            "color": [colour.get(label, colours.muted) for label in [*left, *right]],
            "line": {"width": 0},
            "hovertemplate": "%{label}: %{value:,.0f} parameters<extra></extra>",
        },
        link={
            "source": [place["left", label] for label in bands["source"]],
            "target": [place["right", label] for label in bands["target"]],
            "value": bands["parameters"].round(1),
            "customdata": [_format_flow(row) for _, row in bands.iterrows()],
            "color": [
                theme.faded(colour.get(source, colours.muted), 0.2 if is_kept else 0.72)
                for source, is_kept in zip(bands["source"], bands["kept"], strict=True)
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        textfont={"size": 12, "color": colours.text, "shadow": _halo(colours.panel)},
        meta=modules_of_bands([*left, *right], bands["target"].tolist(), positions),
    )
    drawn.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 12})
    return drawn


def _middles(bands: pd.DataFrame, side: str, labels: Sequence[str]) -> list[float]:
    """Return where the middle of each end of a side is, from 0 at the top to 1, in their order."""
    amounts = bands.groupby(side)["parameters"].sum().reindex(list(labels)).to_numpy(float)
    ends = np.cumsum(amounts) / max(amounts.sum(), 1e-9)
    return np.clip(ends - amounts / max(amounts.sum(), 1e-9) / 2, 0.001, 0.999).tolist()


def _halo(colour: str) -> str:
    """Return a shadow around letters, so that a thin band behind a word does not strike it through."""
    places = [(x, y) for x in (-2, 0, 2) for y in (-2, 0, 2) if x or y]
    return ", ".join(f"{x}px {y}px 2px {colour}" for x, y in places)


def _format_flow(row: pd.Series) -> str:
    amount = f"{row['parameters']:,.0f} parameters"
    if row["kept"]:
        return f"{plotly_text(row['source'])}: {amount} were not moved"
    return f"{plotly_text(row['source'])} → {plotly_text(row['target'])}<br>{amount}"


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


class ImportanceStability(CapacityPanel[pd.DataFrame]):
    """Spearman correlation of importance between each reallocation and the one before."""

    id = "stability"
    card = "steady"
    order = 6
    title = "Importance stability between reallocations"
    missing = "There are fewer than two reallocations to compare."
    is_wide = True

    def applies(self, view: RunView) -> bool:
        """Say whether rank moved more than once."""
        return super().applies(view) and len(view.result.event_steps) > 1

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns step and value; None before the second reallocation."""
        run: RunReading = view.result
        importance = run.whole("importance")
        if not importance.empty:
            importance = importance.iloc[run.selected["position"]]
        agreement = capacity_frames.steadiness(importance, run.event_steps)
        return None if agreement.empty else agreement

    def caption(self, data: pd.DataFrame) -> str:
        """Say how far the order of importance can be trusted from one reallocation to the next."""
        middle = float(data["value"].median())
        verdict = "stable" if middle >= 0.8 else "fairly stable" if middle >= 0.5 else "mostly noise"
        return (
            f"The order of importance from one reallocation to the next is {verdict}: median Spearman correlation "
            f"{middle:.2f} over {len(data)} pairs, minimum {data['value'].min():.2f}."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the correlation at each reallocation, from -1 to 1."""
        drawn = theme.figure(colours, 230)
        drawn.add_scatter(
            x=data["step"],
            y=data["value"],
            mode="lines+markers",
            line={"color": colours.accent, "width": 1.6},
            marker={"size": 6},
            hovertemplate="step %{x}<br>Spearman %{y:.2f} with the previous reallocation<extra></extra>",
        )
        drawn.add_hline(y=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
        drawn.update_xaxes(title_text="Step")
        low = float(data["value"].min())
        drawn.update_yaxes(title_text="Spearman correlation", range=[min(-0.05, low - 0.1), 1.05])
        return drawn
