"""Captions of the charts over many runs, computed from what the charts show; whoever shows one escapes it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.stats import spearman
from dynlora.text import listed, one_line, plural, score
from dynlora.viz.compare.results_table import Paper
from dynlora.viz.compare.scatter_model import QUARTERS, format_value, title
from dynlora.viz.compare.sweep_model import MOST_LINES

BRUSH = "Drag a box over an axis to pick runs; with Shift, further axes narrow the choice."
"""How runs are picked in the picture of settings and results."""


def scatter(points: pd.DataFrame, titles: tuple[str, str], of: int) -> str:
    """Say how closely two numbers are related, over how many runs.

    Args:
        points: columns x and y, one row for each run that has both.
        titles: what x and y are.
        of: runs that are compared.
    """
    shown = f"{len(points):,} of {plural(of, 'run')} shown" if len(points) < of else f"{plural(of, 'run')} shown"
    if len(points) < 3 or points["x"].nunique() < 2 or points["y"].nunique() < 2:
        return f"{shown}: too few different values for a correlation."
    rho = spearman(points["x"], points["y"])
    way = "rises" if rho > 0 else "falls"
    strength = "hardly changes" if abs(rho) < 0.2 else f"{way} weakly" if abs(rho) < 0.5 else way
    return (
        f"{shown}; {_plain(titles[1])} {strength} with {_plain(titles[0])} (rank correlation {rho:.2f}). "
        "The runs also differ in other settings, so this is not evidence of a cause."
    )


def _plain(words: str) -> str:
    """Return what an axis shows without its unit."""
    return one_line(words.partition(" (")[0], 60)


def parallel(lines: pd.DataFrame, settings: Sequence[str], metric: str) -> str:
    """Say what the best quarter of the runs was set to, where it agrees."""
    best = lines[lines["quarter"] == QUARTERS[0]]
    known = int((lines["quarter"] != QUARTERS[4]).sum())
    if len(best) < 2 or known < 4:
        return f"{plural(len(lines), 'run')}, {known} with a result in {one_line(metric, 40)}: too few for quarters."
    alike = [f"{one_line(name, 40)} {best[name].iloc[0]}" for name in settings if best[name].nunique() == 1]
    words = f"share {listed(alike)}" if alike else "have no value in common"
    return f"{plural(len(lines), 'run')}. The {len(best)} runs of the best quarter by {one_line(metric, 40)} {words}."


def grid(cells: pd.DataFrame, keys: tuple[str, str], metric: str, hidden: Sequence[str], *, low_is_good: bool) -> str:
    """Say which cell is best and what each cell averages over.

    Args:
        cells: as `sweeps.grid` returns them.
        keys: settings of the columns and the rows.
        metric: of the cells.
        hidden: settings that differ within a cell, beside the seed.
        low_is_good: less is better.
    """
    known = cells[cells["n"] > 0]
    best = known.loc[at_lowest(known["mean"]) if low_is_good else at_highest(known["mean"])]
    warning = "Cells average over seeds."
    if hidden:
        names = listed([one_line(title(key), 40) for key in hidden])
        warning = f"Cells also average over {names}; search for one value of it to separate them."
    return (
        f"Best {one_line(metric, 40)}: {score(best['mean'])} at {one_line(title(keys[0]), 40)} {best['across']} and "
        f"{one_line(title(keys[1]), 40)} {best['down']}, n = {best['n']}. {len(known)} of {len(cells)} pairs were run, "
        f"{plural(int(known['n'].sum()), 'run')} in total. {warning}"
    )


def along(lines: pd.DataFrame, drawn: int, of: int, name: str, *, low_is_good: bool, is_chosen: bool = False) -> str:
    """Say where the best point is, and whether at an end of what was tried.

    Args:
        lines: as `sweeps.curves` returns them.
        drawn: lines that are drawn.
        of: lines there are.
        name: field of the x axis.
        low_is_good: less is better.
        is_chosen: of several configurations the best at each value is shown.
    """
    best = lines.loc[at_lowest(lines["mean"]) if low_is_good else at_highest(lines["mean"])]
    own = lines[lines["group"] == best["group"]]
    ends = (own["x"].min(), own["x"].max())
    words = (
        f"Best: {one_line(best['group'], 80)} at {_plain(title(name))} {format_value(float(best['x']))}, "
        f"{score(best['mean'])} over {plural(int(best['n']), 'run')}"
    )
    if len(own) > 1 and best["x"] in ends:
        words += ", at the edge of the tried range, so the best value may be outside it"
    band = " The band covers the lowest to the highest seed." if (lines["n"] > 1).any() else ""
    cut = f" {drawn} of {of} lines shown, those with the most points (at most {MOST_LINES})." if drawn < of else ""
    chosen = (
        " For methods with several configurations, the best one at each value is shown, which is optimistic."
    ) * is_chosen
    return f"{words}.{band}{chosen}{cut}"


def paper(table: Paper) -> str:
    """Say what the table's numbers are and what it leaves out."""
    parts = [
        "Mean ± standard deviation over the runs of one configuration, number of runs in brackets, best mean in bold."
    ]
    if table.chosen:
        parts.append(
            f"For {listed(table.chosen)}, the best of several configurations by held-out result is shown, which is "
            "optimistic. Select one row per configuration to see all."
        )
    if table.left_out:
        parts.append(f"{plural(table.left_out, 'run')} not finished or without a result not included.")
    if table.cut:
        parts.append(f"{table.cut} more rows or columns are not shown.")
    if any(cell is not None and cell.n == 1 for line in table.lines for cell in line.cells):
        parts.append("A single run is weak evidence: seeds alone can differ by as much.")
    return " ".join(parts)
