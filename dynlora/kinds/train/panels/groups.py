"""How each input group does over the evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import inputs as analysis_inputs
from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.inputs import inputs_of
from dynlora.analysis.run_reading import RunReading
from dynlora.text import one_line, plotly_text, score, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import axis_within
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class GroupSeries:
    """A number of each group over the evaluations.

    Attributes:
        series: columns step, group, value.
        title: of the number, with its unit.
        low_is_good: whether less of it is better.
        sample: on how many examples it was measured, in words.
    """

    series: pd.DataFrame
    title: str
    low_is_good: bool
    sample: str


class GroupsOverSteps(Panel[GroupSeries]):
    """A line for each input group, a figure for each number that was recorded of the groups."""

    id = "group"
    order = 22
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
        name, metric = view.chosen["group"], view.result.summary["metric"]
        word = analysis_inputs.group_title(name, metric)[0] if name == "metric" else analysis_inputs.group_label(name)
        return f"{sentence_case(word)} by input group"

    def data(self, view: RunView) -> GroupSeries | None:
        """Return the chosen number, the first without a choice."""
        run: RunReading = view.result
        numbers = _numbers(run)
        name = view.chosen.get("group", next(iter(numbers), ""))
        if name not in numbers:
            return None
        inputs = inputs_of(run)
        title, low_is_good = analysis_inputs.group_title(name, run.summary["metric"])
        return GroupSeries(inputs.over_steps(name), title, low_is_good, inputs.sampled)

    def caption(self, data: GroupSeries) -> str:
        """Return which group does best and worst at the last evaluation."""
        words = groups(data.series, data.title.partition(" (")[0], low_is_good=data.low_is_good)
        return f"{words} {data.sample}".strip()

    def table(self, data: GroupSeries) -> pd.DataFrame:
        """Return every value."""
        return data.series

    def figure(self, data: GroupSeries, colours: Palette) -> go.Figure:
        """Draw the lines."""
        return group_lines(data.series, data.title, colours)


def _numbers(run: RunReading) -> list[str]:
    """Return the numbers that were recorded of the groups, in the order of the page."""
    recorded = run.recorded
    return [name for name in analysis_inputs.GROUP_NUMBERS if f"group_{name}" in recorded]


def groups(series: pd.DataFrame, name: str, *, low_is_good: bool = False) -> str:
    """Say which group does best and worst at the last evaluation; `series` holds step, group, value."""
    known = series.dropna(subset=["value"])
    if known.empty:
        return "No group has been evaluated yet."
    last = known[known["step"] == known["step"].max()]
    best, worst = last.loc[at_highest(last["value"])], last.loc[at_lowest(last["value"])]
    if len(last) == 1:
        return (
            f"At step {int(last['step'].iloc[0])}, {one_line(name, 40)} is {score(best['value'])} in the one group, "
            f"{one_line(best['group'], 40)}; set data.group_by to compare groups."
        )
    if low_is_good:
        best, worst = worst, best
    return (
        f"At step {int(last['step'].iloc[0])}, {one_line(name, 40)} is best for {one_line(best['group'], 40)} "
        f"({score(best['value'])}) and worst for {one_line(worst['group'], 40)} ({score(worst['value'])})."
    )


def group_lines(series: pd.DataFrame, title: str, colours: Palette) -> go.Figure:
    """Draw a number of each group over the evaluations; `series` holds step, group, value."""
    drawn = theme.figure(colours, 380)
    style = theme.contrasting(list(dict.fromkeys(series["group"])))
    for group, part in series.groupby("group", sort=False):
        colour, symbol, dash = style[str(group)]
        drawn.add_scatter(
            x=part["step"],
            y=part["value"],
            mode="lines+markers",
            name=plotly_text(group, 24),
            line={"color": colour, "width": 1.8, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}<br>step %{x}: %{y:.4f}<extra></extra>",
        )
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(title_text=plotly_text(sentence_case(title)), **axis_within(title))
    theme.single_step(drawn, series["step"])
    return drawn
