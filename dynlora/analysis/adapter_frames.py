"""An adapter that came without a run, as frames: its modules, a number over depth and kind, its singular values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from dynlora.analysis import frames
from dynlora.analysis.frames import at_lowest
from dynlora.peft_adapter import Adapter
from dynlora.peft_adapter.engines import RIGHT, Reading
from dynlora.text import KIND_WORDS, kind_labels, listed, number, one_line, percent, plural, source_name

NUMBERS = {
    "rank": ("rank", "components"),
    "norm": ("update norm", "Frobenius norm"),
    "effective_rank": ("effective rank", "components"),
}
"""What a map over depth and kind can show of an adapter: column, what people call it, its unit."""

MOST_ROWS = 400
"""Most modules that a heat map of spectra shows; the table holds all."""

MOST_COMPONENTS = 256
"""Most singular values of a module that are drawn, the largest."""

NOTHING = "Every update is zero: the adapter changes nothing."

_TURNS = {word: turn for turn, word in enumerate(dict.fromkeys(KIND_WORDS.values()))}

OUTSIDE = "outside"
"""Written where a layer's number would, for modules outside of the blocks."""


def described(adapter: Adapter) -> pd.DataFrame:
    """Return the modules by kind and then depth, as `capacity.described` does, with the numbers of the adapter.

    Added columns: rank, scaling, norm, effective_rank, share (of the squared norms, in percent), values.
    """
    rows = pd.DataFrame([vars(module) for module in adapter.modules])
    turns = rows["kind"].map(kind_labels(rows["kind"])).map(_TURNS).fillna(len(_TURNS))
    rows = rows.iloc[turns.argsort(kind="stable")].reset_index(drop=True)  # as in a block, not as in the alphabet
    frame = frames.described(rows.astype({"layer": "Int64", "norm": float, "effective_rank": float}))
    squares = np.square(frame["norm"] / max(float(frame["norm"].max()), 1e-300))
    frame["share"] = 100 * squares / squares.sum() if squares.sum() > 0 else np.nan
    return frame.rename(columns={"singular_values": "values"})


def over_depth(modules: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a number of each module as kinds by layers; NaN where the adapter has no such module."""
    layers = [OUTSIDE if pd.isna(layer) else str(layer) for layer in modules["layer"]]
    order = sorted(dict.fromkeys(layers), key=lambda word: (not word.isdigit(), word.zfill(8)))
    means = modules.assign(place=layers).groupby(["label", "place"], sort=False)[column].max().unstack()
    return means.reindex(index=list(dict.fromkeys(modules["label"])), columns=order).astype(float)


def spectra(modules: pd.DataFrame) -> pd.DataFrame:
    """Return the singular values of the first `MOST_ROWS` modules: a row each, a column per component from 1 on."""
    drawn = modules.head(MOST_ROWS)
    width = min(max((len(values) for values in drawn["values"]), default=0), MOST_COMPONENTS)
    rows = np.full((len(drawn), width), np.nan)
    for row, values in zip(rows, drawn["values"], strict=True):
        row[: min(len(values), width)] = values[:width]
    return pd.DataFrame(rows, index=drawn["short"].to_numpy(), columns=range(1, width + 1))


def table(modules: pd.DataFrame) -> pd.DataFrame:
    """Return the modules as people read them."""
    columns = modules[["short", "name", "rank", "max_rank", "scaling", "norm", "share", "effective_rank"]].copy()
    for column in ("short", "name"):
        columns[column] = [one_line(value, 200) for value in columns[column]]
    return columns.rename(
        columns={
            "short": "module",
            "max_rank": "components stored",
            "share": "squared norm (% of total)",
            "effective_rank": "effective rank",
        }
    ).reset_index(drop=True)


def spectra_table(modules: pd.DataFrame) -> pd.DataFrame:
    """Return all singular values long: columns module, component, singular value."""
    rows = [
        (short, component, value)
        for short, values in zip(modules["short"], modules["values"], strict=True)
        for component, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows, columns=["module", "component", "singular value"])


def headline(adapter: Adapter, modules: pd.DataFrame) -> dict[str, str]:
    """Return the figures that matter first, by their label."""
    parameters = int((modules["rank"] * modules["cost"]).sum())
    norms = modules["norm"].to_numpy(float)
    whole = float(np.sqrt(np.nansum(np.square(norms)))) if np.isfinite(norms).any() else None
    return {
        "Modules": f"{len(modules):,}",
        "Components": f"{int(modules['rank'].sum()):,}",
        "Adapter parameters": f"{parameters:,}",
        "Total update norm": number(whole),
        "Other trained parameters": f"{adapter.other_parameters:,}",
    }


KINDS = {"LORA": "LoRA", "ADALORA": "AdaLoRA"}
"""PEFT's names of the formats, and what people call them."""


def overview(adapter: Adapter, modules: pd.DataFrame) -> str:
    """Say what the adapter is, and how its ranks run."""
    kind = KINDS.get(adapter.peft_type, adapter.peft_type)
    base = f" of {one_line(source_name(adapter.base_model), 80)}" if adapter.base_model else ""
    low, high = int(modules["rank"].min()), int(modules["rank"].max())
    ranks = f"all of rank {low}" if low == high else f"of ranks {low} to {high}"
    return (
        f"{kind} adapter{base}: {plural(len(modules), 'module')}, {ranks}, {int(modules['rank'].sum()):,} components "
        "in total."
    )


def depth_caption(modules: pd.DataFrame, column: str, title: str) -> str:
    """Say where a number is highest, and how uneven it is."""
    known = modules.dropna(subset=[column])
    if known.empty:
        return f"There is no {title}: the values of the file are not finite."
    values = known[column].astype(float)
    if values.max() == values.min():
        return f"All {plural(len(known), 'module')} have the same {title}, {number(float(values.max()))}."
    top = [one_line(name, 40) for name in known.loc[values.nlargest(3).index, "short"]]
    low = one_line(known.loc[at_lowest(values), "short"], 40)
    return (
        f"The {title} is highest in {listed(top)} (maximum {number(float(values.max()))}) and lowest in {low} "
        f"({number(float(values.min()))})."
    )


def norms(modules: pd.DataFrame) -> str:
    """Say which kind of module moved its weights most, by its fraction of the squared norms, or that none did."""
    if len(modules) and (modules["norm"] == 0).all():
        return f"{NOTHING} It was saved before the first step, or B never moved."
    shares = modules.groupby("label", sort=False)["share"].sum()
    if not np.isfinite(modules["share"]).any() or not shares.sum():
        return "No update can be compared: its norm is zero or not finite."
    return (
        f"{one_line(shares.idxmax(), 40)} has the largest updates, with {percent(shares.max() / 100)} of the total "
        f"squared norm; {one_line(shares.idxmin(), 40)} has the smallest, with {percent(shares.min() / 100)}."
    )


def spectra_caption(modules: pd.DataFrame, drawn_rows: int) -> str:
    """Say how many of the components carry the updates, and how many modules are drawn."""
    known = modules[modules["norm"] > 0]
    if known.empty:
        return NOTHING
    used, have = float(known["effective_rank"].sum()), int(known["rank"].sum())
    narrow = one_line(known.loc[at_lowest(known["effective_rank"] / known["rank"].clip(lower=1)), "short"], 40)
    cut = f" {drawn_rows:,} of {len(modules):,} modules shown; the table has all." if drawn_rows < len(modules) else ""
    return (
        f"Total effective rank: {number(used)} of {have:,} components (effective rank = (Σσ²)² / Σσ⁴). {narrow} uses "
        f"the smallest fraction of its components.{cut}"
    )


def engines(readings: Iterable[Reading], exports: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return how engines read an adapter as a table: engine, verdict, what to do, and the reason.

    Args:
        readings: of the adapter.
        exports: of the run, by the engine that reads each; None for commands for the folder.
    """
    return pd.DataFrame(
        [
            {
                "engine": f"{reading.engine} {reading.version}",
                "verdict": reading.verdict,
                "what to do": (exports[reading.engine] if exports else reading.remedy) if reading.remedy else "",
                "reason": reading.reason,
            }
            for reading in readings
        ]
    )


def engines_headline(readings: Sequence[Reading]) -> str:
    """Say which engines read an adapter right."""
    right = [reading.engine for reading in readings if reading.verdict == RIGHT]
    return f"{len(right)} of {len(readings)} engines read it right{': ' if right else ''}{', '.join(right)}"
