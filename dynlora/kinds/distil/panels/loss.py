"""The loss of each model on the held-out examples of each teacher's data."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.distil import frames
from dynlora.kinds.distil.intervals_figure import intervals
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class HeldOutLoss(Panel[frames.Compared]):
    """Held-out loss with its interval, a line for each teacher."""

    id = "loss"
    order = 2
    title = "Held-out loss"
    about = "Held-out examples of each teacher's own data"
    missing = "The test comes after the last step."

    def data(self, view: RunView) -> frames.Compared | None:
        """Return the losses and their paired differences from the base model's."""
        return frames.compared(view.result, view.result.loss, view.result.loss_against_base)

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no loss: the test is still to come, or had no data."""
        if view.result.kl:
            return "The data of no teacher could be read, so no held-out loss was measured."
        return self.missing

    def caption(self, data: frames.Compared) -> str:
        """Return what is measured, and over what."""
        return (
            "Mean loss over the tokens of held-out examples of each teacher's data, nats. The student never saw this "
            "data. Bars: 95 % CI over examples."
        )

    def table(self, data: frames.Compared) -> pd.DataFrame:
        """Return every mean with its interval."""
        return data.rows.drop(columns="method")

    def figure(self, data: frames.Compared, colours: Palette) -> go.Figure:
        """Draw the means with their intervals."""
        return intervals(data.drawn, "Loss in nats per token", colours)

    def more(self, data: frames.Compared) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return data.differences
