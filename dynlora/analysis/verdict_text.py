"""The verdict in words; whoever shows them escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import pandas as pd

from dynlora.analysis import seed_groups
from dynlora.analysis.pairing import FEWEST_SEEDS
from dynlora.analysis.run_summary import ACTIVE, seconds_taken
from dynlora.analysis.verdict import MOST_SEEDS, Contest, Summary, Verdict
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


def next_runs(found: Verdict, summaries: Mapping[str, Summary]) -> NextRuns | None:
    """Return the runs that would make the decisive contest clear; None when it is, or when no few runs would.

    Both sides get the seeds that the other has, and new ones until there are enough.

    Args:
        found: the verdict.
        summaries: of all runs that may have such seeds, those under way included, by id.
    """
    contest = found.decisive or next(iter(found.contests), None)
    if contest is None or contest.outcome not in ("few", "none", "unclear"):
        return None
    n = contest.seeds_needed if contest.outcome == "unclear" else FEWEST_SEEDS
    if n is None:
        return None
    newest = [max(group.runs) for group in (found.baseline, contest.group)]
    done, active = ([_seeds_of(summaries, run, states) for run in newest] for states in (("finished",), ACTIVE))
    has = [own | more for own, more in zip(done, active, strict=True)]
    wanted = _seeds(has, n)
    missing = [tuple(seed for seed in wanted if seed not in own) for own in has]
    seeds = {run: todo for run, todo in zip(newest, missing, strict=True) if todo}
    under_way = sum(len(more - own) for own, more in zip(done, active, strict=True))
    return NextRuns(seeds, _seconds(seeds, summaries), under_way) if seeds or under_way else None


def _seeds_of(summaries: Mapping[str, Summary], run: str, states: Sequence[str]) -> set[int]:
    """Return the seeds of the runs of a run's configuration that are in one of some states."""
    alike = seed_groups.configuration(summaries[run])
    members = (one for one in summaries.values() if one["status"] in states and isinstance(one.get("seed"), int))
    return {one["seed"] for one in members if seed_groups.configuration(one) == alike}


def _seeds(has: Sequence[set[int]], n: int) -> list[int]:
    """Return n seeds: those that both sides have, those that one has, then the smallest that none has."""
    both, either = has[0] & has[1], has[0] | has[1]
    new = (seed for seed in count() if seed not in either)
    found = [*sorted(both), *sorted(either - both)]
    return [seed for seed in found if seed >= 0][:n] + [next(new) for _ in range(max(0, n - len(found)))]


def _seconds(seeds: Mapping[str, Sequence[int]], summaries: Mapping[str, Summary]) -> float | None:
    total = 0.0
    for run, todo in seeds.items():
        took = seconds_taken(summaries[run])
        if took is None:
            return None
        total += len(todo) * took
    return total


WORDS = {
    "better": "better",
    "worse": "worse",
    "tie": "tie",
    "unclear": "not significantly different",
    "few": "too few seeds",
    "none": "no pairs",
}
"""Results of a contest, as the table names them."""


PHRASES = {"better": "better than", "worse": "worse than", "unclear": "not significantly different from"}


def headline(found: Verdict) -> str:
    """Say which configuration to use, and how sure that is."""
    where, contest = f"On {one_line(source_name(found.data), 40)}", found.decisive
    if contest is None:
        return _no_contest(found, where)
    group, baseline = _name(contest.group.label), _name(found.baseline.label)
    n = found.compared
    among = f" (the best of {n} configurations)" if n > 1 and len(found.groups) > 2 else ""
    if contest.outcome == "few":
        has = plural(contest.seeds, "common seed")
        said = f"{group}{among} and {baseline} have {has}, too few to decide ({difference(contest)})"
        return f"{where}, {said}.{unlike(contest)}"
    if contest.outcome == "tie":
        return f"{where}, {group}{among} and {baseline} tie: no example differs.{unlike(contest)} {_use(found)}"
    said = f"{group}{among} is {PHRASES[contest.outcome]} {baseline} ({difference(contest)})"
    return f"{where}, {said}.{unlike(contest)} {_use(found)}"


def unlike(contest: Contest) -> str:
    """Say in which settings beside the method the two sides differ, after a space; empty where in none."""
    if not contest.other:
        return ""
    parts = [f"{one_line(key, 40)} ({ours} against {theirs})" for key, (ours, theirs) in contest.other.items()]
    return f" They also differ in {listed(parts)}, so the difference may not be the method's."


def _use(found: Verdict) -> str:
    """Say what to use."""
    if found.use is None:
        return "Use either, such as the one with fewer parameters."
    is_simpler = found.decisive is not None and found.decisive.outcome in ("unclear", "tie")
    return f"Use {_name(found.use.label)}{', the simpler one' if is_simpler else ''}."


def _no_contest(found: Verdict, where: str) -> str:
    if found.contests:
        return f"{where}, there is no verdict yet. {found.contests[0].why}"
    mean = score(found.means[found.baseline.label])
    missing = "other configuration" if found.is_plain else "plain LoRA run"
    return (
        f"{where}, {_name(found.baseline.label)} reaches {metric_words(found.metric)} {mean} "
        f"({plural(len(found.baseline.runs), 'seed')}). There is no {missing} of this model, data set and length to "
        "compare it with."
    )


def _name(label: str) -> str:
    return one_line(label, 80)


def difference(contest: Contest) -> str:
    """Return a difference with its interval and number of seeds."""
    found, side = contest.difference, contest.side
    if found is None or side is None:
        return "–"
    mean, low, high = (signed(value, side.digits) for value in (found.mean, found.low, found.high))
    measured = f"{side.key.replace('_', ' ')} {mean} {contest.unit}".strip()
    return f"{measured}, 95 % CI {low} to {high}, {plural(found.seeds, 'seed')}"


def _shown(contest: Contest | None) -> str:
    return "–" if contest is None else difference(contest)


def outlook(found: Verdict) -> str:
    """Say what would change the verdict."""
    contest = found.decisive
    if contest is None:
        return "Each configuration needs runs with the same seeds on the same data." if found.contests else ""
    if contest.outcome == "few":
        return f"{FEWEST_SEEDS} common seeds are needed: with fewer, the interval hardly covers the choice of the seed."
    adjusted = f", adjusted for {found.compared} comparisons" if found.compared > 1 else ""
    if contest.outcome == "unclear":
        why = (
            f"The interval excludes 0, but the seeds differ too much to be sure{adjusted}. "
            if contest.excludes_0
            else ""
        )
        if contest.seeds_needed is None:
            return f"{why}A difference this small would not become clear with {MOST_SEEDS} seeds."
        return f"{why}A difference of this size would be clear with about {contest.seeds_needed} seeds."
    if contest.outcome in ("better", "worse"):
        return (
            f"Both the interval and a t interval over the seeds{adjusted} exclude 0. This holds for this data set; "
            "others may differ."
        )
    return ""


def drawn(found: Verdict, n: int) -> str:
    """Return the caption of the differences that are drawn, `n` of the configurations."""
    missing = len(found.contests) - n
    words = f"Mean difference from {_name(found.baseline.label)} and its 95 % interval, on the same held-out examples."
    return f"{words} Not drawn: {plural(missing, 'configuration')} without such a number." if missing else words


def left_out(found: Verdict) -> str:
    """Say which runs the verdict is not about."""
    n = found.left_out
    return f"Not included: {plural(n, 'run')} with another model, data set, metric or length." if n else ""


def under_way(runs: NextRuns) -> str:
    """Say how many of the missing runs have been started; empty when none has."""
    return f"{plural(runs.under_way, 'run')} with further seeds queued or running." if runs.under_way else ""


def button(runs: NextRuns) -> str:
    """Return the label of the button that runs what is missing, with its time."""
    time = "" if runs.seconds is None else f", about {rough_duration(runs.seconds)}"
    return f"Add seeds: {plural(runs.n, 'run')}{time}"


def table(found: Verdict) -> pd.DataFrame:
    """Return a row for each configuration: mean metric, seeds, and the difference from the baseline."""
    contests = {contest.group.label: contest for contest in found.contests}
    rows = []
    for group in found.groups:
        contest = contests.get(group.label)
        rows.append(
            {
                "configuration": group.label,
                f"mean {metric_words(found.metric)}": round(found.means[group.label], 4),
                "seeds": len(group.runs),
                "difference from the baseline": "baseline" if group is found.baseline else _shown(contest),
                "also differs in": "" if contest is None else ", ".join(contest.other),
                "verdict": "" if contest is None else WORDS[contest.outcome],
            }
        )
    return pd.DataFrame(rows)
