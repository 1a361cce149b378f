"""The measured sizes of an adapter as tables; store objects in, pandas out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.measurement_files import compress_file
from dynlora.store.compressions import Compressed, Size
from dynlora.viz.kit import rank_picture

METHODS = ("global", "uniform", "energy", "random")
"""How components are chosen, the one that is offered first."""

TITLES = {
    "global": "one threshold over all modules",
    "uniform": "the same rank everywhere",
    "energy": "the same energy in each module (PEFT)",
    "random": "random components",
}
"""What each of them is called."""

SCORES = ("accuracy", "f1", "matthews", "pearson", "exact_match", "token_accuracy")
"""Metrics that a size is told by, the first that there is."""


TOLERANCES = (0.001, 0.005, 0.01, 0.02, 0.05)
"""Increases of the held-out loss that can count as none, nats; the second one is the usual."""


def measured(folder: Path, summary: Mapping[str, Any]) -> Compressed | None:
    """Return the sizes that were measured of the adapter as it is now, None where there are none to choose from.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
    """
    result = Compressed.read(compress_file(folder))
    fits = result is not None and result.is_whole and result.step == summary["step"] and offered(result)
    return result if fits else None


def best(result: Compressed, tolerance: float) -> Size:
    """Return the smallest size shown to cost at most a tolerance, in nats; the largest where none is."""
    return result.smallest(tolerance) or offered(result)[-1]


def points(result: Compressed) -> pd.DataFrame:
    """Return one row per method and size, on the rows that no size was chosen on.

    Columns: method, share (kept, of the parameters), parameters, loss, difference, low, high, and the score's name.
    """
    name = score_of(result)
    return pd.DataFrame(
        [
            {
                "method": size.method,
                "share": kept_share(result, size),
                "parameters": size.parameters,
                "loss": size.reported_on.loss,
                "difference": size.reported_on.difference,
                "low": size.reported_on.low,
                "high": size.reported_on.high,
                **({} if name is None else {name: size.reported_on.metrics.get(name)}),
            }
            for size in result.sizes
        ]
    )


def kept_share(result: Compressed, size: Size) -> float:
    """Return the fraction of the adapter's parameters that a size keeps, 0 to 1."""
    return size.parameters / result.parameters if result.parameters else 0.0


def score_of(result: Compressed) -> str | None:
    """Return the metric that the sizes are told by; None where there is only the loss."""
    return next((name for name in SCORES if name in result.whole.metrics), None)


def offered(result: Compressed) -> list[Size]:
    """Return the sizes that can be chosen, the smallest first; one for each number of parameters."""
    sizes = {size.parameters: size for size in result.of_method(METHODS[0]) if size.parameters}
    return [sizes[n] for n in sorted(sizes)]


def pattern(result: Compressed, size: Size, modules: pd.DataFrame) -> pd.DataFrame:
    """Return the kept rank of each module as a picture of the model: rows are layers, columns kinds of modules.

    Args:
        result: the sizes.
        size: one of them.
        modules: as `analysis.frames.described` returns them.
    """
    return rank_picture.pattern(result.ranks_of(size), modules)


def by_kind(result: Compressed, size: Size, modules: pd.DataFrame) -> pd.DataFrame:
    """Return one row per kind of module: kind, modules, before and kept (mean ranks), share (kept, of its parameters).

    Args:
        result: the sizes; the largest is what there was before.
        size: one of them.
        modules: as `analysis.frames.described` returns them.
    """
    before, after = result.ranks_of(offered(result)[-1]), result.ranks_of(size)
    frame = modules[["name", "label", "cost"]].copy()
    frame["before"] = [before.get(name, 0) for name in frame["name"]]
    frame["kept"] = [after.get(name, 0) for name in frame["name"]]
    rows: list[Mapping[str, Any]] = []
    for label, part in frame.groupby("label", sort=False):
        whole = float((part["before"] * part["cost"]).sum())
        share = float((part["kept"] * part["cost"]).sum()) / whole if whole else np.nan
        rows.append(
            {
                "kind": label,
                "modules": len(part),
                "mean rank before": part["before"].mean(),
                "mean rank kept": part["kept"].mean(),
                "kept": share,
            }
        )
    return pd.DataFrame(rows).sort_values("kept", ascending=False, kind="stable").reset_index(drop=True)


def empty_modules(size: Size) -> int:
    """Return how many modules keep nothing."""
    return sum(rank == 0 for rank in size.ranks)


def uniform_rank(size: Size, modules: pd.DataFrame) -> int:
    """Return the rank at which plain LoRA on all modules has about as many parameters, 1 or more."""
    cost = float(modules["cost"].sum())
    return max(1, round(size.parameters / cost)) if cost else 1


def values_text(values: Mapping[str, Any]) -> list[str]:
    """Return settings as arguments of the command line."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def compared_share(result: Compressed, share: float) -> float | None:
    """Return the size nearest to a fraction at which every way to choose was measured; None where there is none."""
    measured = [{size.share for size in result.of_method(method)} for method in METHODS]
    common = set.intersection(*measured)
    return min(common, key=lambda one: abs(one - share)) if common else None


def compared(result: Compressed, share: float) -> pd.DataFrame:
    """Return what each way to choose costs at a size: parameters, loss and its change with the interval."""
    rows = []
    for method in METHODS:
        size = next(one for one in result.of_method(method) if one.share == share)
        worth = size.reported_on
        rows.append(
            {
                "kept by": TITLES[method],
                "parameters": size.parameters,
                "loss": worth.loss,
                "loss change": worth.difference,
                "95 % CI from": worth.low,
                "to": worth.high,
            }
        )
    return pd.DataFrame(rows)
