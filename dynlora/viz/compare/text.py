"""Captions of the Compare page, computed from what the charts show; whoever shows one escapes it."""

from __future__ import annotations

import pandas as pd

from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.pairing import FEWEST_SEEDS
from dynlora.text import listed, number, one_line, plural, score, signed

BAND = "The band covers the lowest to the highest run of a group."


def curves(bands: pd.DataFrame, *, low_is_good: bool) -> str:
    """Say which group ends best, and what the band is."""
    if bands.empty:
        return "None of these runs has recorded this value yet."
    last = bands.drop_duplicates("group", keep="last")
    best = last.loc[at_lowest(last["mean"]) if low_is_good else at_highest(last["mean"])]
    side = "Lowest" if low_is_good else "Highest"
    alike = int((last["mean"].map(score) == score(best["mean"])).sum())
    if alike > 1:
        whole = "All" if alike == len(last) else f"{alike} of {len(last)}"
        tie = f"{whole} curves end with the {side.lower()} value, {score(best['mean'])} (tie)."
        return f"{tie} {BAND}" if (bands["n"] > 1).any() else tie
    words = f"{side} at the last step: {one_line(best['group'], 80)}, {best['mean']:.3f} at step {int(best['step']):,}"
    if best["n"] > 1:
        words += f" (from {best['low']:.3f} to {best['high']:.3f})"
    return f"{words}." + (f" {BAND}" if (bands["n"] > 1).any() else "")


def left_out(named: list[str], x_title: str) -> str:
    """Say which runs cannot be placed on an axis; empty when all can."""
    if not named:
        return ""
    return f"Not shown because {x_title} is not recorded: {listed([one_line(name, 40) for name in named])}."


def groups(table: pd.DataFrame, metric: str, *, low_is_good: bool, is_judged: bool = False) -> str:
    """Say which group leads, by how much, and how far apart its runs are.

    Args:
        table: as `model.by_group` returns it.
        metric: that decides.
        low_is_good: of the metric.
        is_judged: a verdict on the same page says which to use: means over other seeds must not name another.
    """
    known = table.dropna(subset=["mean"]).sort_values("mean", ascending=low_is_good)
    if len(known) < 2:
        return f"Fewer than two groups have a final {one_line(metric, 40)}."
    if is_judged:
        low, high = score(known["mean"].min()), score(known["mean"].max())
        return (
            f"Mean {one_line(metric, 40)} from {low} to {high} over {len(known)} groups, each over its own seeds. "
            "The verdict compares common seeds."
        )
    first, second = known.iloc[0], known.iloc[1]
    lead = abs(first["mean"] - second["mean"])
    if score(first["mean"]) == score(second["mean"]):
        alike = known[known["mean"].map(score) == score(first["mean"])]
        names = listed([one_line(name, 80) for name in alike["group"]], limit=5)
        return f"Tie: {names} have the same mean {one_line(metric, 40)}, {score(first['mean'])}."
    words = (
        f"{one_line(first['group'], 80)} has the best mean {one_line(metric, 40)}, {score(first['mean'])}, better by "
        f"{lead:.3f} than {one_line(second['group'], 80)}"
    )
    if min(first["n"], second["n"]) < 2:
        return f"{words}. With a single run on one side, the difference may be chance."
    spread = max(first["high"] - first["low"], second["high"] - second["low"])
    verdict = "less than" if lead < spread else "more than"
    return f"{words}. This is {verdict} the range of {spread:.3f} between runs of one group."


def frontier(table: pd.DataFrame, metric: str) -> str:
    """Say which groups make up the Pareto set."""
    known = table.dropna(subset=["active", "mean"])
    if known.empty:
        return "None of these runs has both a metric and a parameter count."
    best = known[known["pareto"]].sort_values("active")
    names = listed([one_line(name, 60) for name in best["group"]], limit=5)
    return (
        f"Pareto set (outlined): {names}. No other point has a better {one_line(metric, 40)} with as few parameters. "
        f"{len(known)} points of {number(int(known['n'].sum()))} runs; whiskers cover the lowest to the highest run."
    )


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


def settings_that_differ(difference: pd.DataFrame) -> str:
    """Say in which settings the runs differ; `difference` as `comparison.config_difference`."""
    names = [one_line(name, 40) for name in difference["setting"]]
    return f"The settings differ in {listed(names, 4)}." if names else "The settings are the same."


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
    mean, low, high = (signed(whole[column], digits) for column in ("mean", "low", "high"))
    if seeds < FEWEST_SEEDS and excludes_0:
        verdict = f"{'better' if better else 'worse'} on these examples, and too few seeds to decide"
    words = (
        f"{one_line(second, 60)} minus {one_line(first, 60)}: {mean} {what} (95 % CI {low} to {high}, "
        f"{plural(seeds, 'seed')}): {verdict}. Paired over {plural(seeds, 'common seed')} and "
        f"{number(int(whole['examples']))} examples; bootstrap over both"
    )
    return words + (". With one seed, the CI covers the examples only." if seeds == 1 else ".")
