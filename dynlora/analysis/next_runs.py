"""Which runs would make a verdict surer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from dynlora.analysis import seed_groups
from dynlora.analysis.pairing import FEWEST_SEEDS
from dynlora.analysis.run_summary import ACTIVE, seconds_taken
from dynlora.analysis.verdict import Summary, Verdict


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
