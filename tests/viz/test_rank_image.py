"""The ranks of a model as a PNG: a cell for each module in the colours of the theme, whatever the model's size."""

from __future__ import annotations

import io
import math
from itertools import product

import pytest
from PIL import Image

from dynlora.store.rows import ModuleRow
from dynlora.viz.kit import theme
from dynlora.viz.kit.rank_picture import rank_image

KINDS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


def modules(layers: int) -> list[ModuleRow]:
    return [ModuleRow(f"layers.{n}.{kind}", n, kind, 8, 8, 8) for n, kind in product(range(layers), KINDS)]


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def colours(image: Image.Image) -> set[str]:
    return {"#{:02X}{:02X}{:02X}".format(*colour) for _, colour in image.getcolors(2**24) or []}  # pyright: ignore


def test_each_rank_has_its_colour_of_the_scale() -> None:
    image = opened(rank_image(modules(2), [0, 1, 2, 3, 4, 8], "Rank of each module after step 3"))
    expected = {theme.shade(theme.LIGHT, rank / 8).upper() for rank in (0, 1, 2, 3, 4, 8)}
    assert expected <= colours(image)
    assert theme.LIGHT.panel in colours(image)
    assert image.getpixel((image.width - 1, image.height - 1)) == (255, 255, 255)


def test_it_is_small_and_the_same_each_time() -> None:
    ranks = [float(n % 9) for n in range(36)]
    assert rank_image(modules(12), ranks, "x") == rank_image(modules(12), ranks, "x")
    assert len(rank_image(modules(12), ranks, "x")) < 40_000


@pytest.mark.parametrize(("layers", "ranks"), [(0, []), (1, [math.nan] * 3), (1, [0.0] * 3), (400, [1.0] * 1200)])
def test_any_model_can_be_drawn(layers: int, ranks: list[float]) -> None:
    image = opened(rank_image(modules(layers), ranks, ""))
    assert 0 < image.height < 3000


def test_the_cells_that_need_rank_are_outlined() -> None:
    rows = modules(2)
    plain, drawn = (opened(rank_image(rows, [1.0] * 6, "x", needed=needed)) for needed in ((), {rows[4].name}))
    assert theme.LIGHT.needed not in colours(plain)
    assert theme.LIGHT.needed in colours(drawn)
    assert drawn.size == plain.size
