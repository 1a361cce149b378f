"""The picture of an adapter's sizes, as the page Shrink and notebooks show it."""

from __future__ import annotations

from dynlora.store.compressions import Compressed, Size
from dynlora.viz.kit.picture import Picture
from dynlora.viz.kit.theme import Palette
from dynlora.viz.shrink import figures as shrink_figures
from dynlora.viz.shrink import model as shrink_model
from dynlora.viz.shrink import text as shrink_text


def curve(found: Compressed, size: Size, tolerance: float, colours: Palette) -> Picture:
    """Return the cost of every size, with that of the other ways to choose.

    Args:
        found: the sizes.
        size: the one that is marked.
        tolerance: nats that count as none, a line.
        colours: of the mode.
    """
    points, share = shrink_model.points(found), shrink_model.kept_share(found, size)
    return Picture(shrink_figures.curve(points, share, tolerance, colours), shrink_text.curve(found), points)
