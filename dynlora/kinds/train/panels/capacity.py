"""The capacity map: a signal over modules and steps, with the use of the budget above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import capacity_frames
from dynlora.analysis.planted_ranks import needed_modules, outlined
from dynlora.analysis.run_reading import About, RunReading, uniform_rank
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.store.queries import HeatMap
from dynlora.text import listed, number, one_line, percent, plotly_text, spans
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import (
    HANDLES,
    MapView,
    bar_room,
    colour_of,
    even_cells,
    frame_module,
    grouped,
    label_rows,
    map_height,
    modules_of_cells,
    outline,
    row_edges,
    row_look,
    with_gaps,
)
from dynlora.viz.kit.panel import Picks, RunView
from dynlora.viz.kit.theme import Palette

USUAL = ("rank", "importance", "gate")
"""Signals that a report draws of every run that has them."""

COUNTED = ("rank", "effective_rank")
"""Signals that count components; others are scores, which have another hue."""

MOST_OWN = 3
"""Signals of a method's own that a report draws in addition."""


@dataclass(frozen=True)
class SignalOverSteps:
    """A signal over modules and steps.

    Attributes:
        run: what is chosen of the run.
        heat: the values in bins.
        start: the values at the first step, by module as recorded; None when there are none yet.
        values: the same at the chosen step.
        rows: the modules in the order of the rows.
        budget: use of the budget by step.
        look: what else the map shows.
    """

    run: RunReading
    heat: HeatMap
    start: np.ndarray | None
    values: np.ndarray | None
    rows: pd.DataFrame
    budget: pd.DataFrame
    look: MapView


class SignalMap(CapacityPanel[SignalOverSteps]):
    """The chosen signal over modules and steps."""

    id = "capacity"
    card = "map"
    order = 1
    title = "Rank by module over time"
    missing = "This signal was not recorded in these steps."
    width = 5
    is_live = True
    chooses_module = True

    def heading(self, view: RunView) -> str:
        """Return the title for the chosen signal."""
        return view.result.about.title

    def subtitle(self, view: RunView) -> str:
        """Return what the map of the chosen signal answers."""
        return view.result.about.question

    def views(self, view: RunView) -> Mapping[str, RunView]:
        """Return the chosen signal."""
        return {f"-{view.result.signal}": view}

    def document_views(self, view: RunView) -> Mapping[str, RunView]:
        """Return the usual signals and some of the method's own."""
        run: RunReading = view.result
        own = [name for name in run.signals if name in run.summary.own_signals][:MOST_OWN]
        names = [name for name in [*USUAL, *own] if name in run.signals]
        return {f"-{name}": replace(view, result=replace(run, signal=name)) for name in names}

    def data(self, view: RunView) -> SignalOverSteps | None:
        """Return the signal in the chosen steps."""
        run: RunReading = view.result
        heat, about = run.heat(run.signal), run.about
        if not heat.points:
            return None
        look = MapView(
            about.word,
            heat.unit,
            run.step,
            run.module,
            run.events_shown,
            about.centre,
            about.choices,
            about.grouping,
            needed=needed_modules(run.summary),
            end=capacity_frames.scale_end(run.signal, uniform_rank(run.summary), len(run.modules)),
            is_score=run.signal not in COUNTED,
        )
        start, values = (run.values(run.signal, step) for step in (run.first, run.step))
        return SignalOverSteps(run, heat, start, values, run.rows, run.budget, look)

    def picks(self, view: RunView) -> Picks | None:
        """Return that a click chooses a module, or of a row of a layer opens it."""
        run, picks = view.result, super().picks(view)
        if picks is None or not run.is_folded:
            return picks
        n = len(run.modules)
        layers = {n + int(layer): ("open", str(int(layer))) for layer in run.modules["layer"].dropna().unique()}
        return replace(picks, others=layers)

    def caption(self, data: SignalOverSteps) -> str:
        """Return where the signal is at the chosen step, and how many of the recorded steps are drawn."""
        run = data.run
        if run.signal == "rank" and data.start is not None:
            words = rank_caption(run.selected, data.start, data.values, run.step, run.event_steps)
        else:
            words = sentence(run.about, run.selected, data.values, run.step)
        parts = (words, FOLDED if run.is_folded else "", outlined(run.summary), binned(data.heat))
        return " ".join(filter(None, parts))

    def table(self, data: SignalOverSteps) -> pd.DataFrame:
        """Return every step that is drawn, a column for each module."""
        return capacity_frames.wide(data.heat.frame, data.run.selected)

    def short_table(self, data: SignalOverSteps) -> pd.DataFrame:
        """Return first, last, lowest and highest value of each module."""
        modules, values = data.run.selected, data.heat.frame.to_numpy(float)
        order = modules["position"].to_numpy()
        numbers = pd.DataFrame(values[order])
        return pd.DataFrame(
            {
                "module": modules["short"].to_numpy(),
                "first": np.nan if data.start is None else data.start[order],
                "last": values[order, -1],
                "lowest": numbers.min(axis=1).to_numpy(),
                "highest": numbers.max(axis=1).to_numpy(),
                "name": modules["name"].to_numpy(),
            }
        )

    def figure(self, data: SignalOverSteps, colours: Palette) -> go.Figure:
        """Draw the map."""
        rows, values, look = data.rows, data.heat.frame, data.look
        if data.run.signal == "importance":
            values, look = capacity_frames.step_shares(values), replace(look, unit="% of the step")
        if data.run.is_folded:
            layers = rows.loc[rows["name"].isin(look.needed), "layer"].dropna()
            look = replace(look, needed={*look.needed, *(f"layer {int(layer)}" for layer in layers)})
            rows, values = capacity_frames.folded(rows, values, data.run.opened_layers)
        return capacity_map(values, data.heat.first_step, rows, data.budget, look, colours)


FOLDED = "A row is the mean of a layer's modules; a click on it opens the layer."
"""What is said of a map by layers."""


def rank_caption(
    modules: pd.DataFrame, start: np.ndarray, values: np.ndarray | None, step: int, events: Sequence[int]
) -> str:
    """Return the sentence under the map of ranks; arrays as recorded, at the first step and at `step`."""
    if values is None:
        return f"No rank was recorded up to step {step}."
    return rank_moved(modules, start, values, step, events)


def sentence(about: About, modules: pd.DataFrame, values: np.ndarray | None, step: int) -> str:
    """Return the sentence under a signal's map; values as recorded, at `step`."""
    if values is None:
        return f"No {one_line(about.word, 40)} was recorded up to step {step}."
    if about.grouping:
        return groups_at(values, step)
    if about.choices:
        return choices_at(values, about.choices, step)
    return signal_at(modules, values, one_line(about.word, 40), step)


def binned(heat: HeatMap) -> str:
    """Say how many of the recorded steps a heat map shows; empty when it shows them all."""
    columns = heat.frame.shape[1]
    return (
        ""
        if columns >= heat.points
        else (f"{columns:,} of {heat.points:,} recorded steps shown: the last step of each bin.")
    )


def rank_moved(modules: pd.DataFrame, start: np.ndarray, end: np.ndarray, step: int, events: Sequence[int]) -> str:
    """Say from where to where rank moved between the first step and `step`; arrays as recorded."""
    change = pd.Series((end - start)[modules["position"]])
    if not change.abs().sum():
        if not events:
            return f"No rank has moved up to step {step}."
        return f"No rank has moved up to step {step}; the first reallocation is after step {min(events)}."
    past = [event for event in events if event <= step]
    since = f" The last reallocation was after step {past[-1]}." if past and past[-1] < step else ""
    lost, won = modules[(change < 0).to_numpy()], modules[(change > 0).to_numpy()]
    source = _places(lost, change[(change < 0).to_numpy()].abs(), modules)
    target = _places(won, change[(change > 0).to_numpy()], modules)
    if not len(won):
        return f"Up to step {step}, rank was removed from {source}.{since}"
    return f"Up to step {step}, rank moved from {source} to {target}.{since}"


MOST_KINDS = 2
"""Kinds of modules that are named of those that gave or got rank; a sentence has both."""

MOST_SPANS = 3
"""Most spans of layers that are named; of more they are counted."""


def _layers(layers: Sequence[int], of: Sequence[int]) -> str:
    """Return in which layers some modules of a kind lie, in words that can be read once.

    Args:
        layers: of the modules.
        of: of all modules of the kind.
    """
    here, every = set(layers), set(of)
    if not here:
        return ""
    if here == every and len(every) > 1:
        return " (all layers)"
    words = spans(here)
    if words.count(",") >= MOST_SPANS:
        return f" ({len(here)} of {len(every)} layers)"
    return f" ({'layer' if len(here) == 1 else 'layers'} {words})"


def _places(modules: pd.DataFrame, amount: pd.Series, every: pd.DataFrame) -> str:
    """Return the kinds with the largest changes and the layers they lie in, among all modules."""
    if not len(modules):
        return "unused budget"
    rows = modules.assign(amount=amount.to_numpy())
    order = rows.groupby("label", sort=False)["amount"].sum().sort_values(ascending=False, kind="stable").index
    places: dict[str, list[str]] = {}
    for label in order[:MOST_KINDS]:
        layers, of = (frame.loc[frame["label"] == label, "layer"].dropna().astype(int) for frame in (rows, every))
        places.setdefault(_layers(layers.tolist(), of.tolist()), []).append(one_line(label, 40))
    words = [listed(labels) + where for where, labels in places.items()]
    return listed([*words, "others"] if len(order) > MOST_KINDS else words)


def signal_at(modules: pd.DataFrame, values: np.ndarray, title: str, step: int) -> str:
    """Say where a signal is strongest at a step, and how uneven it is; `values` as recorded."""
    column = pd.Series(values[modules["position"]], index=modules["short"]).dropna()
    if column.empty:
        return f"No {title} was recorded up to step {step}."
    top = column.nlargest(3)
    words = f"At step {step}, {title} is highest in {listed([one_line(name, 40) for name in top.index])}"
    total, tenth = column.clip(lower=0).sum(), max(1, round(len(column) / 10))
    if title != "gate" and total > 0:
        share = column.nlargest(tenth).clip(lower=0).sum() / total
        modules_word = "module has" if tenth == 1 else f"{tenth} modules have"
        return f"{words}; the top {modules_word} {percent(share, 0)} of the total over {len(column)} modules."
    return f"{words}; the values range from {number(column.min())} to {number(column.max())}."


def groups_at(values: np.ndarray, step: int) -> str:
    """Say how many groups the modules form at a step, and how large the largest is; equal values belong together."""
    _, sizes = np.unique(values[np.isfinite(values)], return_counts=True)
    if not len(sizes):
        return f"No groups were recorded up to step {step}."
    alone = int((sizes == 1).sum())
    words = f"At step {step}, {int(sizes.sum())} modules form {len(sizes)} groups"
    if alone == len(sizes):
        return f"{words} of one module each."
    rest = f", and {alone} have one module" if alone else ""
    return (
        f"{words}. The largest group has {int(sizes.max())} modules{rest}. Neighbouring rows of one colour "
        "are one group."
    )


def choices_at(values: np.ndarray, choices: Sequence[str], step: int) -> str:
    """Say how many modules have made each choice at a step; `values` index `choices`."""
    chosen = values[np.isfinite(values)].round().astype(int)
    counts = [(int((chosen == index).sum()), one_line(name, 40)) for index, name in enumerate(choices)]
    counted = [f"{count} {name}" for count, name in sorted(counts, key=lambda pair: -pair[0]) if count]
    return f"At step {step}: {listed(counted, limit=6)}." if counted else f"No choice was recorded up to step {step}."


def capacity_map(
    values: pd.DataFrame,
    first_step: np.ndarray,
    modules: pd.DataFrame,
    budget: pd.DataFrame,
    view: MapView,
    colours: Palette,
) -> go.Figure:
    """Draw modules by steps, rows in groups, the use of the budget above against its limit.

    Args:
        values: one row per module as recorded, one column per bin, named by its last step.
        first_step: first step of each bin.
        modules: as `capacity.ordered` returns them.
        budget: as `capacity.budget_line` returns it.
        view: what else is shown.
        colours: of the mode.
    """
    edges, centres = row_edges(modules["group"])
    n = max(len(modules), round(0.9 * edges[-1]))  # a row that is a group has room for its label
    drawn = theme.figure(colours, map_height(n, 150, 330), left=78)
    values = grouped(values) if view.grouping else values
    z = with_gaps(values.to_numpy(float)[modules["position"]], modules["group"])
    x = np.append(first_step - 0.5, values.columns.to_numpy()[-1] + 0.5)
    look, scale = row_look(len(modules)), colour_of(values, view, colours)
    cells, columns, rows = (z, x, edges) if look["ygap"] else even_cells(z, x, edges)
    drawn.add_heatmap(
        z=np.round(cells, 8).astype(np.float32),
        x=columns,
        y=rows,
        hoverongaps=False,
        ygap=look["ygap"],
        meta=modules_of_cells("y", centres, modules["position"]),
        **scale,
        hovertemplate=f"%{{y}}<br>step %{{x:.0f}}<br>{plotly_text(view.title)} %{{z:.4~g}}<extra></extra>",
    )
    _handles(drawn, modules, centres, float(x[0]), view, colours)
    label_rows(drawn, modules, centres, colours)
    drawn.update_layout(
        margin={"r": bar_room(scale)},
        yaxis={"range": [edges[-1], edges[0]], "domain": [0, 0.84], "showgrid": False, "fixedrange": True},
        xaxis={"title": {"text": "Step"}, "anchor": "y", "showgrid": False, "range": [x[0], x[-1]]},
    )
    _draw_budget(drawn, budget, view, colours)
    _mark(drawn, modules, edges, centres, view, colours)
    needed = centres[modules["name"].isin(view.needed)].tolist()
    outline(drawn, [(x[0], x[-1], centre - 0.5, centre + 0.5) for centre in needed], colours)
    return drawn


def _handles(
    drawn: go.Figure, modules: pd.DataFrame, centres: np.ndarray, x: float, view: MapView, colours: Palette
) -> None:
    """Draw a point at the left of each row, which is larger than a thin row and marks the chosen one."""
    drawn.add_scatter(
        x=[x] * len(modules),
        y=centres,
        mode="markers",
        cliponaxis=False,
        marker={
            "symbol": "triangle-right",
            "size": row_look(len(modules))["handle"],
            "color": _handle_colours(modules, view, colours),
        },
        text=[plotly_text(name) for name in modules["name"]],
        customdata=[[int(position)] for position in modules["position"]],
        name=HANDLES,
        hovertemplate="%{text}<extra></extra>",
    )


def _handle_colours(modules: pd.DataFrame, view: MapView, colours: Palette) -> str | list[str]:
    """Return the colour of all points at the rows, or where a module is marked the colour of each."""
    if view.module is None:
        return colours.muted
    return [colours.second if name == view.module else colours.muted for name in modules["name"]]


def _draw_budget(drawn: go.Figure, budget: pd.DataFrame, view: MapView, colours: Palette) -> None:
    """Draw the share of the budget in use above the map, its limit dashed, the events as ticks."""
    shares = 100 * budget["share"]
    low = min(float(shares.min()), 100.0) if shares.notna().any() else 95.0
    top, bottom = max(100.0, float(np.nanmax([100.0, *shares.dropna()]))), low
    reach = max(top - bottom, 0.5)
    drawn.add_scatter(
        x=budget["step"],
        y=shares,
        mode="lines",
        line={"color": colours.second, "width": 1.6, "shape": "hv"},
        yaxis="y2",
        xaxis="x",
        customdata=budget["parameters"],
        hovertemplate="step %{x}<br>%{y:.2f} % of the budget<br>%{customdata:,.0f} parameters<extra></extra>",
    )
    drawn.add_scatter(
        x=list(view.events),
        y=[top + 0.45 * reach] * len(view.events),
        mode="markers",
        yaxis="y2",
        xaxis="x",
        marker={"symbol": "line-ns-open", "size": 7, "color": colours.muted, "line": {"width": 1.2}},
        hovertemplate="reallocation after step %{x}<extra></extra>",
        cliponaxis=False,
    )
    drawn.add_shape(
        type="line",
        xref="paper",
        x0=0,
        x1=1,
        yref="y2",
        y0=100,
        y1=100,
        line={"color": colours.muted, "width": 1, "dash": "dot"},
    )
    is_close = 100 - bottom < 0.2 * reach  # two words would be one above the other
    ticks = {100.0: "100 %"} if is_close else {round(bottom, 1): f"{bottom:.1f} %", 100.0: "100 %"}
    drawn.update_layout(
        yaxis2={
            **theme.axis(colours),
            "domain": [0.88, 1],
            "anchor": "x",
            "fixedrange": True,
            "showgrid": False,
            "range": [bottom - 0.25 * reach, top + 0.7 * reach],
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "title": {"text": "Budget", "font": {"size": 10, "color": colours.muted}, "standoff": 4},
        }
    )


def _mark(
    drawn: go.Figure, modules: pd.DataFrame, edges: np.ndarray, centres: np.ndarray, view: MapView, colours: Palette
) -> None:
    """Draw the chosen step as one line through everything, and a frame around the chosen module's row."""
    if view.step is not None:
        drawn.add_shape(
            type="line",
            xref="x",
            x0=view.step,
            x1=view.step,
            yref="paper",
            y0=0,
            y1=1,
            line={"color": colours.text, "width": 1.4},
        )
    frame_module(drawn, modules, centres, view.module, colours)
