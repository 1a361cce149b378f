"""A number per token of several models for each teacher, with its interval: what two panels of a distillation draw."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.distil import frames
from dynlora.kinds.distil.result import Distil, PerToken
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.text import plotly_text, short_names
from dynlora.viz.kit.theme import Palette

MOST_TEACHERS = 12
"""Teachers that are drawn; the others are in the table."""

LABEL = 22
"""Characters of a teacher's name that the axis has room for; the whole name is shown on hovering."""


class ComparedPanel(Panel[frames.Compared]):
    """Means with their intervals, a line for each teacher; models by colour and shape.

    Attributes:
        axis: title of the numbers' axis.
    """

    missing = "The test comes after the last step."
    axis: ClassVar[str]

    @abstractmethod
    def rows(self, result: Distil) -> tuple[Sequence[PerToken], Sequence[PerToken]]:
        """Return the numbers, and their paired differences from the base model's."""

    def data(self, view: RunView) -> frames.Compared | None:
        """Return the numbers as frames."""
        return frames.compared(view.result, *self.rows(view.result))

    def table(self, data: frames.Compared) -> pd.DataFrame:
        """Return every mean with its interval."""
        return data.rows.drop(columns="method")

    def figure(self, data: frames.Compared, colours: Palette) -> go.Figure:
        """Draw the means with their intervals."""
        frame = data.drawn
        teachers = list(dict.fromkeys(frame["teacher"]))[: MOST_TEACHERS + 1]
        looks = theme.styles(list(dict.fromkeys(frame["model"])))
        drawn = theme.figure(colours, 120 + 44 * len(teachers), left=150)
        for place, (model, part) in enumerate(frame.groupby("model", sort=False)):
            part = part[part["teacher"].isin(teachers)]
            colour, symbol, _ = looks[str(model)]
            shift = 0.18 * (place - (len(looks) - 1) / 2)
            drawn.add_scatter(
                x=part["mean"],
                y=[teachers.index(one) + shift for one in part["teacher"]],
                mode="markers",
                name=plotly_text(model, 40),
                marker={"color": colour, "symbol": symbol, "size": 9},
                error_x=theme.interval(part["mean"], part, colour),
                customdata=[plotly_text(one, 80) for one in part["teacher"]],
                hovertemplate="%{customdata}: %{x:.3f} nats per token<extra>%{fullData.name}</extra>",
            )
        names = [plotly_text(one) for one in short_names(teachers, LABEL)]
        drawn.update_yaxes(
            tickmode="array", tickvals=list(range(len(teachers))), ticktext=names, range=[len(teachers) - 0.5, -0.5]
        )
        drawn.update_xaxes(title_text=self.axis, rangemode="tozero")
        drawn.update_layout(showlegend=True)
        return drawn

    def more(self, data: frames.Compared) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return data.differences
