"""The components of modules: what a method records of each, their factors, and which became a copy of which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.run_reading import About, RunReading, own, recorded_over
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.kinds.train.panels.capacity import choices_at
from dynlora.kinds.train.panels.decisions import edits_of
from dynlora.store.summary import RunSummary
from dynlora.text import minus, number, one_line, plotly_text, plural, spans
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import (
    MapView,
    colour_of,
    frame_module,
    label_rows,
    map_height,
    modules_of_cells,
    row_edges,
    row_look,
    with_gaps,
)
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette

FACTOR = "factor"
"""The signal over components: e, what each component's part of the update is multiplied by."""

COPY = "copy"
"""The kind of edit that puts a copy of one component into the slot of another."""


MOST_SIGNALS = 4
"""Signals over components that are drawn at most."""

MOST_ARROWS = 200
"""Copies that get an arrow; beyond that they would be a thicket."""

FEW = 16
"""Most components that all have their number at the axis."""


@dataclass(frozen=True)
class ComponentSignal:
    """A signal over components.

    Attributes:
        run: what is chosen of the run.
        name: of the signal.
        about: what is said of it.
        whole: of all components over all steps; the colours reach over it.
    """

    run: RunReading
    name: str
    about: About
    whole: pd.DataFrame

    @property
    def is_factor(self) -> bool:
        """Whether it is what each component is multiplied by."""
        return self.name == FACTOR

    @property
    def look(self) -> MapView:
        """What its maps show beside the values."""
        run, about = self.run, self.about
        unit = f"{about.word} ({about.unit})" if about.unit else about.word
        middle = centre(self.whole, about, is_factor=self.is_factor)
        return MapView(about.word, unit, run.step, run.module, centre=middle, choices=about.choices)

    @property
    def values(self) -> pd.DataFrame:
        """The values at the chosen step, as `by_module` returns them."""
        values = self.run.values(self.name, self.run.step)
        return pd.DataFrame() if values is None else by_module(values, self.run.modules)


class ComponentPanel(CapacityPanel[ComponentSignal]):
    """A figure of each signal that the method records of components."""

    missing = "The method of this run records nothing of single components."

    def applies(self, view: RunView) -> bool:
        """Say whether a signal over components was recorded."""
        return super().applies(view) and len(self.views(view)) > 0

    def views(self, view: RunView) -> Mapping[str, RunView]:
        """Return a view for each signal over components."""
        names = _recorded(view.result)
        views = {
            f"-{place}": replace(view, chosen={**view.chosen, "components": name}) for place, name in enumerate(names)
        }
        return {key: one for key, one in views.items() if self.data(one) is not None}

    def data(self, view: RunView) -> ComponentSignal | None:
        """Return the chosen signal, the first without a choice; None where it was not recorded."""
        run: RunReading = view.result
        signals = _recorded(run)
        name = view.chosen.get("components", next(iter(signals), ""))
        if name not in signals:
            return None
        signal = ComponentSignal(run, name, signals[name], run.whole(name))
        return None if signal.whole.empty or signal.values.empty else signal


def _recorded(run: RunReading) -> dict[str, About]:
    """Return what is said of the recorded signals over components."""
    return known(run.summary, recorded_over(run.folder, "component"))


def _about(view: RunView) -> About:
    """Return what is said of the chosen signal."""
    signals = _recorded(view.result)
    return signals[view.chosen.get("components", next(iter(signals)))]


class Components(ComponentPanel):
    """A signal over the components of all modules at the chosen step."""

    id = "components"
    chooses_module = True
    card = "components-all"
    order = 7
    title = "Components"

    def heading(self, view: RunView) -> str:
        """Return the title with the signal."""
        return f"Components: {one_line(_about(view).word, 60)}"

    def subtitle(self, view: RunView) -> str:
        """Return what the signal answers."""
        return _about(view).question

    def caption(self, data: ComponentSignal) -> str:
        """Return how far the values reach at the chosen step."""
        return spread(data.values, data.run.modules, data.about, data.run.step, neutral=data.look.centre)

    def table(self, data: ComponentSignal) -> pd.DataFrame:
        """Return the values at the chosen step, a row for each module."""
        return table(data.values, data.run.rows)

    def figure(self, data: ComponentSignal, colours: Palette) -> go.Figure:
        """Draw modules by components."""
        return all_components(data.values, data.run.rows, data.whole, data.look, colours)


class ModuleComponents(ComponentPanel):
    """A signal over the components of one module, step by step, and which became a copy of which."""

    id = "module_components"
    card = "components"
    order = 8
    title = "Components of a module"

    def heading(self, view: RunView) -> str:
        """Return the title with module and signal."""
        return f"Components of {view.result.short[_module(view.result)]}: {one_line(_about(view).word, 60)}"

    def subtitle(self, view: RunView) -> str:
        """Return how to see those of another module, while none is chosen."""
        return "" if view.result.module else "Select a module above to see its components."

    def caption(self, data: ComponentSignal) -> str:
        """Return what became of the components."""
        rows, short = self._rows(data), data.run.short[_module(data.run)]
        return sentence(rows, _copies(data), short) if data.is_factor else over_steps(rows, short, data.about)

    def table(self, data: ComponentSignal) -> pd.DataFrame:
        """Return the values, a row for each step."""
        return self._rows(data).T.reset_index(names="step")

    def more(self, data: ComponentSignal) -> Mapping[str, pd.DataFrame]:
        """Return the slot that each component was copied from."""
        own = _copies(data)
        return {"Lineage of the components": lineage(own, len(self._rows(data)))} if len(own) else {}

    def figure(self, data: ComponentSignal, colours: Palette) -> go.Figure:
        """Draw components by steps, and an arrow for each copy."""
        return component_map(self._rows(data), _copies(data), data.whole, data.look, colours)

    def _rows(self, data: ComponentSignal) -> pd.DataFrame:
        return of_module(data.whole, data.run.modules, _module(data.run))


def _module(run: RunReading) -> str:
    """Return the module that is followed, or the first."""
    return run.module or run.modules["name"].iloc[0]


def _copies(data: ComponentSignal) -> pd.DataFrame:
    """Return the copies within the module in the chosen steps; they are of factors."""
    copied = copies(data.run.reallocations, data.run.modules)
    return copied[(copied["module"] == _module(data.run)) & data.is_factor]


def known(summary: RunSummary, recorded: Mapping[str, str]) -> dict[str, About]:
    """Return what is said of the signals over components that a run recorded, by name, the factors first.

    A method that does not name a signal among its own has it called by its recorded name and unit.

    Args:
        summary: as `queries.run_summary` returns it.
        recorded: name to unit.
    """
    named = own(summary)
    signals = {FACTOR: About("factor")} if FACTOR in recorded else {}
    for name, unit in recorded.items():
        word = one_line(f"{name.replace('_', ' ')} {unit}", 40)
        signals.setdefault(name, named.get(name) or About(word))
    return dict(list(signals.items())[:MOST_SIGNALS])


def centre(values: pd.DataFrame, about: About, *, is_factor: bool) -> float | None:
    """Return the neutral value of a signal's colours; None when they run from zero.

    That is zero where there are signs. Values that all lie far from zero would look alike on a scale from there: they
    are distinguished by the side of their mean that they are on. A factor of zero leaves a component without effect, so
    factors always run from zero.
    """
    finite = values.to_numpy(float)
    finite = finite[np.isfinite(finite)]
    if not len(finite) or about.choices:
        return None
    low, high = float(finite.min()), float(finite.max())
    if low < 0:
        return 0.0
    return float(finite.mean()) if not is_factor and high / 2 < low < high else None


def by_module(values: np.ndarray, modules: pd.DataFrame) -> pd.DataFrame:
    """Return a signal over components at one step, one row a module as recorded, one column a component.

    Columns after the last that any module has in use are left out; no row when the modules do not fit the values.

    Args:
        values: one a component, each module's room one after the other; NaN where there is none.
        modules: as `capacity.described` returns them.
    """
    room = modules.sort_values("position")["max_rank"].to_numpy(int)
    if room.sum() != len(values):
        return pd.DataFrame()
    grid = np.full((len(room), int(room.max(initial=0))), np.nan)
    grid[np.arange(grid.shape[1]) < room[:, None]] = values
    used = np.flatnonzero(np.isfinite(grid).any(axis=0))
    return pd.DataFrame(grid[:, : int(used.max()) + 1]) if len(used) else pd.DataFrame()


def of_module(frame: pd.DataFrame, modules: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of a signal over components that belong to one module, one row a slot that was ever in use.

    Args:
        frame: one row a component as recorded, each module's room one after the other; one column a step.
        modules: as `capacity.described` returns them.
        name: of the module.
    """
    recorded = modules.sort_values("position")
    room = recorded["max_rank"].to_numpy(int)
    if room.sum() != len(frame) or name not in set(recorded["name"]):
        return frame.iloc[:0]
    place = recorded["name"].tolist().index(name)
    first = int(room[:place].sum())
    rows = frame.iloc[first : first + room[place]].reset_index(drop=True)
    return rows.loc[: int(rows.index[rows.notna().any(axis=1)].max())] if rows.notna().any(axis=None) else rows.iloc[:0]


def copies(events: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return every copy of the decision log: columns step, module (name), source, target, source_factor, target_factor.

    Args:
        events: as `queries.events_frame` returns them.
        modules: as `capacity.described` returns them.
    """
    names = dict(zip(modules["position"], modules["name"], strict=True))
    rows = [
        (int(step), names[edit["donor"]], *(edit[key] for key in _PLACES), *(_number(edit.get(key)) for key in _SCORES))
        for step, payload in zip(events["step"], events["payload"], strict=True)
        for edit in edits_of(payload)
        if edit.get("edit") == COPY and all(_is_place(edit.get(key)) for key in ("donor", *_PLACES))
        if edit["donor"] in names
    ]
    return pd.DataFrame(rows, columns=["step", "module", "source", "target", "source_factor", "target_factor"])


def lineage(copied: pd.DataFrame, slots: int) -> pd.DataFrame:
    """Return the ancestor of each slot after the copies of one module: columns slot, founder, copies, born.

    `founder` is the slot whose first component the present one descends from, `born` the step of the last copy into the
    slot (0: it was never overwritten), `copies` how many lie between.
    """
    founder, depth, born = list(range(slots)), [0] * slots, [0] * slots
    for step, part in copied.groupby("step", sort=True):
        before, deep = list(founder), list(depth)
        for source, target in zip(part["source"], part["target"], strict=True):
            if source < slots and target < slots:
                founder[target], depth[target] = before[source], deep[source] + 1
                born[target] = int(cast("int", step))
    return pd.DataFrame({"slot": range(slots), "founder": founder, "copies": depth, "born": born})


def table(values: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return what `by_module` does as people read it: the module, its components, its full name."""
    rows = values.iloc[modules["position"]].reset_index(drop=True)
    rows.columns = [f"component {place}" for place in rows.columns]
    rows.insert(0, "module", modules["short"].to_numpy(), allow_duplicates=True)
    return rows.assign(name=modules["name"].to_numpy())


def spread(
    values: pd.DataFrame, modules: pd.DataFrame, about: About, step: int, *, neutral: float | None = None
) -> str:
    """Return the sentence under the components of all modules.

    Args:
        values: as `by_module` returns them.
        modules: as `capacity.described` returns them.
        about: what is said of the signal.
        step: that is shown.
        neutral: the neutral value of the colours, as `centre` returns it.
    """
    word, short = one_line(about.word, 40), modules.sort_values("position")["short"].tolist()
    finite = values.to_numpy(float)
    known = finite[np.isfinite(finite)]
    if about.choices:
        return f"{choices_at(known, about.choices, step)} Rows are modules, columns are components."
    many = f"{plural(len(known), 'component')} of {plural(len(values), 'module')}"
    low, high = (np.unravel_index(find(finite), finite.shape) for find in (np.nanargmin, np.nanargmax))
    if finite[low] == finite[high]:
        return f"At step {step}, the {word} is {minus(number(float(finite[low])))} in all {many}."
    ends = " to ".join(
        f"{minus(number(float(finite[at])))} ({one_line(short[at[0]], 40)}, component {at[1]})" for at in (low, high)
    )
    zero = int((known == 0).sum())
    some = f"; {zero:,} {'is' if zero == 1 else 'are'} 0" if zero else ""
    mean = minus(number(float(known.mean())))
    legend = f" Colours show whether a component is above or below {number(neutral)}." if neutral else ""
    return f"At step {step}, the {word} ranges from {ends}. The mean is {mean} over {many}{some}.{legend}"


def over_steps(rows: pd.DataFrame, module: str, about: About) -> str:
    """Return the sentence under a signal of one module's components; `rows` as `of_module` returns them."""
    word = one_line(about.word, 40)
    if rows.empty:
        return f"No {word} was recorded for the components of {module}."
    if about.choices:
        return f"{module}: {choices_at(rows.iloc[:, -1].to_numpy(float), about.choices, int(rows.columns[-1]))}"
    last = rows.iloc[:, -1].dropna()
    many = f"{module}: {plural(len(last), 'component')} at the end"
    if last.empty:
        return f"{many}."
    ends = number(float(last.min())), number(float(last.max()))
    words = f"{many}, {word} {ends[0]}" + (f" to {ends[1]}" if ends[0] != ends[1] else "")
    is_still = (rows.nunique(axis=1) <= 1).all() and rows.shape[1] > 1
    return f"{words}; constant over all steps." if is_still else f"{words}."


def sentence(rows: pd.DataFrame, copied: pd.DataFrame, module: str) -> str:
    """Return the sentence under the factors of a module's components; `rows` as `of_module` returns them."""
    if rows.empty:
        return f"No factors were recorded for the components of {module}."
    last = rows.iloc[:, -1]
    zero, lived = int((last == 0).sum()), int(last.notna().sum())
    words = f"{module}: {plural(lived, 'component')} at the end"
    words += f", {zero} with factor 0" if zero else ""
    if copied.empty:
        return f"{words}."
    founders = sorted(set(lineage(copied, len(rows))["founder"]))
    many = "1 copy" if len(copied) == 1 else f"{len(copied):,} copies"
    return f"{words}; after {many}, all descend from {plural(len(founders), 'slot')} ({spans(founders)})."


_PLACES = ("donor_component", "receiver_component")
_SCORES = ("donor_score", "receiver_score")


def _is_place(value: Any) -> bool:
    """Say whether a value of the log can be a position."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def component_map(
    rows: pd.DataFrame, copies: pd.DataFrame, whole: pd.DataFrame, look: MapView, colours: Palette
) -> go.Figure:
    """Draw a signal of each component of a module over the steps, and an arrow for each copy from slot to slot.

    Args:
        rows: one row a slot, one column a step; NaN where no component is.
        copies: of the module, columns step, source, target, source_factor, target_factor.
        whole: all that the colours reach over, so that modules can be distinguished by them.
        look: what the colours mean, and the step that is marked.
        colours: of the mode.
    """
    drawn = theme.figure(colours, int(np.clip(120 + 22 * len(rows), 220, 560)))
    drawn.add_heatmap(
        z=rows.to_numpy(float),
        x=[int(step) for step in rows.columns],
        y=list(range(len(rows))),
        hoverongaps=False,
        ygap=1,
        hovertemplate=f"component %{{y}}, step %{{x}}<br>{plotly_text(look.title)} %{{z:.4f}}<extra></extra>",
        **colour_of(whole, look, colours, 1.0),
    )
    _draw_copies(drawn, copies, colours)
    if look.step is not None and len(rows.columns) > 1:
        drawn.add_vline(x=look.step, line={"color": colours.text, "width": 1.4})
    drawn.update_xaxes(title_text="Step", showgrid=False)
    drawn.update_yaxes(
        title_text="Component", autorange="reversed", showgrid=False, dtick=1 if len(rows) <= FEW else None
    )
    return drawn


def _draw_copies(drawn: go.Figure, copies: pd.DataFrame, colours: Palette) -> None:
    """Draw an arrow for each of the last copies, and a dot that tells the pointer about each."""
    ends = copies.tail(MOST_ARROWS)
    for step, source, target in zip(ends["step"], ends["source"], ends["target"], strict=True):
        drawn.add_annotation(
            x=step,
            y=target,
            ax=step,
            ay=source,
            axref="x",
            ayref="y",
            text="",
            showarrow=True,
            arrowhead=2,
            arrowsize=1,
            arrowwidth=1.3,
            arrowcolor=colours.second,
        )
    if len(copies):
        drawn.add_scatter(
            x=copies["step"],
            y=copies["target"],
            mode="markers",
            marker={"color": colours.second, "size": 6, "symbol": "circle"},
            customdata=copies[["source", "source_factor", "target_factor"]].to_numpy(float),
            hovertemplate="step %{x}: component %{y} (factor %{customdata[2]:.3f}) became a copy of component "
            "%{customdata[0]:.0f} (factor %{customdata[1]:.3f})<extra></extra>",
        )


def all_components(
    values: pd.DataFrame, modules: pd.DataFrame, whole: pd.DataFrame, look: MapView, colours: Palette
) -> go.Figure:
    """Draw a signal of the components of all modules at one step, modules by components, rows in groups.

    Args:
        values: one row a module as recorded, one column a component; NaN where there is none.
        modules: as `capacity.ordered` returns them.
        whole: as in `component_map`.
        look: what the colours mean; the row of its `module` gets a frame.
        colours: of the mode.
    """
    drawn = theme.figure(colours, map_height(len(modules), 110, 260), left=78)
    edges, centres = row_edges(modules["group"])
    columns = values.shape[1]
    drawn.add_heatmap(
        z=with_gaps(values.to_numpy(float)[modules["position"]], modules["group"]),
        x=list(range(columns)),
        y=edges,
        hoverongaps=False,
        ygap=row_look(len(modules))["ygap"],
        xgap=2 if columns <= FEW else 0.6,
        meta=modules_of_cells("y", centres, modules["position"]),
        **colour_of(whole, look, colours),
        hovertemplate=f"%{{y}}<br>component %{{x}}<br>{plotly_text(look.title)} %{{z:.4~g}}<extra></extra>",
    )
    label_rows(drawn, modules, centres, colours)
    drawn.update_xaxes(
        title_text="Component", showgrid=False, dtick=1 if columns <= FEW else None, range=[-0.5, columns - 0.5]
    )
    drawn.update_yaxes(range=[edges[-1], edges[0]], showgrid=False)
    frame_module(drawn, modules, centres, look.module, colours)
    return drawn
