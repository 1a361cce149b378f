"""A number per token of several models for each teacher, with its interval: what two panels of a distillation draw."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.distil import text
from dynlora.kinds.distil.result import Distil, PerToken
from dynlora.viz.kit.charts import model_intervals
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class ComparedPanel(Panel[text.Compared]):
    """Means with their intervals, a line for each teacher; models by colour and shape.

    Attributes:
        axis: title of the numbers' axis.
    """

    missing = "The test comes after the last step."
    axis: ClassVar[str]

    @abstractmethod
    def rows(self, result: Distil) -> tuple[Sequence[PerToken], Sequence[PerToken]]:
        """Return the numbers, and their paired differences from the base model's."""

    def data(self, view: RunView) -> text.Compared | None:
        """Return the numbers as frames."""
        return text.compared(view.result, *self.rows(view.result))

    def table(self, data: text.Compared) -> pd.DataFrame:
        """Return every mean with its interval."""
        return data.rows.drop(columns="method")

    def figure(self, data: text.Compared, colours: Palette) -> go.Figure:
        """Draw the means with their intervals."""
        return model_intervals(data.drawn, "teacher", "nats per token", self.axis, colours)

    def more(self, data: text.Compared) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return data.differences
