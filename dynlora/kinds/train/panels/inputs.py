"""What input groups change: their gates, what reacting to the input gains, and their results over the evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import inputs as analysis_inputs
from dynlora.analysis.inputs import InputsReading, group_with_size, inputs_of
from dynlora.analysis.module_effects import GateEffect, Reaction, reaction_conclusion
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import loss_unit
from dynlora.kinds.train.panels.results import group_scores
from dynlora.text import one_line, percent, plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import axis_within
from dynlora.viz.kit.module_map import modules_of_cells
from dynlora.viz.kit.panel import Choice, Panel, Picks, RunView
from dynlora.viz.kit.theme import Palette

ALL = "all examples"


@dataclass(frozen=True)
class Reactions:
    """What reacting gains over all examples and in each group, and the unit of the loss."""

    parts: list[Reaction]
    unit: str


class GateReaction(Panel[Reactions]):
    """The held-out loss with each gate at its mean, minus the loss with the gates."""

    id = "reaction"
    order = 22
    part = "Inputs"
    title = "Gain from reacting to the input"
    about = "Loss with each gate at its mean, minus the loss with the gates"
    missing = "Not recorded in this run. Newer runs with gates measure it at their end."
    is_wide = True

    def applies(self, view: RunView) -> bool:
        """Say whether the run has gates."""
        return "gate" in view.result.signals

    def data(self, view: RunView) -> Reactions | None:
        """Return what was recorded; None before the end of the run."""
        parts = view.result.reactions
        return Reactions(parts, loss_unit(view.result.summary)) if parts else None

    def caption(self, data: Reactions) -> str:
        """Return what reacting gains over all examples, with its interval."""
        return reaction_conclusion(data.parts[0], data.unit)

    def table(self, data: Reactions) -> pd.DataFrame:
        """Return a row for all examples and for each group."""
        rows = [(one.group or ALL, one.n, one.lowers_by, one.low, one.high) for one in data.parts]
        return pd.DataFrame(rows, columns=["group", "examples", "lowers the loss by", "low", "high"])

    def figure(self, data: Reactions, colours: Palette) -> go.Figure:
        """Draw a dot with its interval for all examples and for each group; right of zero the gates help."""
        table = self.table(data)
        rows = list(range(len(table)))
        drawn = theme.figure(colours, int(np.clip(130 + 30 * len(table), 200, 760)), left=90)
        ends = table[["low", "high"]].astype(float)
        drawn.add_scatter(
            x=table["lowers the loss by"],
            y=rows,
            mode="markers",
            marker={"color": [colours.accent, *[colours.muted] * (len(table) - 1)], "size": 10},
            error_x=theme.interval(table["lowers the loss by"], ends, colours.muted),
            hovertemplate="%{y}<br>lowers the loss by %{x:.4f}<extra></extra>",
        )
        drawn.add_vline(x=0, line={"color": colours.muted, "width": 1})
        drawn.update_xaxes(title_text=plotly_text(f"Lowers the loss by ({data.unit})"))
        names = [plotly_text(name, 22) for name in table["group"]]
        drawn.update_yaxes(tickmode="array", tickvals=rows, ticktext=names, range=[len(rows) - 0.5, -0.5])
        return drawn


SHOWN = Choice("gates", "Gates shown", {"beyond": "Significant gates", "all": "All gates"}, "beyond", is_row=True)
"""Whether what is not beyond chance is left out."""


@dataclass(frozen=True)
class Gates:
    """The inputs of a run with gates, whether what chance explains is left out, and the module that is followed."""

    inputs: InputsReading
    hides_chance: bool
    module: str | None = None


class GatesByGroup(Panel[Gates]):
    """The mean gate of each input group and module at the last evaluation up to the chosen step."""

    id = "gates"
    order = 23
    part = "Inputs"
    title = "Gates by input group"
    missing = (
        "This run has no gates, so its adapters treat every input alike. Train with strategy.gates=module to have a "
        "map here."
    )
    is_wide = True

    def choice(self, view: RunView) -> Choice | None:
        """Return whether all gates are shown; None for a run without gates."""
        return None if inputs_of(view.result).gates.empty else SHOWN

    def document_views(self, view: RunView) -> Mapping[str, RunView]:
        """Return all gates."""
        return {"": replace(view, chosen={**view.chosen, SHOWN.name: "all"})}

    def data(self, view: RunView) -> Gates | None:
        """Return the gates; None for a run without gates, and before the first evaluation."""
        inputs = inputs_of(view.result)
        return None if inputs.gates.empty else Gates(inputs, SHOWN.of(view) == "beyond", view.result.module)

    def picks(self, view: RunView) -> Picks:
        """Return that a click on a bar follows its module, by its position."""
        return Picks("module", view.result.modules.sort_values("position")["name"].tolist())

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no map: there are no gates, or no evaluation yet."""
        if "gate" in view.result.signals:
            return "No gates by input group were recorded up to this step; wait for the next evaluation."
        return self.missing

    def caption(self, data: Gates) -> str:
        """Return whether gates differ between groups beyond chance, and where most."""
        return f"{gates(data.inputs)} {of_module(data.inputs, data.module)}".strip()

    def table(self, data: Gates) -> pd.DataFrame:
        """Return the gates, a row for each group."""
        return analysis_inputs.gate_table(data.inputs.gates)

    def figure(self, data: Gates, colours: Palette) -> go.Figure:
        """Draw the map."""
        inputs = data.inputs
        return gate_map(
            inputs.gates, inputs.modules, inputs.effect, colours, hide=data.hides_chance, module=data.module
        )


def gates(inputs: InputsReading) -> str:
    """Say whether gates differ between groups beyond chance, and where most."""
    values, effect, step = inputs.gates.to_numpy(float), inputs.effect, inputs.step
    if not values.size or not np.isfinite(values).any():
        return "No gates were recorded up to this step."
    if effect is None:
        return f"At step {step}, groups cannot be compared: fewer than two have examples in the probe set."
    chance = (
        f"The chance level is {percent(effect.baseline)} ({effect.examples} probe examples in {effect.groups} "
        "groups, shuffled labels)."
    )
    order = inputs.modules["position"].to_numpy()
    differing = int(effect.is_significant[order].sum())
    if not differing:
        return f"At step {step}, no gate differs between groups beyond chance. {chance}"
    module = int(order[effect.share[order].argmax()])
    column = pd.Series(inputs.named_gates.to_numpy(float)[:, module], index=inputs.named_gates.index)
    name = one_line(inputs.modules.set_index("position")["short"].get(module, module), 40)
    ends = (
        f"{one_line(column.idxmax(), 40)} {column.max():.3f}, {one_line(column.idxmin(), 40)} {column.min():.3f}; "
        if len(column) > 1
        else ""
    )
    return (
        f"At step {step}, {differing} of {len(order)} gates differ between groups beyond chance. "
        f"The groups explain the largest fraction of the variation in {name}: {percent(effect.share[module])} "
        f"({ends}1 is neutral). {chance}"
    )


def of_module(inputs: InputsReading, name: str | None) -> str:
    """Say how the gate of one module differs between groups; empty without a module or its gate."""
    chosen = inputs.modules.loc[inputs.modules["name"] == name]
    if chosen.empty or inputs.effect is None:
        return ""
    position = int(chosen["position"].iloc[0])
    column = pd.Series(inputs.named_gates.to_numpy(float)[:, position], index=inputs.named_gates.index).dropna()
    if column.empty:
        return ""
    return (
        f"{one_line(chosen['short'].iloc[0], 40)}: {column.min():.3f} ({one_line(column.idxmin(), 40)}) to "
        f"{column.max():.3f} ({one_line(column.idxmax(), 40)}), {percent(inputs.effect.share[position])} explained."
    )


def gate_map(
    gates: pd.DataFrame,
    modules: pd.DataFrame,
    effect: GateEffect | None,
    colours: Palette,
    *,
    hide: bool = True,
    module: str | None = None,
) -> go.Figure:
    """Draw the mean gate of each group and module, 1 is neutral, and above it how much the groups explain.

    Args:
        gates: one row per group, one column per module as recorded.
        modules: as `capacity.described` returns them.
        effect: of the groups on the gates; None when it is not known.
        colours: of the mode.
        hide: leave out what is not beyond chance.
        module: name of the module to mark.
    """
    order = modules["position"].to_numpy()
    values = gates.to_numpy(float)[:, order]
    visible = np.where(effect.is_significant[order], values, np.nan) if effect is not None and hide else values
    reach = max(float(np.nanmax(np.abs(values - 1))) if np.isfinite(values).any() else 0.0, 1e-3)
    short = [plotly_text(name) for name in modules["short"]]
    whole = [plotly_text(name) for name in modules["name"]]
    drawn = theme.figure(colours, int(np.clip(210 + 34 * len(gates), 300, 700)))
    drawn.add_heatmap(
        z=np.round(visible, 5),
        x=list(range(len(short))),
        y=[plotly_text(group, 24) for group in gates.index],
        zmin=1 - reach,
        zmax=1 + reach,
        colorscale=colours.diverging_scale,
        hoverongaps=False,
        xgap=theme.column_gap(len(short)),
        ygap=1,
        customdata=np.tile(np.array(whole, dtype=object), (len(gates), 1)),
        meta=modules_of_cells("x", range(len(short)), order),
        colorbar=theme.colour_bar("Gate (factor)", colours, nticks=5, len=0.72, y=0, yanchor="bottom"),
        hovertemplate="%{y}<br>%{customdata}<br>gate %{z:.4f}<extra></extra>",
    )
    drawn.update_xaxes(**theme.name_axis(short, colours), title_text="Module (by kind and depth)")
    drawn.update_yaxes(type="category", autorange="reversed", showgrid=False, domain=[0, 0.7])
    if effect is not None:
        _draw_effect(drawn, effect, modules, colours, module)
    return drawn


def _draw_effect(
    drawn: go.Figure, effect: GateEffect, modules: pd.DataFrame, colours: Palette, module: str | None
) -> None:
    """Draw the share that the groups explain of each gate above the map, the baseline of chance as a line."""
    order = modules["position"].to_numpy()
    share = 100 * effect.share[order]
    inks = [colours.accent if is_beyond else colours.muted for is_beyond in effect.is_significant[order]]
    drawn.add_bar(
        x=list(range(len(share))),
        y=share,
        yaxis="y2",
        customdata=[[plotly_text(name), int(at)] for name, at in zip(modules["name"], order, strict=True)],
        marker={
            "color": [
                colours.second if name == module else ink for name, ink in zip(modules["name"], inks, strict=True)
            ]
        },
        hovertemplate="%{customdata[0]}<br>the groups explain %{y:.1f} % of its variation<extra></extra>",
    )
    drawn.add_shape(
        type="line",
        xref="paper",
        x0=0,
        x1=1,
        yref="y2",
        y0=100 * effect.baseline,
        y1=100 * effect.baseline,
        line={"color": colours.second, "width": 1.3, "dash": "dash"},
    )
    drawn.update_layout(
        yaxis2={
            **theme.axis(colours),
            "domain": [0.78, 1],
            "anchor": "x",
            "rangemode": "tozero",
            "nticks": 4,
            "title": {"text": "Explained (%)", "font": {"size": 11, "color": colours.muted}},
        }
    )


@dataclass(frozen=True)
class GroupSeries:
    """A number of each group over the evaluations.

    Attributes:
        numbers: columns step, group, value and n, the examples of the group.
        title: of the number, with its unit.
        sample: on how many examples it was measured, in words.
    """

    numbers: pd.DataFrame
    title: str
    sample: str


class GroupsOverSteps(Panel[GroupSeries]):
    """A line for each input group, a figure for each number that was recorded of the groups."""

    id = "group"
    order = 24
    part = "Inputs"
    title = "Results by input group over time"
    missing = "No number of input groups was recorded."

    def applies(self, view: RunView) -> bool:
        """Say whether a number of groups was recorded."""
        return bool(_numbers(view.result))

    def views(self, view: RunView) -> Mapping[str, RunView]:
        """Return a view for each number."""
        return {f"-{name}": replace(view, chosen={**view.chosen, "group": name}) for name in _numbers(view.result)}

    def heading(self, view: RunView) -> str:
        """Return the title with the number."""
        name, metric = view.chosen["group"], view.result.summary.metric
        word = analysis_inputs.group_title(name, metric) if name == "metric" else analysis_inputs.group_label(name)
        return f"{sentence_case(word)} by input group"

    def data(self, view: RunView) -> GroupSeries | None:
        """Return the chosen number, the first without a choice."""
        run: RunReading = view.result
        numbers = _numbers(run)
        name = view.chosen.get("group", next(iter(numbers), ""))
        if name not in numbers:
            return None
        inputs = inputs_of(run)
        title = analysis_inputs.group_title(name, run.summary.metric)
        sizes = inputs.groups[["group", "n"]]
        return GroupSeries(inputs.over_steps(name).merge(sizes, on="group", how="left"), title, inputs.sampled)

    def caption(self, data: GroupSeries) -> str:
        """Return how far apart the groups are at the last evaluation."""
        known = data.numbers.dropna(subset=["value"])
        if known.empty:
            return "No group has been evaluated yet."
        last = known[known["step"] == known["step"].max()]
        words = group_scores(last, data.title.partition(" (")[0], "value")
        hint = "Set data.group_by to compare groups." if len(last) == 1 else ""
        return " ".join(filter(None, (words, f"Measured at step {last['step'].iloc[0]:.0f}.", hint, data.sample)))

    def figure(self, data: GroupSeries, colours: Palette) -> go.Figure:
        """Draw the lines."""
        return group_lines(data.numbers, data.title, colours)


def _numbers(run: RunReading) -> list[str]:
    """Return the numbers that were recorded of the groups, in the order of the page."""
    recorded = run.recorded
    return [name for name in analysis_inputs.GROUP_NUMBERS if f"group_{name}" in recorded]


def group_lines(series: pd.DataFrame, title: str, colours: Palette) -> go.Figure:
    """Draw a number of each group over the evaluations; `series` holds step, group, value and n."""
    drawn = theme.figure(colours, 380)
    style = theme.contrasting(list(dict.fromkeys(series["group"])))
    for group, part in series.groupby("group", sort=False):
        colour, symbol, dash = style[str(group)]
        drawn.add_scatter(
            x=part["step"],
            y=part["value"],
            mode="lines+markers",
            name=plotly_text(group_with_size(group, part["n"].iloc[0] if "n" in part else np.nan), 36),
            line={"color": colour, "width": 1.8, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}<br>step %{x}: %{y:.4f}<extra></extra>",
        )
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(title_text=plotly_text(sentence_case(title)), **axis_within(title))
    theme.single_step(drawn, series["step"])
    return drawn
