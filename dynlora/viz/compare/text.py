"""Captions of the Compare page, computed from what the charts show; whoever shows one escapes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.pairing import FEWEST_SEEDS
from dynlora.analysis.seed_groups import LABELS, differences_of
from dynlora.analysis.stats import spearman
from dynlora.text import listed, number, one_line, plural, score, signed
from dynlora.viz.compare.results_table import Paper
from dynlora.viz.compare.scatter_model import QUARTERS, format_value, title
from dynlora.viz.compare.sweep_model import MOST_LINES

BAND = "The band covers the lowest to the highest run of a group."


def curves(bands: pd.DataFrame) -> str:
    """Say between which values the curves end, and what the band is; which is best is for a verdict to say."""
    last = bands.drop_duplicates("group", keep="last")
    low, high = score(last["mean"].min()), score(last["mean"].max())
    if len(last) == 1:
        words = f"The curve ends at {low}"
    elif low == high:
        words = f"{'Both' if len(last) == 2 else f'All {len(last)}'} curves end at {low}"
    else:
        words = f"The {len(last)} curves end between {low} and {high}"
    return f"{words}." + (f" {BAND}" if (bands["n"] > 1).any() else "")


def left_out(named: list[str], x_title: str) -> str:
    """Say which runs cannot be placed on an axis; empty when all can."""
    if not named:
        return ""
    return f"Not shown because {x_title} is not recorded: {listed([one_line(name, 40) for name in named])}."


def groups(table: pd.DataFrame, metric: str, *, is_judged: bool) -> str:
    """Say between which values the means of the groups are; a mean without an interval names no winner.

    Args:
        table: as `model.by_group` returns it.
        metric: that decides.
        is_judged: a verdict on the same page says which to use.
    """
    known = table.dropna(subset=["mean"])
    if len(known) < 2:
        return f"Fewer than two groups have a final {one_line(metric, 40)}."
    low, high = score(known["mean"].min()), score(known["mean"].max())
    then = "The verdict compares common seeds." if is_judged else "Without common seeds, the order may be chance."
    return f"Mean {one_line(metric, 40)} from {low} to {high} over {len(known)} groups, each over its own seeds. {then}"


def frontier(table: pd.DataFrame, metric: str) -> str:
    """Say which groups make up the Pareto set."""
    known = table.dropna(subset=["active", "mean"])
    best = known[known["pareto"]].sort_values("active")
    names = listed([one_line(name, 60) for name in best["group"]], limit=5)
    return (
        f"Pareto set (outlined): {names}. No other point has a better {one_line(metric, 40)} with as few parameters. "
        f"{len(known)} points of {number(int(known['n'].sum()))} runs; whiskers cover the lowest to the highest run."
    )


def retention(table: pd.DataFrame, metric: str) -> str:
    """Say which group forgets least, which most, and which make up the Pareto set; the columns of `by_retention`."""
    ordered = table.sort_values("forgotten", kind="stable")
    least, most = ordered.iloc[0], ordered.iloc[-1]
    unit = least["unit"]
    words = f"{one_line(least['group'], 60)} forgets least ({signed(least['forgotten'], 3)} {unit})"
    if len(table) > 1:
        words += f", {one_line(most['group'], 60)} most ({signed(most['forgotten'], 3)})"
    names = listed([one_line(name, 60) for name in table[table["pareto"]]["group"]], limit=5)
    return f"{words}. Pareto set of {one_line(metric, 40)} and retention (outlined): {names}."


def allocation(ranks: pd.DataFrame, is_spread: bool) -> str:
    """Say how far the last ranks of the groups differ, or which module's rank differs most between seeds."""
    if is_spread:
        known = ranks.max(axis=1).dropna()
        if known.empty:
            return "There is no spread over seeds."
        most = one_line(known.idxmax(), 80)
        return f"The rank of {most} varies most between seeds: standard deviation {known.max():.2f} components."
    if ranks.shape[1] < 2:
        return "There is only one column, so there is no comparison."
    spread = (ranks.max(axis=1) - ranks.min(axis=1)).dropna()
    if spread.empty:
        return "The runs have no common modules."
    if not spread.max():
        return f"All {len(spread)} common modules have the same final rank in every column."
    differ = int((spread > 0).sum())
    return f"{differ} of {len(spread)} common modules have different final ranks, by up to {spread.max():.3g}."


def capacity(ranks: pd.DataFrame, runs: int) -> str:
    """Say how far the columns of the map of last ranks differ, with how many runs they are; `ranks` as `allocation`."""
    if ranks.empty:
        return f"{plural(runs, 'run')}: no ranks have been recorded yet."
    groups = "" if ranks.shape[1] == runs else f" in {plural(ranks.shape[1], 'group')}"
    return f"{plural(runs, 'run')}{groups}: {allocation(ranks, is_spread=False)}"


MOST_VALUES = 4
"""Settings that the sentence names, and values of each."""


def they_differ(configs: Sequence[Mapping[str, Any]]) -> str:
    """Say in which settings runs differ and what they have, and how many others are equal.

    Args:
        configs: of the runs, of the baseline first.
    """
    differ, equal = differences_of(configs)
    if not differ:
        return f"All {equal} settings are equal but the seed." if equal else ""
    words = [f"{_setting(key)} ({_values(values)})" for key, values in differ.items()]
    return f"They differ in {listed(words, MOST_VALUES)}; the other {equal} settings are equal."


def _setting(key: str) -> str:
    """Return what people call a setting, without its unit."""
    return LABELS.get(key, key.removesuffix(".name")).partition(" (")[0]


def _values(values: Sequence[str]) -> str:
    more = ["…"] if len(values) > MOST_VALUES else []
    return " → ".join([*values[:MOST_VALUES], *more])


def settings_that_differ(difference: pd.DataFrame) -> str:
    """Say in which settings the runs differ; `difference` as `comparison.config_difference`."""
    names = [one_line(name, 40) for name in difference["setting"]]
    return f"The settings differ in {listed(names, 4)}."


def reproducible(table: pd.DataFrame) -> str:
    """Say whether runs of a group end with alike ranks; `table` as `comparison.reproducibility`."""
    if table.empty:
        return "Reproducibility over seeds needs two or more seeds of one configuration."
    parts = []
    for row in table.to_dict("records"):
        rho = row["spearman"]
        words = f"mean rank correlation {rho:.2f}" if pd.notna(rho) else "all ranks equal"
        parts.append(f"{one_line(row['group'], 60)}: {words}, standard deviation {row['deviation']:.2f} components")
    return f"Reproducibility over seeds: {'; '.join(parts)}."


def paired(rows: pd.DataFrame, first: str, second: str, what: str, *, low_is_good: bool, digits: int) -> str:
    """Say the paired difference with its interval, and whether the interval excludes zero; `rows` as in a forest."""
    whole = rows.iloc[-1]
    better = (whole["mean"] < 0) == low_is_good
    excludes_0 = whole["low"] > 0 or whole["high"] < 0
    seeds = len(rows) - 1
    verdict = (
        f"{'better' if better else 'worse'} (the CI excludes 0)" if excludes_0 else "inconclusive (the CI includes 0)"
    )
    is_tie = whole["low"] == whole["high"] == 0
    mean, low, high = (signed(whole[column], digits) for column in ("mean", "low", "high"))
    if seeds < FEWEST_SEEDS and excludes_0:
        verdict = f"{'better' if better else 'worse'} on these examples, and too few seeds to decide"
    difference = f"{mean} {what} (95 % CI {low} to {high}, {plural(seeds, 'seed')}): {verdict}"
    if is_tie:
        difference = f"no difference in {what.partition(' of ')[2] or what}, on any example"
    basis = f"{plural(seeds, 'common seed')} and {number(int(whole['examples']))} examples; bootstrap over both"
    words = f"{one_line(second, 60)} minus {one_line(first, 60)}: {difference}. Paired over {basis}"
    return words + (". With one seed, the CI covers the examples only." if seeds == 1 else ".")


BRUSH = "Drag a box over an axis to pick runs; with Shift, further axes narrow the choice."
"""How runs are picked in the picture of settings and results."""


def scatter(points: pd.DataFrame, titles: tuple[str, str], of: int) -> str:
    """Say how closely two numbers are related, over how many runs.

    Args:
        points: columns x and y, one row for each run that has both.
        titles: what x and y are.
        of: runs that are compared.
    """
    count = f"{len(points):,} of {plural(of, 'run')} shown" if len(points) < of else f"{plural(of, 'run')} shown"
    if len(points) < 3 or points["x"].nunique() < 2 or points["y"].nunique() < 2:
        return f"{count}: too few different values for a correlation."
    rho = spearman(points["x"], points["y"])
    way = "rises" if rho > 0 else "falls"
    strength = "hardly changes" if abs(rho) < 0.2 else f"{way} weakly" if abs(rho) < 0.5 else way
    return (
        f"{count}; {_plain(titles[1])} {strength} with {_plain(titles[0])} (rank correlation {rho:.2f}). "
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
