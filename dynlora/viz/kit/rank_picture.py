"""The model as a picture: the rank of every module, layers by kinds; on pages, and as a PNG for trackers."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image, ImageDraw, ImageFont

from dynlora.store.rows import ModuleRow
from dynlora.text import kind_labels, one_line, plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import outline
from dynlora.viz.kit.theme import Palette


def pattern(ranks: Mapping[str, int], modules: pd.DataFrame) -> pd.DataFrame:
    """Return ranks as rows of layers and columns of kinds of modules.

    Args:
        ranks: by module; one that is missing has none.
        modules: as `analysis.frames.described` returns them.
    """
    frame = modules[["name", "layer", "label"]].copy()
    frame["rank"] = [ranks.get(name, 0) for name in frame["name"]]
    order = list(dict.fromkeys(modules["label"]))
    table = frame.pivot_table(index="layer", columns="label", values="rank", aggfunc="sum", dropna=False)
    return table.reindex(columns=order).sort_index()


def model_picture(pattern: pd.DataFrame, colours: Palette, needed: pd.DataFrame | None = None) -> go.Figure:
    """Draw the rank of each module, layers by kinds.

    Args:
        pattern: as `pattern` returns it.
        colours: of the mode.
        needed: of the same form, more than 0 where rank is known to be needed: it is outlined.
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
    cells = [] if needed is None else np.argwhere(needed.to_numpy(float) > 0).tolist()
    outline(drawn, [(column - 0.5, column + 0.5, row - 0.5, row + 0.5) for row, column in cells], colours)
    return drawn


WIDE, HIGH, GAP, MARGIN = 40, 24, 2, 10
"""Least width and the height of a cell, the room between two and that around all, pixels."""

LABEL, TITLE, SMALL = 12, 14, 11
"""Sizes of the words, pixels."""

MOST_CELLS = 100
"""Rows or columns that are drawn at full size; of more each is smaller, so that the picture stays one."""

OUTSIDE = "no layer"
"""What the row of modules outside of the blocks is called."""

LONGEST = 14
"""Most characters of a kind's name."""


@dataclass(frozen=True)
class _Grid:
    """Ranks by layer and kind, NaN where there is no module, and what rows and columns are called."""

    values: np.ndarray
    layers: list[str]
    kinds: list[str]


def rank_image(
    modules: Sequence[ModuleRow],
    ranks: Sequence[float],
    title: str,
    colours: Palette = theme.LIGHT,
    needed: Collection[str] = (),
) -> bytes:
    """Return a picture of the rank of every module as PNG.

    Args:
        modules: of the run, in order.
        ranks: of each; NaN where it is not known.
        title: what is above the picture, such as the step.
        colours: of the mode.
        needed: names of the modules to outline.
    """
    grid = _grid(modules, ranks)
    outlined = _grid(modules, [float(module.name in needed) for module in modules]).values > 0
    fonts = [ImageFont.load_default(size) for size in (TITLE, LABEL, SMALL)]
    longest = max((int(fonts[1].getlength(name)) for name in grid.kinds), default=0)
    high, wide = _cell(len(grid.layers), HIGH), _cell(len(grid.kinds), max(WIDE, longest + 7))
    left = MARGIN + max((int(fonts[2].getlength(name)) for name in grid.layers), default=0) + 8
    head, title = MARGIN + TITLE + LABEL + 22, one_line(title, 90)
    width = max(left + len(grid.kinds) * wide, MARGIN + int(fonts[0].getlength(title))) + MARGIN
    image = Image.new("RGB", (width, head + len(grid.layers) * high + MARGIN), colours.panel)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), title, font=fonts[0], fill=colours.text)
    for column, name in enumerate(grid.kinds):
        place = (left + (column + 0.5) * wide - GAP / 2, head - LABEL - 7)
        draw.text(place, name, font=fonts[1], fill=colours.muted, anchor="ma")
    for row, name in enumerate(grid.layers):
        if row % math.ceil(SMALL / high) == 0:
            place = (left - 8, head + (row + 0.5) * high - GAP / 2)
            draw.text(place, name, font=fonts[2], fill=colours.muted, anchor="rm")
    _cells(draw, grid, (left, head), (wide, high), colours)
    for row, column in np.argwhere(outlined).tolist():
        x, y = left + column * wide - GAP, head + row * high - GAP
        draw.rectangle((x, y, x + wide + GAP - 1, y + high + GAP - 1), outline=colours.needed, width=GAP)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _cells(
    draw: ImageDraw.ImageDraw, grid: _Grid, corner: tuple[int, int], size: tuple[int, int], colours: Palette
) -> None:
    """Draw a cell for each module, with its rank in it where there is room for it."""
    font = ImageFont.load_default(SMALL)
    most = max(1.0, float(np.nanmax(grid.values))) if np.isfinite(grid.values).any() else 1.0
    gap = GAP if min(size) > 3 * GAP else 0
    for (row, column), rank in np.ndenumerate(grid.values):
        if not math.isfinite(rank):
            continue
        x, y = corner[0] + column * size[0], corner[1] + row * size[1]
        fill = theme.shade(colours, rank / most)
        draw.rectangle((x, y, x + size[0] - 1 - gap, y + size[1] - 1 - gap), fill=fill, outline=colours.hairline)
        if size[0] >= WIDE // 2 and size[1] >= SMALL + 2:
            middle = (x + (size[0] - gap) / 2, y + (size[1] - gap) / 2)
            draw.text(middle, f"{rank:.0f}", font=font, fill=theme.ink_on(colours, fill), anchor="mm")


def _grid(modules: Sequence[ModuleRow], ranks: Sequence[float]) -> _Grid:
    """Return ranks by layer, those outside of the blocks last, and kind in order of appearance; equals are added."""
    labels = kind_labels([module.kind for module in modules])
    kinds = list(dict.fromkeys(labels[module.kind] for module in modules))
    numbers = sorted({module.layer for module in modules if module.layer is not None})
    layers = [*numbers, *([None] if any(module.layer is None for module in modules) else [])]
    values = np.full((len(layers), len(kinds)), np.nan)
    for module, rank in zip(modules, ranks, strict=True):
        place = layers.index(module.layer), kinds.index(labels[module.kind])
        values[place] = rank if math.isnan(values[place]) else values[place] + rank
    names = [OUTSIDE if layer is None else f"layer {layer}" for layer in layers]
    return _Grid(values, names, [one_line(kind, LONGEST) for kind in kinds])


def _cell(number: int, usual: int) -> int:
    """Return the pixels of a cell by the number of cells in its direction."""
    return max(2, min(usual, usual * MOST_CELLS // max(1, number)))
