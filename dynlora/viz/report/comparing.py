"""What the report of several runs holds: how they ended, how they learned, paired differences, ranks, configuration."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pandas as pd

from dynlora.config_files import yaml_text
from dynlora.viz.compare import figures as figures_compare
from dynlora.viz.compare import model as comparison
from dynlora.viz.compare import paired_difference as pairing
from dynlora.viz.compare import seed_groups as grouping
from dynlora.viz.compare import text as sentences_compare
from dynlora.viz.compare.paired_rows import RunPairs
from dynlora.viz.compare.seed_groups import Group
from dynlora.viz.health.run_data import RunReading, machine
from dynlora.viz.kit import run_summary as listing
from dynlora.viz.kit.text import plural
from dynlora.viz.report.document import Block, Chart, Document, Part, Table, Text

MOST_PAIRED = 6
"""Groups that are set against the first."""


@dataclass(frozen=True)
class Compared:
    """Runs that a report sets side by side.

    Attributes:
        runs: the runs, each once.
    """

    runs: Sequence[RunReading]

    @cached_property
    def summaries(self) -> dict[str, dict[str, Any]]:
        """As `queries.run_summary` returns them, by id."""
        return {run.summary["id"]: run.summary for run in self.runs}

    @cached_property
    def names(self) -> dict[str, str]:
        """Distinct display names by id."""
        return comparison.distinct_names(list(self.summaries.values()))

    @cached_property
    def groups(self) -> list[Group]:
        """The runs by configuration; each alone where no two share one."""
        found = grouping.grouped(list(self.summaries.values()))
        return found if len(found) < len(self.runs) else grouping.alone(self.names)

    @cached_property
    def metric(self) -> str:
        """The one that decides."""
        return comparison.shared_metric(list(self.summaries.values()))


def comparison_document(runs: Sequence[RunReading]) -> Document:
    """Return the report of several runs.

    Raises:
        DynloraError: when a run cannot be read.
    """
    found = Compared(runs)
    configurations = grouping.grouped(list(found.summaries.values()))
    facts = {
        "runs": f"{len(runs)}",
        "configurations": f"{len(configurations)}",
        "deciding metric": found.metric,
    }
    parts = [
        _ended(found),
        _learned(found),
        _paired(found, configurations),
        _ranks(found, configurations),
        _made(found),
    ]
    title = f"Comparison of {plural(len(runs), 'run')}"
    return Document(title, "Runs that differ in their seed alone are shown as one, with a band.", facts, parts,
                    comparison.warnings(list(found.summaries.values())))  # fmt: skip


def _ended(found: Compared) -> Part:
    summaries = list(found.summaries.values())
    points = comparison.by_group(found.summaries, found.groups, found.metric)
    low = found.metric in comparison.LOW_IS_GOOD
    return Part(
        "How they ended",
        [
            Table(
                "By configuration", comparison.group_table(points, found.metric),
                sentences_compare.groups(points, found.metric, low_is_good=low), is_wide=True,
            ),
            Table("Each run", comparison.final_table(summaries, found.names, found.metric), is_wide=True),
            Chart(
                "What does quality cost in parameters?", partial(figures_compare.frontier, points, found.metric),
                sentences_compare.frontier(points, found.metric), points, is_wide=True,
            ),
        ],
    )  # fmt: skip


def _learned(found: Compared) -> Part:
    """Return the curves of loss and metric by step."""
    blocks: list[Block] = []
    for question, split, name, title in (
        ("Who learns faster?", "train", "loss", "training loss, smoothed, nats"),
        (
            f"Who does better on held-out rows? ({found.metric})",
            "validation",
            found.metric,
            f"{found.metric}, held out",
        ),
    ):
        is_train = split == "train"
        each = {run.summary["id"]: listing.series(run.scalars, name, split) for run in found.runs}
        series = comparison.together(each, smooth=is_train)
        bands = grouping.bands(series.assign(x=series["step"]), found.groups, between=is_train)
        if len(bands):
            words = sentences_compare.curves(bands, low_is_good=is_train or found.metric in comparison.LOW_IS_GOOD)
            drawn = partial(figures_compare.curves, bands, "step", title, marks=not is_train)
            blocks.append(Chart(question, drawn, words, bands))
    return Part("How they learned", blocks)


def _paired(found: Compared, groups: Sequence[Group]) -> Part:
    """Return the paired differences of the other groups from the first, over shared seeds and rows."""
    folders = {run.summary["id"]: run.folder for run in found.runs}
    rows = RunPairs(folders, found.summaries, lambda query, *arguments: query(*arguments))
    blocks: list[Block] = []
    notes: list[str] = []
    for second in groups[1 : 1 + MOST_PAIRED]:
        pairs, why = pairing.pairs(found.summaries, groups[0], second)
        sides = [side for side in rows.differences(pairs) if side.differences] if pairs else []
        if not sides:
            notes.append(f"{second.label} cannot be paired with {groups[0].label}: {why or 'no shared rows.'}")
        for side in sides:
            forest = pairing.forest(side.differences)
            words = sentences_compare.paired(
                forest, groups[0].label, second.label, side.what, low_is_good=side.low_is_good, digits=side.digits
            )
            title = f"{second.label} minus {groups[0].label}: {side.key}"
            blocks.append(
                Chart(title, partial(figures_compare.forest, forest, side.title), f"{words} {why}".strip(), forest)
            )
    return Part("Is the difference more than chance?", blocks, notes)


def _ranks(found: Compared, configurations: Sequence[Group]) -> Part:
    """Return the last ranks by module and group."""
    modules = {run.summary["id"]: run.modules for run in found.runs}
    table, rows = comparison.rank_table(list(found.summaries.values()), modules, found.names)
    if rows.empty:
        return Part("Capacity", [])
    drawn = comparison.group_ranks(table, found.names, found.groups)
    alike = sentences_compare.reproducible(comparison.reproducibility(table, found.names, configurations))
    read = drawn.rename(index=dict(zip(rows["name"], rows["short"], strict=True)))
    words = f"{sentences_compare.allocation(read, False)} {alike}"
    figure = partial(figures_compare.final_ranks, drawn, rows)
    return Part(
        "Capacity", [Chart("Where did they put their capacity?", figure, words, comparison.named_rows(drawn), True)]
    )


def _made(found: Compared) -> Part:
    """Return what was set differently and what alike, and the versions and machines of the runs."""
    summaries = list(found.summaries.values())
    difference = comparison.config_difference(summaries, found.names)
    machines = {found.names[summary["id"]]: machine(summary) for summary in summaries}
    keys = list(dict.fromkeys(key for one in machines.values() for key in one))
    versions = pd.DataFrame(
        {"run": list(machines), **{key: [one.get(key) for one in machines.values()] for key in keys}}
    )
    same = "" if len(difference) else "Nothing: the configurations are the same."
    alike = shared([summary["config"] for summary in summaries])
    return Part(
        "How they were made",
        [
            Table("What was set differently?", difference, same, is_wide=True),
            Text("Configuration that all share", yaml_text(alike) if alike else "Nothing.", is_wide=True),
            Table("Versions and machine", versions, is_wide=True),
        ],
    )


def shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that are the same in all configurations, in their sections; empty sections are left out."""
    first, *others = configs
    found: dict[str, Any] = {}
    for key, value in first.items():
        values = [other.get(key) for other in others if key in other]
        if len(values) < len(others):
            continue
        if value and all(isinstance(one, Mapping) for one in (value, *values)):
            inner = shared([value, *values])
            if inner:
                found[key] = inner
        elif all(_same(one, value) for one in values):
            found[key] = value
    return found


def _same(one: object, other: object) -> bool:
    """Say whether two settings are equal; 1 and true are not, and neither are 1 and 1.0."""
    return type(one) is type(other) and one == other
