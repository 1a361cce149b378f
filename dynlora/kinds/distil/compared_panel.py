"""A number per token of several models for each teacher, with its interval: what two panels of a distillation draw."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.distil import frames
from dynlora.kinds.distil.result import Distil, PerToken
from dynlora.viz.kit.model_intervals import model_intervals
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


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
        return model_intervals(data.drawn, "teacher", "nats per token", self.axis, colours)

    def more(self, data: frames.Compared) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return data.differences
