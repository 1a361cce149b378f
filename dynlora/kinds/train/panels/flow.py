"""Which modules gave rank to which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import capacity_frames
from dynlora.analysis.capacity_frames import FREE, OTHERS, RELEASED, Balance
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.text import number, plotly_text, plural
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
        bands: what moved between the ends, as `capacity_frames.flows` returns it.
        ends: in their order.
    """

    run: RunReading
    traced: pd.DataFrame
    balance: Balance
    bands: pd.DataFrame
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

    def table(self, data: Transfers) -> pd.DataFrame:
        """Return the bands."""
        return data.bands

    def figure(self, data: Transfers, colours: Palette) -> go.Figure:
        """Draw the bands."""
        modules = data.run.modules
        return rank_flow(data.bands, data.ends, colours, dict(zip(modules["short"], modules["position"], strict=True)))


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
