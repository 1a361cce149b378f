"""The loss of merge, own adapter and base model on the held-out examples of each run's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.merge import result
from dynlora.kinds.merge.result import Merge
from dynlora.viz.kit.charts import model_intervals
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Losses:
    """The losses by source and model, as `frames.loss_frame` returns them, with what belongs to them."""

    merge: Merge
    rows: pd.DataFrame

    @property
    def unit(self) -> str:
        """Of the loss."""
        return self.merge.unit or "as recorded"


class HeldOutLoss(Panel[Losses]):
    """Held-out loss with its interval, a line for each source; models by colour and shape."""

    id = "loss"
    order = 1
    title = "Held-out loss"
    about = "Held-out examples of each run's own data"
    missing = "The test comes after the last module."

    def data(self, view: RunView) -> Losses | None:
        """Return the losses; None before the test, and where no data could be read."""
        rows = result.loss_frame(view.result)
        return None if rows.empty else Losses(view.result, rows)

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no loss: the test is still to come, or had no data."""
        if view.result.notes:
            return "The data of no run could be read, so no held-out loss was measured."
        return self.missing

    def caption(self, data: Losses) -> str:
        """Return what is measured, and over what."""
        head = "; each run's own head is used on its data" if data.merge.head in ("own", "equal") else ""
        return (
            f"Mean loss of the merge, of each run's own adapter and of the base model on held-out examples of that "
            f"run's data, {data.unit}{head}. Bars: 95 % CI over examples."
        )

    def table(self, data: Losses) -> pd.DataFrame:
        """Return every mean with its interval."""
        return data.rows

    def more(self, data: Losses) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return {"Difference of the merge, paired": result.difference_frame(data.merge)}

    def figure(self, data: Losses, colours: Palette) -> go.Figure:
        """Draw the means with their intervals."""
        return model_intervals(data.rows, "data of", data.unit, f"Loss, {data.unit}", colours)
