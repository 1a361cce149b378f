"""The decoded tokens of each problem by who wrote them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import frames
from dynlora.kinds.decode.frames import point_of, role_colours
from dynlora.text import percent
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

PARTS = {"target": "Target", "draft discarded": "Draft, discarded", "draft kept": "Draft, kept"}


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
        """Return the fraction of each writer."""
        accepted, discarded, target = (data[name].sum() for name in ("draft kept", "draft discarded", "target"))
        whole = max(1, accepted + discarded + target)
        return (
            f"Of {whole:,} decoded tokens the draft wrote {percent(accepted / whole, 0)} that were kept and "
            f"{percent(discarded / whole, 0)} that were discarded; the target wrote {percent(target / whole, 0)}. "
            f"Tokens that were only read (prefill): {int(data['prefill'].sum()):,}, in the table."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a bar for each problem."""
        drawn = theme.figure(colours, 280)
        names = [f"{problem}" for problem in data["problem"]]
        for part, colour in role_colours(colours).items():
            drawn.add_bar(
                x=names,
                y=data[part],
                name=PARTS[part],
                marker={"color": colour},
                hovertemplate="Problem %{x}: %{y} tokens<extra>" + PARTS[part] + "</extra>",
            )
        drawn.update_xaxes(title_text="Problem, most tokens of the target first", type="category", nticks=12)
        drawn.update_yaxes(title_text="Tokens decoded")
        drawn.update_layout(barmode="stack", showlegend=True, bargap=0.15)
        return drawn
