"""The sentences about an adapter that came without a run, computed from what its charts show.

As in `sentences`, whoever shows one escapes it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dynlora.analysis.frames import at_lowest
from dynlora.peft_adapter import Adapter
from dynlora.text import listed, number, one_line, percent, plural, source_name

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


def over_depth(modules: pd.DataFrame, column: str, title: str) -> str:
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
    """Say which kind of module moved its weights most, by its fraction of the squared norms."""
    shares = modules.groupby("label", sort=False)["share"].sum()
    if not np.isfinite(modules["share"]).any() or not shares.sum():
        return "No update changes the weights: every norm is zero or not finite."
    return (
        f"{one_line(shares.idxmax(), 40)} has the largest updates, with {percent(shares.max() / 100)} of the total "
        f"squared norm; {one_line(shares.idxmin(), 40)} has the smallest, with {percent(shares.min() / 100)}."
    )


def spectra(modules: pd.DataFrame, shown: int) -> str:
    """Say how many of the components carry the updates, and how many modules are drawn."""
    known = modules[modules["norm"] > 0]
    if known.empty:
        return "Every update is zero: no component has an effect yet."
    used, have = float(known["effective_rank"].sum()), int(known["rank"].sum())
    narrow = one_line(known.loc[at_lowest(known["effective_rank"] / known["rank"].clip(lower=1)), "short"], 40)
    cut = f" {shown:,} of {len(modules):,} modules shown; the table has all." if shown < len(modules) else ""
    return (
        f"Total effective rank: {number(used)} of {have:,} components (effective rank = (Σσ²)² / Σσ⁴). {narrow} uses "
        f"the smallest fraction of its components.{cut}"
    )
