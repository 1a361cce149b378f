"""An adapter that came without a run, as frames: its modules, a number over depth and kind, its singular values."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dynlora.analysis import modules as kit_modules
from dynlora.peft_adapter import Adapter
from dynlora.text import KIND_WORDS, kind_labels, number, one_line

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

_TURNS = {word: turn for turn, word in enumerate(dict.fromkeys(KIND_WORDS.values()))}

OUTSIDE = "outside"
"""Stands where a layer's number would, for modules outside of the blocks."""


def described(adapter: Adapter) -> pd.DataFrame:
    """Return the modules by kind and then depth, as `capacity.described` does, with the numbers of the adapter.

    Added columns: rank, scaling, norm, effective_rank, share (of the squared norms, in percent), values.
    """
    rows = pd.DataFrame([vars(module) for module in adapter.modules])
    turns = rows["kind"].map(kind_labels(rows["kind"])).map(_TURNS).fillna(len(_TURNS))
    rows = rows.iloc[turns.argsort(kind="stable")].reset_index(drop=True)  # as in a block, not as in the alphabet
    found = kit_modules.described(rows.astype({"layer": "Int64", "norm": float, "effective_rank": float}))
    squares = np.square(found["norm"] / max(float(found["norm"].max()), 1e-300))
    found["share"] = 100 * squares / squares.sum() if squares.sum() > 0 else np.nan
    return found.rename(columns={"singular_values": "values"})


def over_depth(modules: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a number of each module as kinds by layers; NaN where the adapter has no such module."""
    layers = [OUTSIDE if pd.isna(layer) else str(layer) for layer in modules["layer"]]
    order = sorted(dict.fromkeys(layers), key=lambda word: (not word.isdigit(), word.zfill(8)))
    found = modules.assign(place=layers).groupby(["label", "place"], sort=False)[column].max().unstack()
    return found.reindex(index=list(dict.fromkeys(modules["label"])), columns=order).astype(float)


def spectra(modules: pd.DataFrame) -> pd.DataFrame:
    """Return the singular values of the first `MOST_ROWS` modules: a row each, a column per component from 1 on."""
    shown = modules.head(MOST_ROWS)
    width = min(max((len(values) for values in shown["values"]), default=0), MOST_COMPONENTS)
    rows = np.full((len(shown), width), np.nan)
    for row, values in zip(rows, shown["values"], strict=True):
        row[: min(len(values), width)] = values[:width]
    return pd.DataFrame(rows, index=shown["short"].to_numpy(), columns=range(1, width + 1))


def table(modules: pd.DataFrame) -> pd.DataFrame:
    """Return the modules as people read them."""
    found = modules[["short", "name", "rank", "max_rank", "scaling", "norm", "share", "effective_rank"]].copy()
    for column in ("short", "name"):
        found[column] = [one_line(value, 200) for value in found[column]]
    return found.rename(
        columns={
            "short": "module", "max_rank": "components stored", "share": "squared norm (% of total)",
            "effective_rank": "effective rank",
        }
    ).reset_index(drop=True)  # fmt: skip


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
