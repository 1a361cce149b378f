"""The numbers that only the method of a run records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary
from dynlora.analysis.run_reading import RunReading
from dynlora.text import number, one_line, sentence_case
from dynlora.viz.kit import charts
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class OwnNumber:
    """A number of the method: what it is called, and its columns step and value."""

    word: str
    series: pd.DataFrame


class OwnNumbers(Panel[OwnNumber]):
    """A figure for each number that the method counts."""

    id = "own"
    order = 17
    part = "Cost"
    title = "Method metric"
    missing = "The method of this run records no numbers of its own."

    def applies(self, view: RunView) -> bool:
        """Say whether there is one."""
        return bool(self.views(view))

    def views(self, view: RunView) -> Mapping[str, RunView]:
        """Return a view for each number."""
        names = run_summary.own_numbers(view.result.scalars)
        return {f"-{name}": replace(view, chosen={**view.chosen, "own": name}) for name in names}

    def heading(self, view: RunView) -> str:
        """Return the title with the number."""
        return f"{self.title}: {_word(view.chosen['own'])}"

    def data(self, view: RunView) -> OwnNumber | None:
        """Return the chosen number, the first without a choice."""
        run: RunReading = view.result
        names = run_summary.own_numbers(run.scalars)
        name = view.chosen.get("own", next(iter(names), ""))
        return OwnNumber(_word(name), run.series(name)) if name in names else None

    def caption(self, data: OwnNumber) -> str:
        """Return its first and its last value."""
        first, last = (number(data.series["value"].iloc[place]) for place in (0, -1))
        if first == last:
            return f"{sentence_case(data.word)} is {last} at the end, as at the start."
        return f"{sentence_case(data.word)} changed from {first} to {last}."

    def table(self, data: OwnNumber) -> pd.DataFrame:
        """Return step and value."""
        return data.series

    def figure(self, data: OwnNumber, colours: Palette) -> go.Figure:
        """Draw the line."""
        return charts.line(data.series, data.word, colours, zero=False)


def _word(name: str) -> str:
    """Return what people call a number."""
    return one_line(name.replace("_", " ").replace("/", ": "), 60)
