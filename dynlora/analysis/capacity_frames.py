"""What the Capacity page computes before it draws: rows in order, shares, agreement; pandas in, pandas out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from dynlora.analysis.stats import spearman
from dynlora.text import minus, plural

ORDERS = {"kind": "By kind", "depth": "By depth", "rank": "By rank", "layer": "By layer"}
"""The orders of a map's rows, and what people call them; `layer` is by depth with the modules of a layer folded."""

FOLD_FROM = 140
"""Modules from which a map begins with one row per layer."""


def module_state(modules: pd.DataFrame, ranks: np.ndarray, importance: np.ndarray | None) -> pd.DataFrame:
    """Return the modules with their rank and importance at one step, and the fraction of both, in percent.

    Args:
        modules: as `described` returns them.
        ranks: by module as recorded.
        importance: the same, or None when it was not recorded.
    """
    state = modules.copy()
    state["rank"] = ranks[state["position"]]
    state["importance"] = np.nan if importance is None else importance[state["position"]]
    for column in ("rank", "importance"):
        total = state[column].clip(lower=0).sum()
        state[f"{column}_share"] = 100 * state[column].clip(lower=0) / total if total > 0 else np.nan
    return state


def selected(modules: pd.DataFrame, kind: str | None, depth: str | None) -> pd.DataFrame:
    """Return the modules of one kind and of one band of layers.

    Args:
        modules: as `described` returns them.
        kind: their column `label`; None for every kind.
        depth: as `depth_bands` names it; None for every layer.
    """
    is_selected = np.ones(len(modules), bool)
    if kind is not None:
        is_selected &= (modules["label"] == kind).to_numpy()
    if depth is not None:
        is_selected &= (depth_bands(modules) == depth).to_numpy()
    return modules[is_selected].reset_index(drop=True)


def ordered(modules: pd.DataFrame, order: str, ranks: np.ndarray) -> pd.DataFrame:
    """Return the modules in the order of a map's rows, with columns `group` and `side`, the words beside them.

    Args:
        modules: as `described` returns them.
        order: a key of `ORDERS`; by rank the widest are first.
        ranks: by module as recorded, at the last step shown.
    """
    layer = ["" if pd.isna(value) else str(value) for value in modules["layer"]]
    if order == "kind":
        return modules.assign(group=modules["label"], side=layer)
    if order in ("depth", "layer"):
        rows = modules.assign(group=[f"layer {value}" if value else "outside" for value in layer], side="")
        return rows.sort_values(["layer", "position"], kind="stable").reset_index(drop=True)
    last = np.nan_to_num(ranks)[modules["position"]].astype(int)
    rows = modules.assign(group=[f"rank {value}" for value in last], side="", last=last)
    return rows.sort_values("last", ascending=False, kind="stable").drop(columns="last").reset_index(drop=True)


def foldable(modules: pd.DataFrame) -> bool:
    """Say whether there are so many modules that a map begins with one row per layer."""
    return len(modules) >= FOLD_FROM and modules["layer"].nunique() > 1


def folded(rows: pd.DataFrame, values: pd.DataFrame, opened: Collection[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of a map with one row per layer, and its values with that row's: the mean over its modules.

    Modules outside of layers stay. The row of an opened layer is followed by its modules. A layer's row has the
    position `len(values) + layer`.

    Args:
        rows: as `ordered` returns them by depth.
        values: one row per module as recorded, one column per bin.
        opened: layers that are opened.
    """
    parts, last = [rows[rows["layer"].isna()]], len(values) + int(rows["layer"].max())
    every = values.to_numpy(float)
    every = np.vstack([every, np.full((last + 1 - len(values), every.shape[1]), np.nan)])
    for number, part in rows.dropna(subset=["layer"]).groupby("layer"):
        layer, n = int(float(str(number))), len(part)
        every[len(values) + layer] = every[part["position"]].mean(axis=0)
        words = {"name": f"layer {layer}", "short": f"layer {layer}, mean of {plural(n, 'module')}", "side": ""}
        group = f"{layer}" if len(parts) > 1 and not opened else f"layer {layer}"
        parts.append(part.head(1).assign(position=len(values) + layer, group=group, **words))
        if layer in opened:
            parts.append(part.assign(group=part["label"]))
    return pd.concat(parts, ignore_index=True), pd.DataFrame(every, columns=values.columns)


class Grid(NamedTuple):
    """The model as cells, a row for each kind of module and a column for each layer.

    Attributes:
        kinds: names of the rows.
        layers: names of the columns.
        rows: of each module.
        columns: of each module.
    """

    kinds: list[str]
    layers: list[str]
    rows: np.ndarray
    columns: np.ndarray

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over the modules of each cell whose value is known, NaN where there is none."""
        sums, counts = np.zeros((2, len(self.kinds), len(self.layers)))
        np.add.at(sums, (self.rows, self.columns), np.nan_to_num(values))
        np.add.at(counts, (self.rows, self.columns), np.isfinite(values))
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def grid_of(modules: pd.DataFrame) -> Grid:
    """Return the cells of modules, as `analysis.frames.described` returns these; what is in no layer comes last."""
    kinds = list(dict.fromkeys(modules["label"]))
    numbers = sorted(int(layer) for layer in modules["layer"].dropna().unique())
    names = [str(number) for number in numbers] + (["other"] if modules["layer"].isna().any() else [])
    columns = [names.index("other" if pd.isna(layer) else str(int(layer))) for layer in modules["layer"]]
    return Grid(kinds, names, np.array([kinds.index(kind) for kind in modules["label"]]), np.array(columns))


def step_shares(importance: pd.DataFrame) -> pd.DataFrame:
    """Return each module's importance in percent of the total of its step, so that early steps can be seen too.

    Args:
        importance: one row per module, one column per step.
    """
    values = importance.clip(lower=0)
    return 100 * values / values.sum().replace(0, np.nan)


MOST_SHARE = 4
"""Importance that has the strongest colour, in multiples of an even share."""


def scale_end(signal: str, uniform: int | None, n: int) -> float | None:
    """Return the value of the strongest colour of a signal, by which the colours of two runs compare; None for none.

    It is twice the uniform rank, and a fixed multiple of the mean importance of the modules.

    Args:
        signal: as recorded.
        uniform: rank of uniform LoRA; None when it is not known.
        n: number of modules.
    """
    ends = {"rank": uniform and 2.0 * uniform, "importance": 100.0 * MOST_SHARE / n if n else None}
    return ends.get(signal)


AGREEMENTS = (
    (0.7, "Importance and rank go together closely"),
    (0.4, "Importance and rank mostly go together"),
    (0.2, "Importance and rank go together a little"),
    (-0.2, "Importance and rank hardly go together"),
    (-1.0, "The more important modules have less rank"),
)
"""What a rank correlation of importance and rank is called, from the number on."""


RECONCILED = ": ranks were set at earlier steps, and this is the importance of this one"
"""Why modules that got rank because they were important can have less importance than others afterwards."""


def agreement(state: pd.DataFrame) -> str:
    """Say how the importance and the rank of modules go together; empty where one of them is equal for all.

    Args:
        state: as `module_state` returns it, modules without shares left out.
    """
    rho = spearman(state["importance_share"], state["rank_share"])
    if not np.isfinite(rho):
        return ""
    words = next(words for lowest, words in AGREEMENTS if rho >= lowest or lowest == -1)
    why = RECONCILED if rho < AGREEMENTS[-2][0] else ""
    return f"{words} (rank correlation {minus(f'{rho:.2f}')}, {plural(len(state), 'module')}){why}"


def steadiness(importance: pd.DataFrame, events: Sequence[int]) -> pd.DataFrame:
    """Return how well the order of importance agrees from one reallocation to the next: columns step and value.

    The value is Spearman's correlation over the modules, between an event and the one before it.

    Args:
        importance: one row per module, one column per recorded step (or bin, by its last step).
        events: steps of the reallocations.
    """
    steps = importance.columns.to_numpy(dtype=int) if importance.shape[1] else np.empty(0, int)
    places = [int(np.searchsorted(steps, event, side="right")) - 1 for event in events]
    known = [(event, place) for event, place in zip(events, places, strict=True) if place >= 0]
    columns = [place for _, place in known]
    values = importance.to_numpy(float)[:, columns]
    if np.isfinite(values).all():
        order = rankdata(values, axis=0)
        rows = [(later, _agreement(order[:, i], order[:, i + 1])) for i, (later, _) in enumerate(known[1:])]
    else:
        rows = [(later, spearman(values[:, i], values[:, i + 1])) for i, (later, _) in enumerate(known[1:])]
    rows = [row for row, before, after in zip(rows, columns, columns[1:], strict=False) if before != after]
    return pd.DataFrame(rows, columns=["step", "value"]).dropna().reset_index(drop=True)


def _agreement(before: np.ndarray, after: np.ndarray) -> float:
    """Return the correlation of two columns of ranks, NaN when one does not vary."""
    before, after = before - before.mean(), after - after.mean()
    size = float(np.sqrt((before @ before) * (after @ after)))
    return float(before @ after) / size if size and len(before) > 2 else float("nan")


def event_steps(events: pd.DataFrame) -> list[int]:
    """Return the steps of the reallocations that moved something."""
    return [int(step) for step, payload in zip(events["step"], events["payload"], strict=True) if payload.get("edits")]


def wide(values: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return a map's values as a table: column `step`, then one per module by its name; modules may be some of all."""
    rows = modules.sort_values("position")
    frame = pd.DataFrame(values.to_numpy(float)[rows["position"]].T, columns=rows["name"].tolist())
    frame.insert(0, "step", values.columns.to_numpy(), allow_duplicates=True)
    return frame


def state_table(state: pd.DataFrame) -> pd.DataFrame:
    """Return the state of the modules as a table that people read."""
    columns = state[["short", "name", "rank", "rank_share", "importance", "importance_share"]]
    return columns.rename(
        columns={"short": "module", "rank_share": "rank (% of total)", "importance_share": "importance (% of total)"}
    )


def one_module(values: pd.DataFrame, modules: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return one module's row of a map as columns step and value."""
    position = int(modules.loc[modules["name"] == name, "position"].iloc[0])
    return pd.DataFrame({"step": values.columns.to_numpy(), "value": values.to_numpy(float)[position]}).dropna()


RELEASED = "released"
"""Where capacity goes that no module receives."""

FREE = "free"
"""Where capacity comes from that no module gave."""

OUTSIDE = -1
"""Stands for no module: the free part of the budget on the left, the released part on the right."""

OTHERS = "all others"
"""The modules that a flow by module does not name."""

MOST_BANDS = 12
"""Ends that a flow names on each side; more turn into hair."""

BY = {"kind": "By kind", "depth": "By depth", "module": "By module"}
"""How the ends of a flow can be put together."""


def bands(modules: pd.DataFrame, by: str, moves: pd.DataFrame) -> pd.Series:
    """Return the end of the flow that each module belongs to, by module name.

    Args:
        modules: as `capacity.described` returns them.
        by: `kind`, `depth` (neighbouring layers, at most `MOST_BANDS` bands) or `module` (those that moved most by
            name, the rest together).
        moves: as `queries.rank_moves` returns them.
    """
    if by == "depth":
        return depth_bands(modules)
    if by == "module":
        moved = pd.concat([moves["donor"], moves["receiver"]]).value_counts()
        busiest = set(moved.sort_values(ascending=False, kind="stable").index[: MOST_BANDS - 1])
        named = [
            short if name in busiest else OTHERS for name, short in zip(modules["name"], modules["short"], strict=True)
        ]
        return pd.Series(named, index=modules["name"])
    return pd.Series(modules["label"].to_numpy(), index=modules["name"])


def depth_bands(modules: pd.DataFrame) -> pd.Series:
    """Return the neighbouring layers that each module belongs to, at most `MOST_BANDS` bands, by module name."""
    layers = sorted(int(layer) for layer in modules["layer"].dropna().unique())
    size = max(1, -(-len(layers) // MOST_BANDS))
    names = {}
    for start in range(0, len(layers), size):
        part = layers[start : start + size]
        words = f"layer {part[0]}" if len(part) == 1 else f"layers {part[0]}-{part[-1]}"
        names |= dict.fromkeys(part, words)
    bands = ["outside" if pd.isna(layer) else names[int(layer)] for layer in modules["layer"]]
    return pd.Series(bands, index=modules["name"])


def band_order(modules: pd.DataFrame, band: pd.Series, by: str) -> list[str]:
    """Return the ends of a flow in the order they are drawn: as the rows of the map, by depth from the input on."""
    rows = modules.sort_values(["layer", "position"]) if by == "depth" else modules
    order = list(dict.fromkeys(band.loc[rows["name"]]))
    return [name for name in order if name != OTHERS] + [name for name in order if name == OTHERS]


def flows(modules: pd.DataFrame, traced: pd.DataFrame, band: pd.Series) -> pd.DataFrame:
    """Return rank transfers in parameters: columns source, target, kept, parameters.

    Args:
        modules: as `capacity.described` returns them.
        traced: as `trace` returns it.
        band: the end each module belongs to, as `bands` returns it.
    """
    ends = dict(zip(modules["position"], band.loc[modules["name"]], strict=True))
    links = pd.DataFrame(
        {
            "source": [ends.get(origin, FREE) for origin in traced["origin"]],
            "target": [ends.get(holder, RELEASED) for holder in traced["holder"]],
            "kept": traced["origin"] == traced["holder"],
            "parameters": traced["parameters"],
        }
    )
    return links.groupby(["source", "target", "kept"], sort=False, as_index=False)[["parameters"]].sum()


def trace(modules: pd.DataFrame, moves: pd.DataFrame, ranks: pd.DataFrame) -> pd.DataFrame:
    """Follow every parameter from the module that held it first to the module that holds it last.

    Between two events the recorded ranks say what each module lost and won; the decision log says who paid for whom. A
    module gives what it received last, because a component that has just grown is the first to go. What is given
    beyond the price of what grows waits in a pool, from which whatever grows without a donor is paid; what the pool
    cannot pay comes from the part of the budget that was free.

    Args:
        modules: as `capacity.described` returns them.
        moves: as `queries.rank_moves` returns them, those after the first and up to the last step of `ranks`.
        ranks: one row per module as recorded, one column per step: the first step, every event, the last step.

    Returns:
        Columns origin and holder (positions of modules; `OUTSIDE` for the free part and the pool) and parameters.
    """
    order = modules.sort_values("position")
    place, cost = dict(zip(order["name"], order["position"], strict=True)), order["cost"].to_numpy(float)
    held = np.nan_to_num(ranks.to_numpy(float)) * cost[:, None]
    stacks = {m: [(m, float(held[m, 0]))] for m in range(len(cost))} | {OUTSIDE: []}
    paid: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    grown = moves[moves["receiver"].notna()]
    at = np.searchsorted(ranks.columns.to_numpy(dtype=int), grown["step"].to_numpy(dtype=int))
    for column, (donor, receiver, count) in zip(
        at.tolist(), grown[["donor", "receiver", "count"]].to_numpy(), strict=True
    ):
        paid[column].append((place.get(donor, OUTSIDE), place[receiver], count))
    for column in range(1, held.shape[1]):
        _settle(stacks, held[:, column] - held[:, column - 1], paid[column], cost)
    rows = [(origin, holder, amount) for holder, stack in stacks.items() for origin, amount in stack if amount > 0]
    frame = pd.DataFrame(rows, columns=["origin", "holder", "parameters"])
    return frame.groupby(["origin", "holder"], sort=False, as_index=False)[["parameters"]].sum()


_Stacks = dict[int, list[tuple[int, float]]]


def _settle(stacks: _Stacks, change: np.ndarray, paid: list[tuple[int, int, int]], cost: np.ndarray) -> None:
    """Move capacity as an event did: `change` in parameters by module, `paid` as (donor, receiver, components)."""
    lost = np.zeros(len(cost))
    transit: _Stacks = {}
    for donor, receiver, count in paid:
        if donor != OUTSIDE:
            given = _taken(stacks, donor, cost[donor] * (1 if pd.isna(count) else int(count)), free=False)
            lost[donor] += sum(amount for _, amount in given)
            transit.setdefault(receiver, []).extend(given)
    won = change + lost
    for module in np.flatnonzero(won < 0):  # nobody was paid: a mask, a drop, a shrinking budget
        stacks[OUTSIDE].extend(_taken(stacks, int(module), -float(won[module])))
    for module in np.flatnonzero(won > 0):
        waiting = {OUTSIDE: transit.pop(int(module), [])}
        from_donors = _taken(waiting, OUTSIDE, float(won[module]), free=False)
        stacks[OUTSIDE].extend(waiting[OUTSIDE])
        rest = float(won[module]) - sum(amount for _, amount in from_donors)
        stacks[int(module)].extend([*from_donors, *_taken(stacks, OUTSIDE, rest)])
    for left in transit.values():
        stacks[OUTSIDE].extend(left)


def _taken(stacks: _Stacks, holder: int, amount: float, *, free: bool = True) -> list[tuple[int, float]]:
    """Take an amount off the top of a stack; with `free`, what it lacks comes from outside."""
    taken: list[tuple[int, float]] = []
    stack = stacks[holder]
    while amount > 1e-6 and stack:
        origin, here = stack.pop()
        used = min(here, amount)
        if here > used:
            stack.append((origin, here - used))
        taken.append((origin, used))
        amount -= used
    if free and amount > 1e-6:
        taken.append((OUTSIDE, amount))
    return taken


@dataclass(frozen=True)
class Balance:
    """Both sides of a flow, in parameters, set against the ranks that were recorded.

    Attributes:
        held_before: adapter parameters in use at the first step, from the recorded ranks.
        held_after: the same at the last step.
        free: what came from the unused part of the budget.
        released: what went to no module.
        gap: what the flow's ends and the recorded ranks disagree about.
    """

    held_before: float
    held_after: float
    free: float
    released: float
    gap: float

    @property
    def adds_up(self) -> bool:
        """Whether before and free together are after and released, as the ranks say."""
        return self.gap < 1 and abs(self.held_before + self.free - self.held_after - self.released) < 1


def balance(traced: pd.DataFrame, modules: pd.DataFrame, ranks: pd.DataFrame) -> Balance:
    """Check what was traced against the first and last of the recorded ranks, module by module."""
    cost = modules.sort_values("position")["cost"].to_numpy(float)
    start, end = (np.nan_to_num(ranks.iloc[:, column].to_numpy(float)) * cost for column in (0, -1))
    amount = traced.set_index(["origin", "holder"])["parameters"]
    by_origin, by_holder = (amount.groupby(level=level).sum() for level in ("origin", "holder"))
    left, right = (side.reindex(range(len(cost)), fill_value=0.0).to_numpy(float) for side in (by_origin, by_holder))
    return Balance(
        held_before=float(start.sum()),
        held_after=float(end.sum()),
        free=float(by_origin.get(OUTSIDE, 0.0)),
        released=float(by_holder.get(OUTSIDE, 0.0)),
        gap=float(np.abs(left - start).sum() + np.abs(right - end).sum()),
    )
