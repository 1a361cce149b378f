"""The decoded tokens of each problem by who wrote them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import figures, frames
from dynlora.kinds.decode.points import point_of
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.text import percent
from dynlora.viz.kit.theme import Palette


class Tokens(Panel[pd.DataFrame]):
    """Tokens of draft and target, a bar for each problem."""

    id = "tokens"
    order = 3
    title = "Tokens by role and problem"
    missing = "No problem was solved at this point."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the tokens of the chosen point, as `frames.tokens_frame` does."""
        point = point_of(view)
        frame = None if point is None else frames.tokens_frame(view.result, point.key)
        return None if frame is None or frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return the share of each writer."""
        accepted, discarded, target = (data[name].sum() for name in ("draft kept", "draft discarded", "target"))
        whole = max(1, accepted + discarded + target)
        return (
            f"Of {whole:,} decoded tokens the draft wrote {percent(accepted / whole, 0)} that were kept and "
            f"{percent(discarded / whole, 0)} that were discarded; the target wrote {percent(target / whole, 0)}. "
            f"Tokens that were only read (prefill): {int(data['prefill'].sum()):,}, in the table."
        )

    def table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the tokens of each problem."""
        return data

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a bar for each problem."""
        return figures.tokens(data, colours)
