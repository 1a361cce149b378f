"""`dynlora sweep --search`: trials instead of all combinations, the best of them, and whether it beats the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from dynlora.cli.run_commands import Report
from dynlora.config_files import read_yaml, split_override
from dynlora.errors import ConfigError
from dynlora.integrations.search.driver import Choice, Space
from dynlora.jobs.sweep import SECTION
from dynlora.store.schema import run_folder
from dynlora.store.summary import run_summary


def search(
    *,
    config: Path | None,
    overrides: tuple[str, ...],
    name: str | None,
    runs_dir: Path,
    study: str | None,
    **settings: Any,
) -> Report:
    """Search, confirm the best trial on new seeds, and say what came out.

    Args:
        config: file of the base.
        overrides: KEY=RANGE or KEY=A,B,C.
        name: of the study where `study` is not given.
        runs_dir: folder of the runs.
        study: name of the study; one that exists continues.
        settings: the other fields of `Request`.

    Raises:
        ConfigError: when what was asked for breaks a rule.
        UnknownStrategyError: when it names a method that does not exist.
        RunBusyError: when another process searches in the same study.
    """
    from dynlora.integrations.search.run import Request, run_all, searches
    from dynlora.strategies import strategy_class

    base = read_yaml(config) if config is not None else {}
    listed = _texts(base.pop(SECTION, None))
    listed |= {split_override(one)[0]: one.partition("=")[2] for one in overrides}
    request = Request(study=(name or "search").replace(" ", "-") if study is None else study, **settings)
    studies = searches(request, base, listed)
    for name in {name for one in studies for name in _methods(one.base, one.space)}:
        strategy_class(name)
    outcomes = run_all(studies, runs_dir, request.confirm, lambda line: click.echo(line, err=True))
    document = {"studies": outcomes, "comparisons": comparisons(outcomes, runs_dir)}
    return document, words(document)


def _methods(base: Mapping[str, Any], space: Space) -> set[str]:
    """Return the names of the methods that a study trains."""
    varying = space.get("strategy.name")
    names = varying.values if isinstance(varying, Choice) else (base.get("strategy", {}).get("name", "dynamic"),)
    return {str(name) for name in names}


def _texts(section: Any) -> dict[str, str]:
    """Return the section `sweep` of a file as texts by key, as after `--set KEY=`."""
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{SECTION}={section!s:.60}: must be keys with values, such as `train.lr: 1e-4..1e-2:log`")
    return {str(key): ",".join(map(str, one)) if isinstance(one, list) else str(one) for key, one in section.items()}


def comparisons(studies: Sequence[Mapping[str, Any]], runs_dir: Path) -> list[dict[str, Any]]:
    """Return paired differences on the confirming seeds: each best to its default, and to the best of the first study.

    Each is {what, against, n, key, difference, low, high, outcome}; outcome is better, worse, unclear or few.
    """
    pairs = [(one, one, "best", "default") for one in studies]
    pairs += [(one, studies[0], "best", "best") for one in studies[1:]]
    rows = []
    for one, other, first, second in pairs:
        seeds = {row["seed"]: (row[first], None) for row in one["seeds"]}
        both = [(row["seed"], row[second], seeds[row["seed"]][0]) for row in other["seeds"] if row["seed"] in seeds]
        if compared := _compared(both, runs_dir, str(one["objective"])):
            what, against = (f"{side['study']}: {kind}" for side, kind in ((one, first), (other, second)))
            rows.append({"what": what, "against": against, **compared})
    return rows


def _compared(pairs: Sequence[tuple[int, str, str]], runs_dir: Path, objective: str) -> dict[str, Any]:
    """Return the paired difference of runs, second minus first, over seeds and rows; empty without pairs."""
    from dynlora.analysis.pairing import FEWEST_SEEDS, RunPairs, is_significant
    from dynlora.analysis.stats import paired_difference

    folders = {run: run_folder(runs_dir, run) for _, *both in pairs for run in both}
    summaries = {run: run_summary(folder) for run, folder in folders.items()}
    sides = RunPairs(folders, summaries, lambda query, folder, *rest: query(folder, *rest)).differences(pairs)
    known = [side for side in sides if side.differences]
    if not known:
        return {}
    side = next((side for side in known if side.key == objective), known[0])
    rows = list(side.differences.values())
    difference = paired_difference(rows)
    is_clear = is_significant(rows, difference)
    better = (difference.mean < 0) == side.low_is_good
    outcome = "few" if len(rows) < FEWEST_SEEDS else "unclear" if not is_clear else "better" if better else "worse"
    return {
        "n": len(rows),
        "key": side.key,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "outcome": outcome,
    }


SAID = {
    "better": "better",
    "worse": "worse",
    "unclear": "not significantly different",
    "few": "not decided, with so few seeds",
}
"""Outcomes in words."""


def words(document: Mapping[str, Any]) -> str:
    """Return what a search found in words: the conclusion, then the best values of each study, then what mattered."""
    lines = [_compared_words(one) for one in document["comparisons"]]
    lines = lines or ["The best trial was not confirmed on new seeds; add --confirm 3 to the command."]
    for study in document["studies"]:
        lines += ["", *_study_words(study)]
    return "\n".join(lines)


def _compared_words(one: Mapping[str, Any]) -> str:
    """Return one comparison as a sentence."""
    mean, low, high = (f"{one[key]:+.4f}".replace("-", "−") for key in ("difference", "low", "high"))
    seeds = f"{one['n']} new seed{'' if one['n'] == 1 else 's'}"
    return (
        f"{one['what']} is {SAID[one['outcome']]} than {one['against']}"
        if one["outcome"] in ("better", "worse")
        else f"{one['what']} against {one['against']}: {SAID[one['outcome']]}"
    ) + f" ({one['key']} {mean}, 95 % CI {low} to {high}, {seeds})"


def _study_words(study: Mapping[str, Any]) -> list[str]:
    """Return the best trial of a study, what to set, and which settings mattered."""
    states = [trial["state"] for trial in study["trials"]]
    stopped = [trial.get("status") for trial in study["trials"]].count("stopped early")
    other = len(states) - states.count("complete") - stopped
    count = f"{len(states)} trials, {stopped} stopped early, {other} without a result"
    best = study["best"]
    if best is None:
        return [f"{study['study']}: no trial finished ({count}); widen the ranges, or look at the runs tagged with it"]
    chosen = " ".join(f"--set {key}={_plain(value)}" for key, value in best["values"].items())
    default = study["default"]["value"]
    beside = "" if default is None else f"; default {default:.4f}, same seed and rows, so that the best looks too good"
    lines = [
        f"{study['study']}: {study['objective']} {best['value']:.4f}, trial {best['number'] + 1} of {count}{beside}",
        f"  {chosen}",
    ]
    if study["importance"]:
        lines.append(
            "  what mattered: " + ", ".join(f"{key} {100 * x:.0f} %" for key, x in study["importance"].items())
        )
    return lines


def _plain(value: Any) -> str:
    """Return a value as it is written after `--set KEY=`."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
