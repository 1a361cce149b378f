"""Modules over the steps: the model as at most sixty pictures that play, and one module as a line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import capacity_frames, run_reading
from dynlora.analysis.frames import at_highest
from dynlora.analysis.planted_ranks import needed_modules, outlined
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.text import listed, one_line, plotly_text, plural, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import NEEDED
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette

MOST_FRAMES = 60
"""Pictures a replay holds; the chosen step is always one of them."""


@dataclass(frozen=True)
class Look:
    """What a replay shows beside ranks and importance.

    Attributes:
        step: the chosen step; the last frame at or before it is shown first.
        uniform: rank of uniform LoRA, a dashed line in every block; None for none.
        marked: name of the module to mark; None for none.
        about: what the picture says, for those who cannot see it.
        needed: names of the modules to outline.
        version: differs when anything that is drawn differs; the element then redraws.
    """

    step: int
    uniform: int | None
    marked: str | None
    about: str
    version: str
    needed: Collection[str] = ()


@dataclass(frozen=True)
class ModelOverSteps:
    """The model at some of the chosen steps.

    Attributes:
        run: what is chosen of the run.
        state: of the modules at the chosen step.
        ranks: one row per module as recorded, one column per step.
        importance: the same; no columns when none was recorded.
    """

    run: RunReading
    state: pd.DataFrame
    ranks: pd.DataFrame
    importance: pd.DataFrame


class ModelReplay(CapacityPanel[ModelOverSteps]):
    """The model as a picture that plays, on pages and in notebooks; a document has no player."""

    id = "replay"
    card = "picture"
    order = 2
    title = "Rank and importance in the model"
    missing = "No ranks have been recorded yet."
    element = "replay"
    width = 3
    is_live = True

    def data(self, view: RunView) -> ModelOverSteps:
        """Return ranks and importance at up to `MOST_FRAMES` steps."""
        run: RunReading = view.result
        return ModelOverSteps(run, run.state, _frames_of(run, "rank"), _frames_of(run, "importance"))

    def caption(self, data: ModelOverSteps) -> str:
        """Explain the marks, and name the widest module."""
        summary = data.run.summary
        return f"{picture(data.state, run_reading.uniform_rank(summary))} {outlined(summary)}".rstrip()

    def table(self, data: ModelOverSteps) -> pd.DataFrame:
        """Return the modules at the chosen step."""
        return capacity_frames.state_table(data.state)

    def element_values(self, data: ModelOverSteps, colours: Palette) -> dict[str, Any]:
        """Return what the player draws, as `frames` does."""
        run = data.run
        store = run.store.version(run.folder)  # runs of one length and schedule have the same one
        version = repr(
            (run.folder.name, store, run.first, run.last, run.step, run.module, run.kind, run.depth, colours.mode)
        )
        needed, uniform = needed_modules(run.summary), run_reading.uniform_rank(run.summary)
        look = Look(run.step, uniform, run.module, self.caption(data), version, needed)
        return frames(run.selected, data.ranks, data.importance, look, colours)


def _frames_of(run: RunReading, signal: str) -> pd.DataFrame:
    """Return a signal at no more than `MOST_FRAMES` of the chosen steps, the chosen step among them."""
    if signal not in run.signals:
        return pd.DataFrame()
    frame = run.heat(signal, MOST_FRAMES - 1).frame
    values = run.values(signal, run.step)
    if values is None or run.step in frame.columns:
        return frame
    return frame.assign(**{"chosen": values}).rename(columns={"chosen": run.step}).sort_index(axis=1)


def picture(state: pd.DataFrame, uniform: int | None) -> str:
    """Explain the marks of the model picture, and name the widest module."""
    order = listed([one_line(label, 24) for label in dict.fromkeys(state.sort_values("position")["label"])], limit=12)
    widest = state.loc[at_highest(state["rank"])] if len(state) else None
    tick = f" Dashed line: uniform rank {uniform}." if uniform else ""
    most = ""
    if widest is not None:
        n = int((state["rank"] == widest["rank"]).sum())
        where = one_line(widest["short"], 40) if n == 1 else plural(n, "module")
        most = f" Highest rank: {int(widest['rank'])} in {where}."
    return f"Bar length: rank. Colour: importance.{tick}{most} Each block from top to bottom: {order}."


def frames(
    modules: pd.DataFrame, ranks: pd.DataFrame, importance: pd.DataFrame, look: Look, colours: Palette
) -> dict[str, Any]:
    """Return what the replay element draws, as plain values.

    Args:
        modules: as `capacity.described` returns them.
        ranks: one row per module as recorded, one column per step.
        importance: the same; no columns when none was recorded.
        look: what else is shown.
        colours: of the mode.
    """
    rows = modules.sort_values(["layer", "position"], ascending=[False, True], na_position="first")
    steps = [int(value) for value in ranks.columns]
    rank = np.nan_to_num(ranks.to_numpy(float)[rows["position"]].T)
    widest = max(float(rank.max()) if rank.size else 0.0, float(look.uniform or 0), 1.0)
    return {
        "steps": steps,
        "frame": _place(steps, look.step),
        "rank": rank.astype(int).tolist(),
        "shade": _shades(importance, steps, rows["position"]),
        "modules": [
            {
                "short": one_line(short, 60),
                "name": one_line(name),
                "marked": name == look.marked,
                "needed": name in look.needed,
                "position": int(at),
            }
            for short, name, at in zip(rows["short"], rows["name"], rows["position"], strict=True)
        ],
        "blocks": _blocks(rows["layer"]),
        "outlined": NEEDED if rows["name"].isin(look.needed).any() else "",
        "uniform": look.uniform,
        "limit": widest * 1.04,
        "ticks": _ticks(widest),
        "about": look.about,
        "version": look.version,
        "colours": {
            "scale": list(colours.sequential),
            "sunken": colours.sunken,
            "hairline": colours.hairline,
            "muted": colours.muted,
            "mode": colours.mode,
            "mark": colours.second,
            "needed": colours.needed,
            "panel": colours.panel,
        },
    }


def _place(steps: Sequence[int], step: int) -> int:
    """Return the position of the last of `steps` at or before `step`."""
    return max(0, int(np.searchsorted(steps, step, side="right")) - 1)


def _shades(importance: pd.DataFrame, steps: Sequence[int], order: pd.Series) -> list[list[float | None]]:
    """Return each module's importance as a share of the highest of its step, by frame; None where there is none."""
    if not importance.shape[1]:
        return [[None] * len(order) for _ in steps]
    known = [int(value) for value in importance.columns]
    values = importance.to_numpy(float)[order][:, [_place(known, step) for step in steps]].T
    highest = np.nanmax(np.where(np.isfinite(values), values, 0.0), axis=1, keepdims=True)
    share = np.divide(values, highest, out=np.full_like(values, np.nan), where=highest > 0)
    rounded = np.round(np.clip(share, 0, 1), 3)
    return np.where(np.isfinite(rounded), rounded, np.array(None)).tolist()


def _blocks(layers: pd.Series) -> list[dict[str, Any]]:
    """Return the blocks from the top: label and number of modules."""
    names = ["outside" if pd.isna(layer) else f"layer {layer}" for layer in layers]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return [{"label": name, "count": count} for name, count in counts.items()]


def _ticks(widest: float) -> list[int]:
    """Return at most six whole numbers from 0 to the widest rank."""
    distance = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 10_000) if widest / step <= 5)
    return list(range(0, int(widest) + 1, distance))


@dataclass(frozen=True)
class ModuleSeries:
    """A signal of the module that is followed: columns step and value.

    Attributes:
        run: what is chosen of the run.
        module: its name.
        unit: of the signal.
        numbers: the values.
    """

    run: RunReading
    module: str
    unit: str
    numbers: pd.DataFrame


class ModuleOverSteps(CapacityPanel[ModuleSeries]):
    """One module's row of the map as a line."""

    id = "module"
    order = 3
    title = "Module over time"
    missing = "Choose a module to see it over the steps."
    is_wide = True
    is_live = True

    def applies(self, view: RunView) -> bool:
        """Say whether a module is followed."""
        return super().applies(view) and view.result.module is not None

    def heading(self, view: RunView) -> str:
        """Return module and signal."""
        run: RunReading = view.result
        return f"{run.short[run.module or '']}: {one_line(run.about.word, 60)} over time"

    def data(self, view: RunView) -> ModuleSeries | None:
        """Return the series of the module that is followed; None for no module."""
        run: RunReading = view.result
        if run.module is None:
            return None
        heat = run.heat(run.signal)
        series = capacity_frames.one_module(heat.frame, run.modules, run.module)
        return ModuleSeries(run, run.module, heat.unit, series)

    def caption(self, data: ModuleSeries) -> str:
        """Return the full name of the module."""
        return f"{data.run.short[data.module]} is the module {data.module}."

    def figure(self, data: ModuleSeries, colours: Palette) -> go.Figure:
        """Draw the line."""
        return module_lines(data.numbers, data.run.about.word, data.unit, data.run.step, colours)


def module_lines(series: pd.DataFrame, title: str, unit: str, step: int | None, colours: Palette) -> go.Figure:
    """Draw one module's signal over the steps; `series` holds step and value."""
    drawn = theme.figure(colours, 190)
    drawn.add_scatter(
        x=series["step"],
        y=series["value"],
        mode="lines",
        line={"color": colours.accent, "width": 1.8, "shape": "hv"},
        hovertemplate=f"step %{{x}}<br>{plotly_text(title)} %{{y:.4~g}}<extra></extra>",
    )
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(
        title_text=plotly_text(sentence_case(f"{title} ({unit})" if unit else title)), rangemode="tozero"
    )
    if step is not None:
        drawn.add_vline(x=step, line={"color": colours.text, "width": 1.2})
    return drawn
