"""How many components each kind of module has over the steps."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.run_reading import RunReading
from dynlora.text import number, one_line, plotly_text, signed
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, Picks, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class KindTotals:
    """Components over the steps: column step, then one per kind; and of which modules, in words."""

    totals: pd.DataFrame
    modules: str


class RankByKind(Panel[KindTotals]):
    """Components by kind of module, stacked."""

    id = "kinds"
    order = 14
    part = "Cost"
    title = "Rank by module kind over time"
    missing = "No ranks have been recorded yet."

    def data(self, view: RunView) -> KindTotals | None:
        """Return the components of the chosen modules; None before the first rank."""
        run: RunReading = view.result
        totals = components_by_kind(run.whole("rank", run.columns), run.selected)
        chosen = " of ".join(one_line(part, 40) for part in (run.kind, run.depth) if part)
        return None if totals.empty else KindTotals(totals, f"the modules of {chosen}" if chosen else "the adapters")

    def picks(self, view: RunView) -> Picks:
        """Return that a click on a band chooses its kind."""
        return Picks("kind", list(dict.fromkeys(view.result.selected["label"])))

    def caption(self, data: KindTotals) -> str:
        """Return which kind gained and which lost most."""
        return by_kind(data.totals, data.modules)

    def table(self, data: KindTotals) -> pd.DataFrame:
        """Return column step, then one per kind."""
        return data.totals

    def figure(self, data: KindTotals, colours: Palette) -> go.Figure:
        """Draw the components."""
        return ranks_by_kind(data.totals, colours)


def components_by_kind(ranks: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return the components each kind of module holds: column step, then one per kind.

    Args:
        ranks: one row per module as recorded, one column per step.
        modules: all or some, as `capacity.described` returns them.
    """
    if not ranks.shape[1] or modules["position"].max() >= len(ranks):
        return pd.DataFrame({"step": []})
    columns = {"step": ranks.columns.to_numpy()}
    for label, part in modules.groupby("label", sort=False):
        columns[str(label)] = ranks.to_numpy(float)[part["position"]].sum(axis=0)
    return pd.DataFrame(columns)


def by_kind(totals: pd.DataFrame, modules: str = "the adapters") -> str:
    """Say which kind gained and which lost most components; column step, then one per kind of these modules."""
    first, last = totals.iloc[0, 1:], totals.iloc[-1, 1:]
    change = (last - first).astype(float)
    words = f"At step {int(totals['step'].iloc[-1]):,}, {modules} have {number(int(last.sum()))} components"
    if not change.abs().max():
        return f"{words}; no kind changed since the start."
    won, lost = change.idxmax(), change.idxmin()
    parts = []
    if change.max() > 0:
        parts.append(f"{one_line(won, 24)} gained most ({signed(change.max(), 0)})")
    if change.min() < 0:
        parts.append(f"{one_line(lost, 24)} lost most ({signed(change.min(), 0)})")
    return f"{words}; {', '.join(parts)}."


def ranks_by_kind(totals: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw how many components each kind of module holds over the steps, stacked; column step, then one per kind."""
    drawn = theme.figure(colours, 250)
    styles = theme.kind_styles([str(name) for name in totals.columns[1:]])
    for place, (kind, (colour, _, _)) in enumerate(styles.items()):
        drawn.add_scatter(
            x=totals["step"],
            y=totals[kind],
            mode="lines",
            stackgroup="ranks",
            name=plotly_text(kind, 24),
            line={"color": colour, "width": 0.8, "shape": "hv"},
            fillcolor=theme.faded(colour, 0.55),
            meta={"place": place},
            hovertemplate=f"step %{{x}}<br>{plotly_text(kind, 24)}: %{{y:,}} components<extra></extra>",
        )
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(title_text="Rank (components)", rangemode="tozero")
    theme.single_step(drawn, totals["step"])
    return drawn
