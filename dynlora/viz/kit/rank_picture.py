"""The model as a picture: the rank of every module, layers by kinds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette


def pattern(ranks: Mapping[str, int], modules: pd.DataFrame) -> pd.DataFrame:
    """Return ranks as rows of layers and columns of kinds of modules.

    Args:
        ranks: by module; one that is missing has none.
        modules: as `kit.modules.described` returns them.
    """
    frame = modules[["name", "layer", "label"]].copy()
    frame["rank"] = [ranks.get(name, 0) for name in frame["name"]]
    order = list(dict.fromkeys(modules["label"]))
    table = frame.pivot_table(index="layer", columns="label", values="rank", aggfunc="sum", dropna=False)
    return table.reindex(columns=order).sort_index()


def model_picture(pattern: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the rank of each module, layers by kinds.

    Args:
        pattern: as `pattern` returns it.
        colours: of the mode.
    """
    values = pattern.to_numpy(float)
    high = max(1.0, float(np.nanmax(values))) if np.isfinite(values).any() else 1.0
    drawn = theme.figure(colours, int(np.clip(110 + 22 * len(pattern), 220, 700)))
    names = [plotly_text(name, 18) for name in pattern.columns]
    few = len(pattern) <= 16 and len(names) <= 9
    drawn.add_heatmap(
        z=values,
        x=list(range(len(names))),
        y=[f"{layer:.0f}" for layer in pattern.index],
        xgap=2,
        ygap=2,
        zmin=0,
        zmax=high,
        colorscale=colours.sequential_scale,
        hoverongaps=False,
        showscale=not few,
        text=np.where(np.isfinite(values), np.nan_to_num(values).astype(int).astype(str), ""),
        texttemplate="%{text}" if few else None,
        textfont={"size": 11},
        customdata=np.tile(np.array(names, dtype=object), (len(pattern), 1)),
        colorbar={"title": {"text": "Rank", "side": "right"}, "thickness": 9, "outlinewidth": 0},
        hovertemplate="layer %{y}, %{customdata}<br>rank %{z:.0f}<extra></extra>",
    )
    drawn.update_xaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=names, showgrid=False)
    drawn.update_yaxes(title_text="Layer", type="category", autorange="reversed", showgrid=False)
    return drawn
