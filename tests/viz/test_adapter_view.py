"""An adapter without a run as frames, figures and sentences, also when its names are hostile."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import adapter_frames
from dynlora.peft_adapter import AdaptedModule, Adapter, read_adapter
from dynlora.viz import adapter as adapter_figures
from dynlora.viz.kit import theme
from tests.peft_adapter.files import small_adapter
from tests.viz.drawn import layout_of

HOSTILE = "<img src=x>$x$%{y}"


def module(name: str, layer: int | None, kind: str, values: tuple[float, ...], norm: float | None) -> AdaptedModule:
    return AdaptedModule(name, layer, kind, 8, 8, len(values), len(values), 2.0, norm, 1.0 if norm else None, values)


def odd() -> Adapter:
    """An adapter with hostile names, a module outside of the blocks, an empty one and one that is not finite."""
    modules = (
        module(f"l.0.{HOSTILE}", 0, HOSTILE, (3.0, 1.0), 10**0.5),
        module(f"l.11.{HOSTILE}", 11, HOSTILE, (2.0,), 2.0),
        module(HOSTILE, None, HOSTILE + "head", (), 0.0),
        module("l.1.q", 1, "q", (), None),
    )
    return Adapter("LORA", HOSTILE, modules, 12, ())


def test_frames(tmp_path: Path) -> None:
    modules = adapter_frames.described(read_adapter(small_adapter(tmp_path)))
    assert modules["short"].tolist()[:3] == ["query 0", "query 1", "query 2"]
    assert float(modules["share"].to_numpy(float).sum()) == pytest.approx(100)
    grid = adapter_frames.over_depth(modules, "rank")
    assert grid.index.tolist() == ["query", "ff out"]
    assert grid.columns.tolist() == ["0", "1", "2"]
    assert grid.loc["ff out"].to_numpy().tolist() == [2, 3, 4]
    values = adapter_frames.spectra(modules)
    assert values.shape == (6, 4)
    assert np.isnan(values.to_numpy()[0, 1:]).all()
    assert len(adapter_frames.spectra_table(modules)) == int(modules["rank"].sum())
    assert "squared norm (% of total)" in adapter_frames.table(modules)


def test_layers_are_in_order_and_what_lies_outside_comes_last() -> None:
    grid = adapter_frames.over_depth(adapter_frames.described(odd()), "norm")
    assert grid.columns.tolist() == ["0", "1", "11", "outside"]


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_figures_hold_text_and_colours_of_the_theme_only(colours: theme.Palette) -> None:
    modules = adapter_frames.described(odd())
    grid, values = adapter_frames.over_depth(modules, "norm"), adapter_frames.spectra(modules)
    drawn = [
        adapter_figures.depth_map(grid, "norm", "Frobenius norm", colours),
        adapter_figures.norm_lines(grid, colours),
        adapter_figures.spectra_map(values, modules, colours),
    ]
    allowed = set(re.findall(r"#[0-9A-F]{6}", str(colours))) | set(theme.CATEGORICAL)
    for figure in drawn:
        figure_json = json.loads(str(figure.to_json()))
        figure_json["layout"].pop("template", None)
        text = json.dumps(figure_json, ensure_ascii=False)
        assert "<img" not in text
        assert "$x" not in text
        assert set(re.findall(r'"(#[0-9A-Fa-f]{6})"', text)) <= allowed
        assert layout_of(figure).xaxis.title.text


def test_a_large_adapter_is_drawn_in_part() -> None:
    modules = tuple(module(f"l.{i}.q", i, "q", (1.0,) * 300, 300**0.5) for i in range(450))
    frame = adapter_frames.described(Adapter("LORA", "", modules, 0, ()))
    values = adapter_frames.spectra(frame)
    assert values.shape == (adapter_frames.MOST_ROWS, adapter_frames.MOST_COMPONENTS)
    assert layout_of(adapter_figures.spectra_map(values, frame, theme.LIGHT)).height <= 900
    grid = adapter_frames.over_depth(frame, "rank")
    assert isinstance(grid, pd.DataFrame)
    assert not layout_of(adapter_figures.depth_map(grid, "rank", "components", theme.LIGHT)).annotations
