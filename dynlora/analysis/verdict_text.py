"""The verdict in words; whoever shows them escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import pandas as pd

from dynlora.analysis import seed_groups
from dynlora.analysis.pairing import FEWEST_SEEDS
from dynlora.analysis.run_summary import ACTIVE, seconds_taken
from dynlora.analysis.verdict import MOST_SEEDS, SIMPLER, Contest, RunSummary, Verdict, differing
from dynlora.text import listed, metric_words, one_line, plural, rough_duration, score, signed, source_name


@dataclass(frozen=True)
class NextRuns:
    """Runs that would make a verdict surer.

    Attributes:
        seeds: to run, by the id of the run whose configuration they take.
        seconds: of training and evaluation in all; None when no run says how long it took.
        under_way: runs of these seeds that are queued or running already.
    """

    seeds: Mapping[str, tuple[int, ...]]
    seconds: float | None
    under_way: int = 0

    @property
    def n(self) -> int:
        """Number of runs to start."""
        return sum(len(seeds) for seeds in self.seeds.values())


def next_runs(result: Verdict, summaries: Mapping[str, RunSummary]) -> NextRuns | None:
    """Return the runs that would make the decisive contest clear; None when it is, or when no few runs would.

    Both sides get the seeds that the other has, and new ones until there are enough.

    Args:
        result: the verdict.
        summaries: of all runs that may have such seeds, those under way included, by id.
    """
    contest = result.decisive or next(iter(result.contests), None)
    if contest is None or contest.outcome not in ("few", "none", "unclear"):
        return None
    n = contest.seeds_needed if contest.outcome == "unclear" else FEWEST_SEEDS
    if n is None:
        return None
    newest = [max(group.runs) for group in (result.baseline, contest.group)]
    done, active = ([_seeds_of(summaries, run, states) for run in newest] for states in (("finished",), ACTIVE))
    has = [own | more for own, more in zip(done, active, strict=True)]
    needed = _seeds(has, n)
    missing = [tuple(seed for seed in needed if seed not in own) for own in has]
    seeds = {run: todo for run, todo in zip(newest, missing, strict=True) if todo}
    under_way = sum(len(more - own) for own, more in zip(done, active, strict=True))
    return NextRuns(seeds, _seconds(seeds, summaries), under_way) if seeds or under_way else None


def _seeds_of(summaries: Mapping[str, RunSummary], run: str, states: Sequence[str]) -> set[int]:
    """Return the seeds of the runs of a run's configuration that are in one of some states."""
    alike = seed_groups.configuration(dict(summaries[run]))
    members = [one for one in summaries.values() if one.status in states]
    return {one.seed for one in members if one.seed is not None and seed_groups.configuration(dict(one)) == alike}


def _seeds(has: Sequence[set[int]], n: int) -> list[int]:
    """Return n seeds: those that both sides have, those that one has, then the smallest that none has."""
    both, either = has[0] & has[1], has[0] | has[1]
    new = (seed for seed in count() if seed not in either)
    seeds = [*sorted(both), *sorted(either - both)]
    return [seed for seed in seeds if seed >= 0][:n] + [next(new) for _ in range(max(0, n - len(seeds)))]


def _seconds(seeds: Mapping[str, Sequence[int]], summaries: Mapping[str, RunSummary]) -> float | None:
    total = 0.0
    for run, todo in seeds.items():
        took = seconds_taken(dict(summaries[run]))
        if took is None:
            return None
        total += len(todo) * took
    return total


WORDS = {
    "better": "better",
    "worse": "worse",
    "tie": "tie",
    "equal": "equal",
    "unclear": "undecided",
    "few": "too few seeds",
    "none": "no pairs",
    "confounded": "settings differ",
}
"""Results of a contest, as the table names them."""


PHRASES = {
    "better": "is better than",
    "worse": "is worse than",
    "equal": "equals",
    "unclear": "is not significantly different from",
}


def headline(result: Verdict) -> str:
    """Say which configuration to use, and how sure that is."""
    where, contest = f"On {one_line(source_name(result.data), 40)}", result.decisive
    if contest is None:
        return _no_contest(result, where)
    group, baseline = _name(contest.group.label), _name(result.baseline.label)
    n = result.compared
    among = f" (the best of {n} configurations)" if n > 1 and len(result.groups) > 2 else ""
    if contest.outcome == "few":
        has = plural(contest.seeds, "common seed")
        sentence = f"{group}{among} and {baseline} have {has}, too few to decide ({_measured(contest)})"
        return f"{where}, {sentence}.{unlike(contest)}"
    if contest.outcome == "tie":
        return f"{where}, {_use(result)}: {group}{among} and {baseline} tie, no example differs.{unlike(contest)}"
    within = f" within {margin(contest)}" if contest.outcome == "equal" else ""
    sentence = f"{group}{among} {PHRASES[contest.outcome]} {baseline}{within} ({difference(contest)})"
    return f"{where}, {_use(result)}: {sentence}.{unlike(contest)}"


def unlike(contest: Contest) -> str:
    """Say in which settings beside the method the two sides differ, after a space; empty where in none."""
    if not contest.other:
        return ""
    parts = differing(contest.other)
    if contest.has_own_rate:
        return f" Each has its own learning rate, {parts[0]}: that is fair where both were tuned."
    return f" They differ in {listed(parts)}."


def _use(result: Verdict) -> str:
    """Say what to use."""
    if result.use is None:
        return "use either, such as the one with fewer parameters"
    is_simpler = result.decisive is not None and result.decisive.outcome in SIMPLER
    return f"use {_name(result.use.label)}{', the simpler one' if is_simpler else ''}"


def _no_contest(result: Verdict, where: str) -> str:
    if result.contests:
        return f"{where}, there is no verdict yet. {result.contests[0].why}"
    mean = score(result.means[result.baseline.label])
    missing = "other configuration" if result.is_plain else "plain LoRA run"
    return (
        f"{where}, {_name(result.baseline.label)} reaches {metric_words(result.metric)} {mean} "
        f"({plural(len(result.baseline.runs), 'seed')}). There is no {missing} of this model, data set and length to "
        "compare it with."
    )


def _name(label: str) -> str:
    return one_line(label, 80)


def difference(contest: Contest) -> str:
    """Return a difference with its interval and number of seeds."""
    interval = contest.difference
    return "–" if interval is None else f"{_measured(contest)}, {plural(interval.seeds, 'seed')}"


def margin(contest: Contest) -> str:
    """Return the difference up to which two configurations are equal, with its unit."""
    value = contest.margin or 0.0
    return f"{value:g} {'point' if contest.unit == 'points' and value == 1 else contest.unit}"


def _measured(contest: Contest) -> str:
    """Return a difference with its interval."""
    interval, side = contest.difference, contest.side
    if interval is None or side is None:
        return "–"
    mean, low, high = (signed(value, side.digits) for value in (interval.mean, interval.low, interval.high))
    measured = f"{side.key.replace('_', ' ')} {mean} {contest.unit}".strip()
    return f"{measured}, 95 % CI {low} to {high}"


def _shown(contest: Contest | None) -> str:
    return "–" if contest is None else difference(contest)


def outlook(result: Verdict) -> str:
    """Say what would change the verdict."""
    contest = result.decisive
    if contest is None:
        return "Each configuration needs runs with the same seeds on the same data." if result.contests else ""
    if contest.outcome == "few":
        return f"{FEWEST_SEEDS} common seeds are needed: with fewer, the interval hardly covers the choice of the seed."
    adjusted = f", adjusted for {result.compared} comparisons" if result.compared > 1 else ""
    if contest.outcome == "unclear":
        why = (
            f"The interval excludes 0, but the seeds differ too much to be sure{adjusted}. "
            if contest.excludes_0
            else ""
        )
        if contest.seeds_needed is None:
            return f"{why}Undecided: more than {MOST_SEEDS} seeds would be needed."
        more = plural(contest.seeds_needed - contest.seeds, "more seed")
        return f"{why}Undecided: about {more} would decide."
    if contest.outcome == "equal":
        return f"Both the interval and a t interval over the seeds{adjusted} are within {margin(contest)} of 0."
    if contest.outcome in ("better", "worse"):
        return (
            f"Both the interval and a t interval over the seeds{adjusted} exclude 0. This holds for this data set; "
            "others may differ."
        )
    return ""


def drawn(result: Verdict, n: int) -> str:
    """Return the caption of the differences that are drawn, `n` of the configurations."""
    missing = len(result.contests) - n
    words = f"Mean difference from {_name(result.baseline.label)} and its 95 % interval, on the same held-out examples."
    return f"{words} Not drawn: {plural(missing, 'configuration')} without such a number." if missing else words


def left_out(result: Verdict) -> str:
    """Say which runs the verdict is not about."""
    n = result.left_out
    return f"Not included: {plural(n, 'run')} with another model, data set, metric or length." if n else ""


def under_way(runs: NextRuns) -> str:
    """Say how many of the missing runs have been started; empty when none has."""
    return f"{plural(runs.under_way, 'run')} with further seeds queued or running." if runs.under_way else ""


def button(runs: NextRuns) -> str:
    """Return the label of the button that runs what is missing, with its time."""
    time = "" if runs.seconds is None else f", {rough_duration(runs.seconds)}"
    return f"Add seeds: {plural(runs.n, 'run')}{time}"


def table(result: Verdict) -> pd.DataFrame:
    """Return a row for each configuration: mean metric, seeds, and the difference from the baseline."""
    contests = {contest.group.label: contest for contest in result.contests}
    rows = []
    for group in result.groups:
        contest = contests.get(group.label)
        rows.append(
            {
                "configuration": group.label,
                f"mean {metric_words(result.metric)}": round(result.means[group.label], 4),
                "seeds": len(group.runs),
                "difference from the baseline": "baseline" if group is result.baseline else _shown(contest),
                "also differs in": "" if contest is None else ", ".join(contest.other),
                "verdict": "" if contest is None else WORDS[contest.outcome],
            }
        )
    return pd.DataFrame(rows)
