"""Modules over the steps: the model as at most sixty pictures that play and speak, and one module as a line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import capacity_frames
from dynlora.analysis.capacity_frames import grid_of, scale_end, step_shares
from dynlora.analysis.frames import at_highest
from dynlora.analysis.planted_ranks import needed_modules, outlined
from dynlora.analysis.run_reading import RunReading, uniform_rank
from dynlora.analysis.run_summary import ACTIVE
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.store.meta import section
from dynlora.store.summary import RunSummary
from dynlora.text import number, one_line, plotly_text, plural, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import NEEDED
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette

MOST_FRAMES = 60
"""Pictures a replay holds; the first and the chosen step are always among them."""


@dataclass(frozen=True)
class Look:
    """What a replay shows beside ranks and importance.

    Attributes:
        step: the chosen step; the last frame at or before it is shown first.
        uniform: rank of uniform LoRA, half of the scale; None where it is not known.
        marked: name of the module to mark; None for none.
        about: what the picture says, for those who cannot see it.
        needed: names of the modules to outline.
        version: differs when anything that is drawn differs; the element then redraws.
        quantity: that is shown first, `rank` or `importance`.
    """

    step: int
    uniform: int | None
    marked: str | None
    about: str
    version: str
    needed: Collection[str] = ()
    quantity: str = "rank"


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
    title = "The model at a step"
    missing = "No ranks have been recorded yet."
    element = "replay"
    width = 3
    is_live = True

    def data(self, view: RunView) -> ModelOverSteps:
        """Return ranks and importance at up to `MOST_FRAMES` steps."""
        run: RunReading = view.result
        return ModelOverSteps(run, run.state, _frames_of(run, "rank"), _frames_of(run, "importance"))

    def caption(self, data: ModelOverSteps) -> str:
        """Name the module of the highest rank or importance, and explain the numbers."""
        return f"{picture(data.state, data.run.signal)} {outlined(data.run.summary)}".rstrip()

    def table(self, data: ModelOverSteps) -> pd.DataFrame:
        """Return the modules at the chosen step."""
        return capacity_frames.state_table(data.state)

    def element_values(self, data: ModelOverSteps, colours: Palette) -> dict[str, Any]:
        """Return what the player draws, as `frames` does."""
        run = data.run
        quantity = "importance" if run.signal == "importance" else "rank"
        store = run.store.version(run.folder)  # runs of one length and schedule have the same one
        chosen = (run.first, run.last, run.step, run.module, run.kind, run.depth, quantity)
        version = repr((run.folder.name, store, *chosen, colours.mode))
        needed, uniform = needed_modules(run.summary), uniform_rank(run.summary)
        look = Look(run.step, uniform, run.module, self.caption(data), version, needed, quantity)
        return frames(run.selected, data.ranks, step_shares(data.importance), look, colours)


def _frames_of(run: RunReading, signal: str) -> pd.DataFrame:
    """Return a signal at no more than `MOST_FRAMES` of the chosen steps, the first and the chosen one among them."""
    if signal not in run.signals:
        return pd.DataFrame()
    frame = run.heat(signal, MOST_FRAMES - 2).frame
    for step in {run.first, run.step} - set(frame.columns):
        values = run.values(signal, step)
        if values is not None:
            frame = frame.assign(**{"added": values}).rename(columns={"added": step})
    return frame.sort_index(axis=1)


def picture(state: pd.DataFrame, signal: str) -> str:
    """Name the module of the highest rank, or importance where that is chosen, and explain the model picture."""
    words = "A cell is a module: its rank, its importance in percent of the step, or its change since the start."
    if state.empty:
        return words
    if signal == "importance" and state["importance_share"].max() > 0:
        first = state.loc[at_highest(state["importance_share"])]
        return f"Highest importance: {first['importance_share']:.0f} % in {one_line(first['short'], 40)}. {words}"
    widest = state.loc[at_highest(state["rank"])]
    n = int((state["rank"] == widest["rank"]).sum())
    where = one_line(widest["short"], 40) if n == 1 else plural(n, "module")
    return f"Highest rank: {int(widest['rank'])} in {where}. {words}"


def frames(
    modules: pd.DataFrame, ranks: pd.DataFrame, shares: pd.DataFrame, look: Look, colours: Palette
) -> dict[str, Any]:
    """Return what the replay element draws, as plain values.

    Args:
        modules: as `capacity.described` returns them.
        ranks: one row per module as recorded, one column per step.
        shares: importance in percent of its step, the same; no columns when none was recorded.
        look: what else is shown.
        colours: of the mode.
    """
    steps, grid = [int(value) for value in ranks.columns], grid_of(modules)
    rank = np.nan_to_num(ranks.to_numpy(float)[modules["position"]].T)
    widest = max(float(rank.max()) if rank.size else 0.0, 1.0)
    end = scale_end("rank", look.uniform, len(ranks)) or widest
    return {
        "steps": steps,
        "frame": _place(steps, look.step),
        "rank": rank.astype(int).tolist(),
        "share": _shares(shares, steps, modules["position"]),
        "modules": [
            {
                "short": one_line(short, 60),
                "name": one_line(name),
                "marked": name == look.marked,
                "needed": name in look.needed,
                "position": int(at),
                "row": int(row),
                "column": int(column),
            }
            for short, name, at, row, column in zip(
                modules["short"], modules["name"], modules["position"], grid.rows, grid.columns, strict=True
            )
        ],
        "kinds": [one_line(kind, 14) for kind in grid.kinds],
        "layers": grid.layers,
        "outlined": NEEDED if modules["name"].isin(look.needed).any() else "",
        "uniform": look.uniform,
        "ends": {"rank": end, "importance": scale_end("importance", None, len(ranks)), "change": end / 2},
        "quantity": look.quantity if shares.shape[1] else "rank",
        "about": look.about,
        "version": look.version,
        "colours": {
            "rank": list(colours.sequential),
            "importance": list(colours.score),
            "change": list(colours.diverging),
            "sunken": colours.sunken,
            "hairline": colours.hairline,
            "text": colours.text,
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


def _shares(shares: pd.DataFrame, steps: Sequence[int], order: pd.Series) -> list[list[float | None]]:
    """Return each module's share of the importance by frame; None where there is none."""
    if not shares.shape[1]:
        return [[None] * len(order) for _ in steps]
    known = [int(value) for value in shares.columns]
    rounded = np.round(shares.to_numpy(float)[order][:, [_place(known, step) for step in steps]].T, 2)
    return np.where(np.isfinite(rounded), rounded, np.array(None)).tolist()


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


MOST_MOVES = 3
"""Frames at which the picture stops to say which module gives rank and which one gets it."""


def speech(values: Mapping[str, Any], run: RunReading) -> dict[str, Any]:
    """Return what the player says, as plain values to add to those that it draws.

    They are `cues`, in the order of their frames: each has a frame, the rows that it points at, and a sentence for each
    row. A cue of a move points first at the module that lost most rank since the frame before, then at the one that won
    most, or after a cut has most. `due` says for each frame when rank moves next.

    Args:
        values: as `ModelReplay.element_values` returns them.
        run: the run that is drawn.
    """
    ranks, names = np.array(values["rank"]), [module["short"] for module in values["modules"]]
    if not ranks.size:
        return {"cues": [], "due": []}
    cues = [*_introduction(values, names, run.summary), *_moves(ranks, names)]
    if run.summary.status not in ACTIVE:
        cues.append(_end(ranks, names))
    cues.sort(key=lambda cue: cue["frame"])
    return {"cues": cues, "due": [due(run, step) for step in values["steps"]]}


def _cue(frame: int, *pointed: tuple[int, str]) -> dict[str, Any]:
    return {"frame": frame, "rows": [row for row, _ in pointed], "words": [words for _, words in pointed]}


def _introduction(values: Mapping[str, Any], names: Sequence[str], summary: RunSummary) -> list[dict[str, Any]]:
    """Return what a cell and the budget are."""
    middle, budget = len(names) // 2, summary.params.get("budget")
    cell = f"A cell is one module, here {names[middle]}. Its number is its rank: how much its update can learn."
    cues = [_cue(0, (middle, cell))]
    if isinstance(budget, int):
        total = plural(int(sum(values["rank"][0])), "rank")
        is_wide = sum(values["rank"][0]) > (uniform_rank(summary) or np.inf) * len(names)
        start = (
            f" Training starts above it, with {total}, and is cut to it."
            if is_wide
            else f", at the start {total}. It never grows."
        )
        shared = f"All cells share one budget: {number(budget)} parameters{'.' if is_wide else ''}{start}"
        cues.append(_cue(0, (0, shared)))
    return cues


def _moves(ranks: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the frames in which most rank moved or was cut: the module that lost most, and the one that won most.

    A move that was made before, of as much rank between the same two, is not told again.
    """
    changes = np.diff(ranks, axis=0)
    won, lost = (np.clip(sign * changes, 0, None).sum(axis=1) for sign in (1, -1))
    size = np.where(won > 0, np.minimum(won, lost), lost)
    largest = [int(frame) for frame in np.argsort(-size, kind="stable") if size[frame]]
    distinct: dict[tuple[str, ...], dict[str, Any]] = {}
    for frame in largest:
        move = (_move if won[frame] else _cut)(frame + 1, changes[frame], names, ranks[frame + 1])
        distinct.setdefault(tuple(move["words"]), move)
    return sorted(list(distinct.values())[:MOST_MOVES], key=lambda move: move["frame"])


def _cut(frame: int, change: np.ndarray, names: Sequence[str], ranks: np.ndarray) -> dict[str, Any]:
    """Return a cut, in which no module wins: the module that loses most, and the one that has most after it."""
    loser, keeper = int(change.argmin()), int(ranks.argmax())
    cut = f"A cut removes {plural(-int(change.sum()), 'rank')}, {-int(change[loser])} of them in {names[loser]}"
    return _cue(frame, (loser, cut), (keeper, f"{names[keeper]} has {plural(int(ranks[keeper]), 'rank')} now"))


def _move(frame: int, change: np.ndarray, names: Sequence[str], _ranks: np.ndarray) -> dict[str, Any]:
    giver, taker = int(change.argmin()), int(change.argmax())
    given, taken = plural(-int(change[giver]), "rank"), plural(int(change[taker]), "rank")
    return _cue(frame, (giver, f"{names[giver]} gives {given}"), (taker, f"{names[taker]} gets {taken}"))


def _end(ranks: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return where rank ended."""
    last = ranks[-1]
    most, least = int(last.argmax()), int(last.argmin())
    words = f"At the end {names[most]} has rank {last[most]} and {names[least]} rank {last[least]}, within the budget."
    return _cue(len(ranks) - 1, (most, words))


def due(run: RunReading, step: int) -> str:
    """Say after which step rank moves next; empty where the run plans no move, or does not say when.

    A run that trains moves at even distances, as many times as it planned: two moves give the distance.
    """
    done = [event for event in _event_steps(run) if event <= step]
    later = next((event for event in _event_steps(run) if event > step), None)
    planned, first = run.summary.planned_events, run.summary.first_reallocation
    if later is None and run.summary.status in ACTIVE and isinstance(planned, int) and len(done) < planned:
        apart = section(run.summary.config, "strategy").get("allocate_every")
        apart = apart if isinstance(apart, int) else done[-1] - done[-2] if len(done) > 1 else None
        later = first if not done else None if apart is None else done[-1] + apart
    if later is not None:
        return f"next reallocation: step {later:,}"
    return "no reallocation left" if done and len(done) >= (planned or 0) else ""


def _event_steps(run: RunReading) -> list[int]:
    """Return the steps of all reallocations, those that moved nothing among them."""
    return sorted({int(step) for step in run.events["step"]})
