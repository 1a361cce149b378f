"""How far each model is from each teacher, on texts that teachers wrote for the test alone."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.distil import frames
from dynlora.kinds.distil.intervals_figure import intervals
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class Divergence(Panel[frames.Compared]):
    """KL(teacher || model) with its interval, a line for each teacher."""

    id = "divergence"
    order = 1
    title = "Divergence from the teachers"
    about = "Texts that teachers wrote for the test alone"
    missing = "The test comes after the last step."

    def data(self, view: RunView) -> frames.Compared | None:
        """Return the divergences and their paired differences from the base model's."""
        return frames.compared(view.result, view.result.kl, view.result.kl_against_base)

    def caption(self, data: frames.Compared) -> str:
        """Return what is measured, and over what."""
        return (
            "Mean KL(teacher || model) over the tokens of texts that a teacher wrote for the test alone, nats; 0 is "
            "the teacher itself. Bars: 95 % CI over texts."
        )

    def table(self, data: frames.Compared) -> pd.DataFrame:
        """Return every mean with its interval."""
        return data.rows.drop(columns="method")

    def figure(self, data: frames.Compared, colours: Palette) -> go.Figure:
        """Draw the means with their intervals."""
        return intervals(data.drawn, "KL in nats per token", colours)

    def more(self, data: frames.Compared) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return data.differences
