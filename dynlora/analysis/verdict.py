"""The verdict on runs of one task: every configuration against the baseline, and what would make it surer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.analysis import pairing, seed_groups, stats
from dynlora.analysis.pairing import FEWEST_SEEDS, RunPairs, Side, same_task
from dynlora.analysis.run_summary import LOW_IS_GOOD, is_uniform, loss_unit, main_metric
from dynlora.analysis.seed_groups import Group, set_values
from dynlora.analysis.stats import LEVEL, Difference, normal_reach, t_reach
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import listed, one_line

SIMPLER = ("unclear", "equal", "tie")
"""Outcomes after which the simpler configuration is used."""

Differences = Callable[[Sequence[tuple[int, str, str]]], Sequence[Side]]
"""Returns what pairs of runs (seed, first, second) differ by, as `RunPairs.differences` does."""

MOST_SEEDS = 10
"""Most common seeds that are proposed; a difference that needs more is too small to matter."""

MARGIN = 1.0
"""Points within which two configurations are equal, unless it is set."""

NATS_PER_POINT = 0.02
"""Nats of loss that count as one point of a metric."""

MOST_CONTESTS = 6
"""Most configurations that are set against the baseline, the best first."""


@dataclass(frozen=True)
class Contest:
    """A configuration against the baseline, over common seeds and held-out examples.

    Attributes:
        group: the configuration.
        side: the number in which they are set against each other; None where there is none.
        unit: of that number; empty where it has none.
        difference: of the group minus the baseline, with its 95 % interval; None where there is none.
        is_clear: enough seeds, the interval excludes 0, and so does the t interval over the seeds, widened for the
            number of configurations (Bonferroni). The bootstrap alone is too narrow for few seeds.
        margin: difference up to which the two are equal, in the unit; None where the unit has none.
        is_equal: enough seeds, and both intervals are within the margin: two one-sided tests at 2.5 % each.
        seeds_needed: common seeds at which a mean of this size would be clear or equal; None when no number up to
            `MOST_SEEDS` would be.
        why: there are no or not all pairs; empty when there are.
        other: settings beside the method in which the group (first value) and the baseline (second) differ, by key.
        is_confounded: the two methods differ in further settings than their rate, so that nothing is judged.
    """

    group: Group
    side: Side | None = None
    unit: str = ""
    difference: Difference | None = None
    is_clear: bool = False
    margin: float | None = None
    is_equal: bool = False
    seeds_needed: int | None = None
    why: str = ""
    other: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    is_confounded: bool = False

    @property
    def gain(self) -> float:
        """The difference, positive where the group is better; minus infinity where it is unknown."""
        if self.side is None or self.difference is None:
            return -math.inf
        return -self.difference.mean if self.side.low_is_good else self.difference.mean

    @property
    def seeds(self) -> int:
        """Common seeds."""
        return 0 if self.difference is None else self.difference.seeds

    @property
    def has_own_rate(self) -> bool:
        """Whether the learning rate is all, beside the method, in which the two sides differ."""
        return set(self.other) == {"train.lr"}

    @property
    def is_tie(self) -> bool:
        """Whether no seed differs at all."""
        difference = self.difference
        return difference is not None and difference.mean == difference.low == difference.high == 0

    @property
    def excludes_0(self) -> bool:
        """Whether the interval that is shown leaves 0 out."""
        return self.difference is not None and self.difference.excludes_0

    @property
    def outcome(self) -> str:
        """The result: better, worse, tie, equal, unclear, few (seeds), none (no common examples) or confounded."""
        if self.difference is None:
            return "confounded" if self.is_confounded else "none"
        if self.is_tie:
            return "tie"
        if self.seeds < FEWEST_SEEDS:
            return "few"
        if self.is_clear:
            return "better" if self.gain > 0 else "worse"
        return "equal" if self.is_equal else "unclear"


def _members(group: Group) -> tuple[str, ...]:
    return (*group.runs, *group.repeats)


@dataclass(frozen=True)
class Verdict:
    """The result of runs of one model, data set, metric and length.

    Attributes:
        data: name or path of the data set.
        metric: that decides.
        groups: the configurations, the best mean metric first.
        means: of that metric over the seeds, by label.
        baseline: what the others are set against: plain LoRA where it is among them, first of the same budget, then
            with most seeds; else the second best.
        is_plain: the baseline is plain LoRA.
        contests: of the others, the greatest gain first.
        compared: number of configurations that the decisive one is the best of; intervals are adjusted for it.
        left_out: finished runs of other models, data, metrics or lengths.
    """

    data: str
    metric: str
    groups: Sequence[Group]
    means: Mapping[str, float]
    baseline: Group
    is_plain: bool
    contests: Sequence[Contest]
    compared: int
    left_out: int

    @property
    def decisive(self) -> Contest | None:
        """The contest that the verdict is about: the greatest clear gain, else the greatest known one."""
        known = [contest for contest in self.contests if contest.difference is not None]
        clear = [contest for contest in known if contest.outcome == "better"]
        return next(iter(clear or known), None)

    @property
    def sides(self) -> tuple[str, str] | None:
        """A run of the baseline and one of the decisive configuration; None where nothing is set against it."""
        return None if self.decisive is None else (self.baseline.runs[0], self.decisive.group.runs[0])

    def in_order(self, groups: Sequence[Group]) -> list[Group]:
        """Return groups in the order of the verdict: by gain over the baseline, which has none; unknown ones last.

        Args:
            groups: of the same runs, whole configurations or single runs; those of one configuration keep their order.
        """
        gains = {run: contest.gain for contest in self.contests for run in _members(contest.group)}
        gains |= dict.fromkeys(_members(self.baseline), 0.0)
        return sorted(groups, key=lambda group: -gains.get(group.runs[0], -math.inf))

    @property
    def use(self) -> Group | None:
        """The configuration to use; None when there are too few seeds to say, or neither is better or simpler."""
        contest = self.decisive
        if contest is None or contest.outcome in ("few", "none"):
            return None
        if contest.outcome in SIMPLER and not self.is_plain:
            return None
        return contest.group if contest.outcome == "better" else self.baseline


def verdict(
    summaries: Mapping[str, RunSummary], differences: Differences, focus: str | None = None, margin: float = MARGIN
) -> Verdict | None:
    """Return the verdict on finished runs; None when none has a result.

    Args:
        summaries: of the runs by id, as `queries.run_summary` returns them.
        differences: of pairs of these runs.
        focus: id of a run whose configuration alone is set against the baseline.
        margin: points within which two configurations are equal; a point is `NATS_PER_POINT` of loss.
    """
    done = {run: one for run, one in summaries.items() if one.status == "finished" and _result(one) is not None}
    if not done or (focus is not None and focus not in done):
        return None
    task = _task(done[focus]) if focus else _commonest(_task(one) for one in done.values())
    members = {run: one for run, one in done.items() if _task(one) == task}
    first = next(iter(members.values()))
    metric = main_metric(dict(first))[0]
    groups = seed_groups.grouped(list(map(dict, members.values())))
    means = {group.label: _mean([_result(members[run]) or 0.0 for run in group.runs]) for group in groups}
    ranked = sorted(groups, key=lambda group: means[group.label], reverse=metric not in LOW_IS_GOOD)
    focused = next((group for group in groups if _holds(group, focus)), None)
    plain = _baselines(members, groups, focused, _budget(members[(focused or ranked[0]).runs[0]]))
    baseline, others = _sides(members, ranked, plain, focused)
    compared = (1 if len(others) == 1 else len(groups) - 1) if plain else len(groups)
    contests = [_contest(members, baseline, group, differences, compared, margin) for group in others]
    return Verdict(
        str(first.data or "?"),
        metric,
        ranked,
        means,
        baseline,
        bool(plain),
        sorted(contests, key=lambda contest: contest.gain, reverse=True),
        compared,
        len(done) - len(members),
    )


def _baselines(
    members: Mapping[str, RunSummary], groups: Sequence[Group], focus: Group | None, budget: Any
) -> list[Group]:
    """Return the groups of plain LoRA, the best baseline first.

    That is the one that most configurations are set against fairly, then one of the same budget, then most seeds.
    """
    judged = groups if focus is None else [focus]

    def worth(group: Group) -> tuple[int, bool, int]:
        fair = sum(not _confounders(members, group, other) for other in judged)
        return -fair, _budget(members[group.runs[0]]) != budget, -len(group.runs)

    return sorted((group for group in groups if is_uniform(members[group.runs[0]])), key=worth)


def _confounders(members: Mapping[str, RunSummary], group: Group, other: Group) -> dict[str, tuple[str, str]]:
    return seed_groups.confounders(members[group.runs[0]], members[other.runs[0]])


def _sides(
    members: Mapping[str, RunSummary], ranked: Sequence[Group], plain: Sequence[Group], focus: Group | None
) -> tuple[Group, Sequence[Group]]:
    """Return the baseline, and what is set against it, what can be judged first.

    The baseline is the first plain LoRA. Without it the best two are set against each other, and a
    single configuration against nothing.
    """
    if plain:
        baseline = plain[0]
        others = [group for group in ranked if group is not baseline]
        others.sort(key=lambda group: bool(_confounders(members, group, baseline)))
        return baseline, others[:MOST_CONTESTS] if focus is None or focus is baseline else [focus]
    if focus is not None or len(ranked) < 2:
        return focus or ranked[0], []
    return ranked[1], ranked[:1]


def _budget(summary: RunSummary) -> Any:
    return summary.params.get("budget")


def _result(summary: RunSummary) -> float | None:
    """Return the last value of the metric that decides."""
    return main_metric(dict(summary))[1]


def _task(summary: RunSummary) -> str:
    """Return what runs must share to be set against each other; a setting that is not set is as one that is missing."""
    chosen = set_values({"data": summary.config.get("data") or {}})
    shared = [summary.model, summary.data, chosen, main_metric(dict(summary))[0]]
    return json.dumps([*shared, summary.max_steps], sort_keys=True, default=str)


def _commonest(tasks: Iterable[str]) -> str:
    """Return the most frequent task, the first of equals."""
    counted: dict[str, int] = {}
    for task in tasks:
        counted[task] = counted.get(task, 0) + 1
    return max(counted, key=lambda task: counted[task])


def _holds(group: Group, run: str | None) -> bool:
    return run in group.runs or run in group.repeats


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _contest(
    members: Mapping[str, RunSummary], baseline: Group, group: Group, differences: Differences, of: int, margin: float
) -> Contest:
    if other := _confounders(members, group, baseline):
        settings = listed(differing(other))
        why = f"The runs also differ in {settings}: the difference would not be the method's alone."
        return Contest(group, why=why, other=other, is_confounded=True)
    pairs, why = pairing.pairs(members, baseline, group)
    sides = [side for side in differences(pairs) if side.differences] if pairs else []
    other = seed_groups.other_differences(members[group.runs[0]].config, members[baseline.runs[0]].config)
    if not sides:
        return Contest(group, other=other, why=why or "The runs have no results on common held-out examples.")
    summary = members[group.runs[0]]
    side = _decisive_side(sides, main_metric(dict(summary))[0])
    rows = list(side.differences.values())
    difference, level = stats.paired_difference(rows), 1 - (1 - LEVEL) / of
    unit = "nats" if loss_unit(summary) == "nats" else ""
    unit = "points" if side.key in ("accuracy", "exact_match") else unit
    is_clear = pairing.is_significant(rows, difference, level)
    within = {"points": margin, "nats": NATS_PER_POINT * margin}.get(unit)
    is_equal = within is not None and pairing.is_equivalent(rows, difference, within, level)
    needed = _needed(rows, level, within or 0.0)
    return Contest(group, side, unit, difference, is_clear, within, is_equal, needed, why, other)


def differing(other: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return settings in which two sides differ, each as its key with both values."""
    return [f"{one_line(key, 40)} ({ours} against {theirs})" for key, (ours, theirs) in other.items()]


def _needed(rows: Sequence[np.ndarray], level: float, margin: float) -> int | None:
    """Return the seeds at which both intervals would exclude 0 or be within the margin, at the deviations seen.

    That over the examples does not shrink with more seeds: where it decides nothing by itself, no number is enough.
    """
    means = [float(values.mean()) for values in rows]
    mean = abs(float(np.mean(means)))
    room = max(mean, margin - mean)  # what the half-widths must stay below
    if len(rows) < FEWEST_SEEDS or normal_reach(np.mean(rows, axis=0)) >= room:
        return None
    return next((n for n in range(len(rows) + 1, MOST_SEEDS + 1) if t_reach(means, level, n) < room), None)


def _decisive_side(sides: Sequence[Side], metric: str) -> Side:
    """Return the difference in the metric that decides, else in accuracy, or where no answer differs, in loss."""
    comparable = [side for side in sides if any(rows.any() for rows in side.differences.values())] or list(sides)
    by_key = {side.key: side for side in reversed(comparable)}
    return by_key.get(metric) or by_key.get("accuracy") or comparable[0]


MOST_READ = 30
"""Most other runs of a task that are opened for a verdict."""


def run_verdict(folder: Path, summary: RunSummary, among: Collection[str] | None = None) -> Verdict | None:
    """Return the verdict on a finished run; None where it is not finished, or another run cannot be read.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        among: ids of the runs that it may be compared with; all of its folder by default.
    """
    if summary.status != "finished":
        return None
    alike = same_task(queries.list_runs(folder.parent), dict(summary))
    is_read = (alike["status"] == "finished") & (alike["id"].isin(among) if among is not None else True)
    ids = alike.loc[is_read, "id"].head(MOST_READ)
    folders = {folder.name: folder} | {run: folder.parent / run for run in ids}
    summaries = {run: one for run, path in folders.items() if (one := _summary(path)) is not None}
    try:
        return verdict(summaries, RunPairs(folders, summaries, _ask).differences, focus=folder.name)
    except DynloraError:  # of another run
        return None


def _summary(folder: Path) -> RunSummary | None:
    try:
        return queries.run_summary(folder)
    except DynloraError:
        return None


def _ask(query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Ask the store; nothing is kept, since a report asks once."""
    return query(folder, *arguments)
