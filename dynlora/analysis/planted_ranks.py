"""Planted ranks: which modules of a run need rank, as its data says, and how many components are in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynlora.analysis.run_reading import uniform_rank
from dynlora.analysis.run_summary import main_metric
from dynlora.store.meta import section, table
from dynlora.store.summary import RunSummary
from dynlora.text import metric_words, one_line, plural, score, sentence_case

PLANTED_DATA = "planted"
"""Name of the data whose need is known."""

PLANTED_SETTINGS: dict[str, Any] = {
    "data.name": PLANTED_DATA,
    "data.max_length": 32,
    "data.max_eval": 256,
    "data.planted_modules": "4",
    "data.planted_rank": 8,
    "train.steps": 200,
    "train.batch_size": 16,
    "train.lr": 8e-3,
    "train.weight_decay": 0.0,
    "adapter.rank": 1,
    "adapter.dropout": 0.0,
    "log.eval_every": 50,
}
"""A short training in which uniform LoRA is far from the planted ranks: the preset and the demo."""


def needed_modules(summary: RunSummary) -> frozenset[str]:
    """Return the names of the modules that need rank; none where the data of the run does not say so."""
    return frozenset(table(_truth(summary).get("sizes")))


def outlined(summary: RunSummary) -> str:
    """Say what the outline in a map of the modules means; empty where the data does not say what is needed."""
    return "Outlined: where rank is needed." if needed_modules(summary) else ""


def _truth(summary: RunSummary) -> dict[str, Any]:
    return table(summary.task_facts.get("planted"))


@dataclass(frozen=True)
class Placement:
    """Where the components of a run are.

    Attributes:
        needed: how many modules need rank.
        placed: components in these.
        total: components in all.
        uniform: (placed, total) of uniform LoRA; None where that is not known.
    """

    needed: int
    placed: int
    total: int
    uniform: tuple[int, int] | None

    @property
    def where(self) -> str:
        """The modules that need rank, in words."""
        return f"the {plural(self.needed, 'module')} that {'needs' if self.needed == 1 else 'need'} them"


def placement(summary: RunSummary, ranks: Mapping[str, int] | None = None) -> Placement | None:
    """Return where the components of a run are; None where none of its modules is known to need rank.

    Args:
        summary: as `queries.run_summary` returns it.
        ranks: by module; the last ones by default.
    """
    needed = needed_modules(summary)
    ranks = summary.ranks if ranks is None else ranks
    placed = [rank for name, rank in ranks.items() if name in needed]
    if not placed:
        return None
    rank = uniform_rank(summary)
    uniform = None if rank is None else (rank * len(placed), rank * len(ranks))
    return Placement(len(placed), sum(placed), sum(ranks.values()), uniform)


def placement_sentence(summary: RunSummary, ranks: Mapping[str, int] | None = None) -> str:
    """Say how many components are in the modules that need them, beside uniform LoRA; empty where that is not known.

    Args:
        summary: as `queries.run_summary` returns it.
        ranks: by module; the last ones by default.
    """
    one = placement(summary, ranks)
    if one is None:
        return ""
    are = "is" if one.placed == 1 else "are"
    words = f"{one.placed:,} of {plural(one.total, 'component')} {are} in {one.where}"
    if one.uniform in (None, (one.placed, one.total)):
        return f"{words}{'' if one.uniform is None else ', as with uniform LoRA'}."
    return f"{words} (uniform LoRA: {one.uniform[0]:,} of {one.uniform[1]:,})."


MOST_GROUPS = 6
"""Groups that a sentence names."""


def placements(groups: Mapping[str, Sequence[RunSummary]]) -> dict[str, str]:
    """Return how many components of each group of runs are where they are needed, as 7 of 33; means of several runs.

    Args:
        groups: summaries by the name of the group. Nothing is returned unless all runs learn from one teacher.
    """
    runs = [run for group in groups.values() for run in group]
    if any(placement(run) is None or _teacher(run) != _teacher(runs[0]) for run in runs):
        return {}
    return {name: " of ".join(_means(group)) for name, group in groups.items() if group}


def _teacher(summary: RunSummary) -> tuple[Any, ...]:
    """Return what runs of one teacher share; the sizes of its updates differ a little with the seed of a run."""
    truth, data = _truth(summary), section(summary.config, "data")
    return needed_modules(summary), truth.get("seed"), truth.get("rank"), data.get("planted_strength")


def _means(group: Sequence[RunSummary]) -> list[str]:
    """Return the mean components in the modules that need them, and in all."""
    counts = [(one.placed, one.total) for one in map(placement, group) if one is not None]
    return [f"{mean:,.1f}".removesuffix(".0") for mean in np.mean(counts, axis=0)]


def compared_sentence(groups: Mapping[str, Sequence[RunSummary]]) -> str:
    """Say the results of groups of runs beside each other, with their components where these are needed.

    Args:
        groups: summaries by the name of the group. The sentence is empty unless all runs learn from one teacher.
    """
    counts = placements(groups)
    if len(counts) < 2:
        return ""
    first = next(run for group in groups.values() for run in group)
    one, metric = placement(first), sentence_case(metric_words(main_metric(dict(first))[0]))
    results = {
        name: [value for _, value in map(main_metric, map(dict, groups[name])) if value is not None] for name in counts
    }
    words = [
        f"{one_line(name, 60)} {score(float(np.mean(values)) if values else None)} ({counts[name]})"
        for name, values in results.items()
    ]
    words[MOST_GROUPS:] = [f"{len(words) - MOST_GROUPS} more"] if len(words) > MOST_GROUPS else []
    return "" if one is None else f"{metric} (components in {one.where}): {'; '.join(words)}."
