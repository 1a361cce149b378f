"""The components of modules: what a method records of each, their factors, and which became a copy of which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from dynlora.analysis.signals import About, own
from dynlora.text import number, one_line, plural, spans
from dynlora.viz.capacity.decision_log import edits_of
from dynlora.viz.capacity.text import choices_at

FACTOR = "factor"
"""The signal over components: e, what each component's part of the update is multiplied by."""

COPY = "copy"
"""The kind of edit that puts a copy of one component into the slot of another."""


MOST_SIGNALS = 4
"""Signals over components that are drawn at most."""


def known(summary: Mapping[str, Any], recorded: Mapping[str, str]) -> dict[str, About]:
    """Return what is said of the signals over components that a run recorded, by name, the factors first.

    A method that does not name a signal among its own has it called by its recorded name and unit.

    Args:
        summary: as `queries.run_summary` returns it.
        recorded: name to unit.
    """
    named = own(summary)
    found = {FACTOR: About("factor")} if FACTOR in recorded else {}
    for name, unit in recorded.items():
        word = one_line(f"{name.replace('_', ' ')} {unit}", 40)
        found.setdefault(name, named.get(name) or About(word))
    return dict(list(found.items())[:MOST_SIGNALS])


def centre(values: pd.DataFrame, about: About, *, is_factor: bool) -> float | None:
    """Return the neutral value of a signal's colours; None when they run from zero.

    That is zero where there are signs. Values that all lie far from zero would look alike on a scale from there: they
    are told apart by which side of their mean they lie on. A factor of zero leaves a component without effect, so
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
    found = np.full((len(room), int(room.max(initial=0))), np.nan)
    found[np.arange(found.shape[1]) < room[:, None]] = values
    used = np.flatnonzero(np.isfinite(found).any(axis=0))
    return pd.DataFrame(found[:, : int(used.max()) + 1]) if len(used) else pd.DataFrame()


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


def lineage(found: pd.DataFrame, slots: int) -> pd.DataFrame:
    """Return the ancestor of each slot after the copies of one module: columns slot, founder, copies, born.

    `founder` is the slot whose first component the present one descends from, `born` the step of the last copy into the
    slot (0: it was never overwritten), `copies` how many lie between.
    """
    founder, depth, born = list(range(slots)), [0] * slots, [0] * slots
    for step, part in found.groupby("step", sort=True):
        before, deep = list(founder), list(depth)
        for source, target in zip(part["source"], part["target"], strict=True):
            if source < slots and target < slots:
                founder[target], depth[target] = before[source], deep[source] + 1
                born[target] = int(cast("int", step))
    return pd.DataFrame({"slot": range(slots), "founder": founder, "copies": depth, "born": born})


def table(values: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return what `by_module` does as people read it: the module, its components, its full name."""
    found = values.iloc[modules["position"]].reset_index(drop=True)
    found.columns = [f"component {place}" for place in found.columns]
    found.insert(0, "module", modules["short"].to_numpy(), allow_duplicates=True)
    return found.assign(name=modules["name"].to_numpy())


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
        return f"At step {step}, {word} is {number(float(finite[low]))} in all {many}."
    ends = [f"{number(float(finite[at]))} ({one_line(short[at[0]], 40)}, component {at[1]})" for at in (low, high)]
    zero = int((known == 0).sum())
    some = f"; {zero:,} {'is' if zero == 1 else 'are'} 0" if zero else ""
    mean = number(float(known.mean()))
    told = f" Colours show whether a component is above or below {number(neutral)}." if neutral else ""
    return f"At step {step}, {word} ranges from {ends[0]} to {ends[1]}; mean {mean} over {many}{some}.{told}"


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


def sentence(rows: pd.DataFrame, found: pd.DataFrame, module: str) -> str:
    """Return the sentence under the factors of a module's components; `rows` as `of_module` returns them."""
    if rows.empty:
        return f"No factors were recorded for the components of {module}."
    last = rows.iloc[:, -1]
    zero, lived = int((last == 0).sum()), int(last.notna().sum())
    words = f"{module}: {plural(lived, 'component')} at the end"
    words += f", {zero} with factor 0" if zero else ""
    if found.empty:
        return f"{words}."
    founders = sorted(set(lineage(found, len(rows))["founder"]))
    many = "1 copy" if len(found) == 1 else f"{len(found):,} copies"
    return f"{words}; after {many}, all descend from {plural(len(founders), 'slot')} ({spans(founders)})."


_PLACES = ("donor_component", "receiver_component")
_SCORES = ("donor_score", "receiver_score")


def _is_place(value: Any) -> bool:
    """Say whether a value of the log can be a position."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
