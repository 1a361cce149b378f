"""Divergence from each teacher and held-out loss of each model: a number per token, with its interval."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.distil import result as distil_result
from dynlora.kinds.distil.result import Distil
from dynlora.kinds.recorded import Interval
from dynlora.viz.kit.charts import model_intervals
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class ComparedPanel(Panel[distil_result.Compared]):
    """Means with their intervals, a line for each teacher; models by colour and shape.

    Attributes:
        axis: title of the numbers' axis.
    """

    missing = "The test comes after the last step."
    axis: ClassVar[str]

    @abstractmethod
    def rows(self, result: Distil) -> tuple[Sequence[Interval], Sequence[Interval]]:
        """Return the numbers, and their paired differences from the base model's."""

    def data(self, view: RunView) -> distil_result.Compared | None:
        """Return the numbers as frames."""
        return distil_result.compared(view.result, *self.rows(view.result))

    def table(self, data: distil_result.Compared) -> pd.DataFrame:
        """Return every mean with its interval."""
        return data.rows.drop(columns="method")

    def figure(self, data: distil_result.Compared, colours: Palette) -> go.Figure:
        """Draw the means with their intervals."""
        return model_intervals(data.drawn, "teacher", "nats per token", self.axis, colours)

    def more(self, data: distil_result.Compared) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return data.differences


class Divergence(ComparedPanel):
    """KL(teacher || model) with its interval, a line for each teacher."""

    id = "divergence"
    order = 1
    title = "Divergence from the teachers"
    about = "Texts that teachers wrote for the test alone"
    axis = "KL in nats per token"

    def rows(self, result: Distil) -> tuple[Sequence[Interval], Sequence[Interval]]:
        """Return the divergences and their differences."""
        return result.kl, result.kl_against_base

    def caption(self, data: distil_result.Compared) -> str:
        """Return what is measured, and over what."""
        return (
            "Mean KL(teacher || model) over the tokens of texts that a teacher wrote for the test alone, nats; 0 is "
            "the teacher itself. Bars: 95 % CI over texts."
        )


class HeldOutLoss(ComparedPanel):
    """Held-out loss with its interval, a line for each teacher."""

    id = "loss"
    order = 2
    title = "Held-out loss"
    about = "Held-out examples of each teacher's own data"
    axis = "Loss in nats per token"

    def rows(self, result: Distil) -> tuple[Sequence[Interval], Sequence[Interval]]:
        """Return the losses and their differences."""
        return result.loss, result.loss_against_base

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no loss: the test is still to come, or had no data."""
        if view.result.kl:
            return "The data of no teacher could be read, so no held-out loss was measured."
        return self.missing

    def caption(self, data: distil_result.Compared) -> str:
        """Return what is measured, and over what."""
        return (
            "Mean loss over the tokens of held-out examples of each teacher's data, nats. The student never saw this "
            "data. Bars: 95 % CI over examples."
        )
