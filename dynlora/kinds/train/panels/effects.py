"""How strongly each module's adapter acts on each input group, and what of it moves from one group to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynlora.analysis.capacity_frames import Grid, grid_of
from dynlora.analysis.inputs import InputsReading, inputs_of
from dynlora.analysis.module_effects import Moved, by_group
from dynlora.analysis.run_summary import loss_unit
from dynlora.text import listed, one_line, percent, plotly_text, spans
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

BY = "by"
"""What the reader groups the examples by, a key of `InputsReading.groupings`."""

PAIR = ("first", "second")
"""The two groups that the reader compares."""

ALL = "all examples"
MOST_NAMED = 3
"""Modules and groups that a sentence names."""

MOST_MAPS, IN_A_ROW = 12, 4
CELL, TITLE, TICKS = 24, 26, 22
"""Heights of a row of a map, of its title and of the numbers of its layers, pixels."""


@dataclass(frozen=True)
class GroupEffects:
    """The effect of each module by group, or its importance.

    Attributes:
        modules: those of the chosen kind and depth, as `analysis.frames.described` returns them.
        means: a row for each group, a column for each module as recorded.
        counts: examples of each group.
        step: of the adapter.
        moved: part of the effect that moves from one group to another; None without two groups, and of importance.
        unit: of the values; empty for a ratio.
    """

    modules: pd.DataFrame
    means: pd.DataFrame
    counts: Mapping[str, int]
    step: int
    moved: Moved | None = None
    unit: str = ""


def group_effects(view: RunView) -> GroupEffects | None:
    """Return what is drawn of a run; None where nothing was recorded or measured."""
    inputs = inputs_of(view.result)
    data = None if inputs.module_effects is None else _grouped(view, inputs, inputs.module_effects)
    if data is None:
        return None
    first, second = (view.chosen.get(name, "") for name in PAIR)
    pair = (first, second) if {first, second} <= set(data.counts) and first != second else None
    return replace(data, moved=inputs.moved(grouping(inputs, view.chosen.get(BY)), pair))


def _grouped(view: RunView, inputs: InputsReading, values: np.ndarray) -> GroupEffects | None:
    """Return values of each module on each example, (n_examples, n_modules), by group; None without modules."""
    if not len(inputs.modules):
        return None
    by = grouping(inputs, view.chosen.get(BY))
    groups = inputs.groupings[by] if by else [ALL] * len(values)
    counts = {group: groups.count(group) for group in sorted(set(groups), key=groups.index)}
    means = by_group(values, groups)
    if by == "group":
        order = [name for name in counts if name in inputs.groups["group"].tolist()]
        means = means.loc[[*sorted(order, key=inputs.groups["group"].tolist().index), *counts.keys() - order]]
    return GroupEffects(inputs.modules, means, counts, inputs.step)


def grouping(inputs: InputsReading, chosen: str | None) -> str:
    """Return what the examples are grouped by, the first that there is without a choice; empty for nothing."""
    return chosen if chosen in inputs.groupings else next(iter(inputs.groupings), "")


class EffectsByGroup(Panel[GroupEffects]):
    """A map of kinds and layers for each input group, all on one scale of colours."""

    id = "effects"
    order = 20
    part = "Inputs"
    title = "Effect by input group"
    about = "‖h − h₀‖ / ‖h₀‖ of a module's output with and without its adapter, mean over tokens and examples"
    missing = "The effect of each module is recorded from the first evaluation on; an older run can be measured."
    is_wide = True
    is_optional = True

    def data(self, view: RunView) -> GroupEffects | None:
        """Return the effects; None where they were neither recorded nor measured."""
        return group_effects(view)

    def caption(self, data: GroupEffects) -> str:
        """Return how much modules change their output, and which the most."""
        return how_strong(data)

    def table(self, data: GroupEffects) -> pd.DataFrame:
        """Return a row for each module, a column for each group."""
        values = data.means.to_numpy(float)[:, data.modules["position"].to_numpy(int)].T
        columns = [f"{group} (n = {data.counts[group]})" for group in data.means.index]
        frame = pd.DataFrame(values, columns=columns)
        frame.insert(0, "module", data.modules["name"].to_numpy(), allow_duplicates=True)
        return frame

    def figure(self, data: GroupEffects, colours: Palette) -> go.Figure:
        """Draw the maps, as many as fit."""
        return effect_maps(_titled(data), data.modules, colours)


class ImportanceByGroup(EffectsByGroup):
    """A map of kinds and layers for each input group: how much the group's loss would rise without each module."""

    id = "importance_by_group"
    order = 25
    title = "Importance of each module by input group"
    about = "−⟨∂L/∂h, h − h₀⟩: rise of a group's loss without a module, to first order"
    missing = "Importance by group is recorded at the last evaluation. Choose the last step, or train the run again."

    def data(self, view: RunView) -> GroupEffects | None:
        """Return the importance; None where it was not recorded."""
        inputs = inputs_of(view.result)
        importance = inputs.module_importance
        data = None if importance is None else _grouped(view, inputs, importance)
        return None if data is None else replace(data, unit=loss_unit(inputs.summary))

    def caption(self, data: GroupEffects) -> str:
        """Return which module each group needs most."""
        return needed_most(data)

    def figure(self, data: GroupEffects, colours: Palette) -> go.Figure:
        """Draw the maps; blue modules lower the loss of the group, orange ones raise it."""
        places = data.modules["position"].to_numpy(int)
        values = {title: one[places] for title, one in _titled(data).items()}
        return maps_around(0.0, values, data.modules, (f"Rise of the loss, {data.unit}", "+.4f"), colours)


class EffectShift(Panel[GroupEffects]):
    """Which modules take a larger part of the adapter's effect on one group than on another."""

    id = "effect_shift"
    order = 21
    part = "Inputs"
    title = "Difference of two groups"
    about = "Difference of each module's part of the adapter's effect, percentage points"
    missing = "There are no two groups of inputs to compare."
    is_optional = True

    def data(self, view: RunView) -> GroupEffects | None:
        """Return the effects; None without two groups."""
        data = group_effects(view)
        return data if data is not None and data.moved is not None else None

    def caption(self, data: GroupEffects) -> str:
        """Return how much moves, with its interval and its value without groups."""
        return f"{what_moves(data)} {evidence(data)}".strip()

    def table(self, data: GroupEffects) -> pd.DataFrame:
        """Return the difference of each module."""
        gain = np.zeros(0) if data.moved is None else data.moved.gain
        points = 100 * gain[data.modules["position"].to_numpy(int)]
        return pd.DataFrame({"module": data.modules["name"].to_numpy(), "percentage points": points})

    def figure(self, data: GroupEffects, colours: Palette) -> go.Figure:
        """Draw the difference; blue modules take more of the effect on the second group."""
        places = data.modules["position"].to_numpy(int)
        gain = np.zeros(1 + int(places.max())) if data.moved is None else data.moved.gain
        return map_around(0.0, 100 * gain[places], data.modules, ("Percentage points", "+.2f"), colours)


def _titled(data: GroupEffects) -> dict[str, np.ndarray]:
    """Return the values of each group by the title of its map, as many as fit."""
    values = zip(data.means.index[:MOST_MAPS], data.means.to_numpy(float), strict=False)
    return {f"{one_line(group, 28)}  n = {data.counts[group]}": of_group for group, of_group in values}


def needed_most(data: GroupEffects) -> str:
    """Say without which module the loss of each group would rise most, the largest rise first."""
    values = data.means.to_numpy(float)[:, data.modules["position"].to_numpy(int)]
    if not (values > 0).any():
        return f"No module lowers the loss of any group at step {data.step:,} (first-order estimate)."
    most, order = values.argmax(1), np.argsort(-values.max(1), kind="stable")
    parts = []
    for module in list(dict.fromkeys(most[order]))[:MOST_NAMED]:
        rows = [row for row in order if most[row] == module][:MOST_NAMED]
        groups = [f"{one_line(data.means.index[row], 40)} ({values[row, module]:+.3f} {data.unit})" for row in rows]
        parts.append(f"without {one_line(data.modules['short'].iloc[module], 40)} on {listed(groups)}")
    n = sum(data.counts[group] for group in data.means.index)
    return (
        f"The loss would rise most {listed(parts)} (first-order estimate, n = {n:,} probe examples, "
        f"step {data.step:,})."
    )


def how_strong(data: GroupEffects) -> str:
    """Say how much modules change their output on average, and which one the most."""
    values = data.means.to_numpy(float)[:, data.modules["position"].to_numpy(int)]
    if not np.isfinite(values).any():
        return "The effect of these modules is not known."
    weights = np.array([data.counts[group] for group in data.means.index], dtype=float)
    mean = pd.Series(weights @ np.nan_to_num(values) / weights.sum(), index=data.modules["short"])
    n = f"n = {int(weights.sum()):,} examples, step {data.step:,}."
    if not mean.any():
        return f"The adapters do not change the output of any module yet. {n}"
    left = len(data.means) - MOST_MAPS
    more = f" The first {MOST_MAPS} of {len(data.means)} groups are drawn." if left > 0 else ""
    return (
        f"Mean change of a module's output: {percent(float(mean.mean()))}, largest in "
        f"{one_line(mean.idxmax(), 40)} ({percent(float(mean.max()))}). {n}{more}"
    )


def what_moves(data: GroupEffects) -> str:
    """Say how much of the effect moves between two groups, and to which modules."""
    moved = data.moved
    if moved is None:
        return how_strong(data)
    first, second = one_line(moved.first, 40), one_line(moved.second, 40)
    share = percent(moved.share, 0 if moved.share >= 0.1 else 1)
    if not moved.is_beyond_chance:
        return f"The adapter acts alike on {first} and {second}: {share} of its effect moves, no more than by chance."
    place = _place(moved, data.modules)
    return (
        f"From {first} to {second}, {share} of the adapter's effect moves{f', most of it to {place}' if place else ''}."
    )


def evidence(data: GroupEffects) -> str:
    """Return the interval of what moves, what would move without groups, and the examples; empty without groups."""
    moved = data.moved
    if moved is None:
        return ""
    digits = 0 if moved.share >= 0.1 else 1
    ends = f"{100 * moved.low:.{digits}f} to {percent(moved.high, digits)}"
    chance = percent(moved.shuffled, digits)
    return f"95 % CI {ends}; shuffled groups up to {chance} (n = {moved.n[0]} and {moved.n[1]})."


def _place(moved: Moved, modules: pd.DataFrame) -> str:
    """Return the kinds and the layers that gain most of what moves, in words; empty where no two kinds do."""
    gain = modules.assign(gain=np.maximum(moved.gain, 0)[modules["position"].to_numpy(int)])
    whole = float(gain["gain"].sum())
    by_kind = gain.groupby("label", sort=False)["gain"].sum().sort_values(ascending=False, kind="stable")
    kinds = by_kind.index[: 1 if by_kind.iloc[0] > whole / 2 else 2].tolist()
    if not whole or by_kind[kinds].sum() < whole / 2:
        return ""
    part = gain[gain["label"].isin(kinds)]
    by_layer = part.dropna(subset=["layer"]).groupby("layer")["gain"].sum().sort_values(ascending=False, kind="stable")
    reached = int((by_layer.cumsum() < 0.6 * part["gain"].sum()).sum()) + 1
    names = listed([one_line(kind, 24) for kind in kinds])
    if 2 * reached > max(by_layer.size, 1) or not len(by_layer):
        return names
    layers = by_layer.index[:reached].astype(int)
    return f"{names} of layer{'s' if reached > 1 else ''} {spans(layers)}"


def effect_maps(effects: Mapping[str, np.ndarray], modules: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw how strongly each module acts, maps of kinds and layers on one scale.

    Args:
        effects: of each module as recorded, (n_modules,), by the title of its map.
        modules: as `analysis.frames.described` returns them.
        colours: of the mode.
    """
    grid, places = grid_of(modules), modules["position"].to_numpy(int)
    cells = {title: grid.of(values[places]) for title, values in effects.items()}
    most = np.nan_to_num(list(cells.values())).max()
    scale = {"colorscale": colours.sequential_scale, "cmin": 0, "cmax": most if most > 0 else 1.0}
    return layer_maps(grid, cells, scale, "Relative change", ".3f", colours)


LEAST_REACH = 1e-9
"""Distance from the centre that has the strongest colour, at least."""


def map_around(
    centre: float, values: np.ndarray, modules: pd.DataFrame, unit: tuple[str, str], colours: Palette
) -> go.Figure:
    """Draw one map as `maps_around` does, without a title."""
    return maps_around(centre, {"": values}, modules, unit, colours)


def maps_around(
    centre: float, values: Mapping[str, np.ndarray], modules: pd.DataFrame, unit: tuple[str, str], colours: Palette
) -> go.Figure:
    """Draw maps of kinds and layers on one scale, in one colour below a centre and in another above it.

    Args:
        centre: value without colour.
        values: of each module, in the order of `modules`, (n_modules,), by the title of its map.
        modules: as `analysis.frames.described` returns them.
        unit: of the values, and the format of one.
        colours: of the mode.
    """
    grid = grid_of(modules)
    cells = {title: grid.of(one) for title, one in values.items()}
    reach = max(float(np.abs(np.nan_to_num(np.array(list(cells.values())) - centre)).max()), LEAST_REACH)
    scale = {"colorscale": colours.diverging_scale, "cmin": centre - reach, "cmax": centre + reach}
    return layer_maps(grid, cells, scale, *unit, colours)


def layer_maps(
    grid: Grid, cells: Mapping[str, np.ndarray], scale: Mapping[str, object], unit: str, digits: str, colours: Palette
) -> go.Figure:
    """Draw maps of kinds by layers side by side, all on one scale.

    Args:
        grid: kinds and layers of the maps.
        cells: values as `Grid.of` returns them, (kinds, layers), by title.
        scale: of plotly's colour axis.
        unit: of the values, for the bar.
        digits: format of a value.
        colours: of the mode.
    """
    columns = min(IN_A_ROW, len(cells))
    rows = -(-len(cells) // columns)
    titles = [plotly_text(title, 40) for title in cells]
    between = TICKS + (TITLE if any(titles) else 0)
    high = rows * (CELL * len(grid.kinds) + between)
    drawn = make_subplots(
        rows,
        columns,
        subplot_titles=titles,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=between / high if rows > 1 else 0,
        figure=theme.figure(colours, high, left=72),
    )
    names = [plotly_text(kind, 18) for kind in grid.kinds]
    for place, (title, values) in enumerate(zip(titles, cells.values(), strict=True)):
        row, column = divmod(place, columns)
        drawn.add_heatmap(
            z=values,
            x=grid.layers,
            y=names,
            xgap=2,
            ygap=2,
            coloraxis="coloraxis",
            hoverongaps=False,
            hovertemplate=f"%{{y}}, layer %{{x}}<br>%{{z:{digits}}}<extra>{title}</extra>",
            row=row + 1,
            col=column + 1,
        )
    look = {**theme.axis(colours), "showgrid": False, "type": "category"}
    drawn.update_xaxes(**look, nticks=8).update_yaxes(**look, autorange="reversed")
    drawn.update_annotations(font={"size": 12, "color": colours.text})
    drawn.update_layout(margin={"t": TITLE, "b": TICKS})
    drawn.update_layout(coloraxis={**scale, "colorbar": theme.colour_bar(unit, colours, nticks=5)})
    return drawn
