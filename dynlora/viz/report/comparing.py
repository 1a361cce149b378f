"""What the report of several runs holds: how they ended, how they learned, paired differences, ranks, configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import pairing, run_summary, seed_groups
from dynlora.analysis.pairing import RunPairs
from dynlora.analysis.run_reading import RunReading, machine
from dynlora.analysis.seed_groups import Group, by_name
from dynlora.analysis.verdict import Verdict, verdict
from dynlora.config_files import yaml_text
from dynlora.store.summary import RunSummary
from dynlora.text import plural
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import text as compare_text
from dynlora.viz.kit.run_colours import line_styles
from dynlora.viz.kit.theme import Palette
from dynlora.viz.report.document import Block, Chart, Document, Part, Table, Text
from dynlora.viz.report.one_run import verdict_part

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
    def summaries(self) -> dict[str, RunSummary]:
        """As `queries.run_summary` returns them, by id."""
        return {run.summary["id"]: run.summary for run in self.runs}

    @cached_property
    def names(self) -> dict[str, str]:
        """Distinct display names by id."""
        return compare_model.distinct_names(list(self.summaries.values()))

    @cached_property
    def groups(self) -> list[Group]:
        """The runs by configuration; each alone where no two share one."""
        groups = seed_groups.grouped(list(self.summaries.values()))
        return groups if len(groups) < len(self.runs) else seed_groups.alone(self.names, self.summaries)

    @cached_property
    def metric(self) -> str:
        """The one that decides."""
        return compare_model.shared_metric(list(self.summaries.values()))


def comparison_document(runs: Sequence[RunReading], notes: Sequence[str] = ()) -> Document:
    """Return the report of several runs, with notes at its top.

    Raises:
        DynloraError: when a run cannot be read.
    """
    compared = Compared(runs)
    configurations = seed_groups.grouped(list(compared.summaries.values()))
    facts = {
        "Runs": f"{len(runs)}",
        "Configurations": f"{len(configurations)}",
        "Deciding metric": compared.metric,
    }
    summed_up = verdict(compared.summaries, _pairs_of(compared).differences)
    parts = [
        *([] if summed_up is None else [verdict_part(summed_up)]),
        _ended(compared, summed_up),
        _learned(compared),
        _paired(compared, _baseline_first(configurations, summed_up)),
        _ranks(compared, configurations),
        _made(compared),
    ]
    title = f"Comparison of {plural(len(runs), 'run')}"
    return Document(
        title,
        "Runs that differ only in the seed are shown as one group, with a band.",
        facts,
        parts,
        [*notes, *compare_model.warnings(list(compared.summaries.values()))],
    )


def _baseline_first(groups: Sequence[Group], judged: Verdict | None) -> list[Group]:
    """Return the groups with the verdict's baseline first, so that both subtract the same."""
    return sorted(groups, key=lambda group: judged is None or judged.baseline.runs[0] not in group.runs)


def _pairs_of(compared: Compared) -> RunPairs:
    folders = {run.summary["id"]: run.folder for run in compared.runs}
    return RunPairs(folders, compared.summaries, lambda query, *arguments: query(*arguments))


def _in_own_colours(draw: Callable[..., go.Figure], compared: Compared) -> Callable[[Palette], go.Figure]:
    """Return what draws a figure of the groups in the colours that they have on Compare."""
    groups = {group.title: group for group in compared.groups}
    return lambda colours: draw(colours, styles=line_styles(list(groups), colours, (), groups))


def _ended(compared: Compared, judged: Verdict | None) -> Part:
    summaries = list(compared.summaries.values())
    groups = compared.groups if judged is None else judged.in_order(compared.groups)
    points = compare_model.by_group(compared.summaries, groups, compared.metric)
    is_judged = judged is not None and judged.decisive is not None
    return Part(
        "Final results",
        [
            Table(
                "By configuration",
                compare_model.group_table(points, compared.metric),
                compare_text.groups(points, compared.metric, is_judged=is_judged),
                is_wide=True,
            ),
            Table("Each run", compare_model.final_table(summaries, compared.names, compared.metric), is_wide=True),
            Chart(
                "Quality against parameters",
                _in_own_colours(partial(compare_figures.frontier, points, compared.metric), compared),
                compare_text.frontier(points, compared.metric),
                points,
                is_wide=True,
            ),
            *_retention(compared, points),
        ],
    )


def _retention(compared: Compared, points: pd.DataFrame) -> list[Block]:
    """Return quality against what was forgotten; nothing where no run measured it."""
    last = {run.summary["id"]: run.retention[-1] for run in compared.runs if run.retention}
    forgotten = compare_model.by_retention(points, compared.groups, last, compared.metric)
    if forgotten.empty:
        return []
    drawn = _in_own_colours(partial(compare_figures.retention, forgotten, compared.metric), compared)
    words = compare_text.retention(forgotten, compared.metric)
    return [Chart("Gain against forgetting", drawn, words, forgotten, is_wide=True)]


def _learned(compared: Compared) -> Part:
    """Return the curves of loss and metric by step."""
    blocks: list[Block] = []
    for label, split, name, title in (
        ("Training loss", "train", "loss", "Smoothed training loss (nats)"),
        (
            f"Held-out {compared.metric}",
            "validation",
            compared.metric,
            f"{compared.metric} (held-out)",
        ),
    ):
        is_train = split == "train"
        each = {run.summary["id"]: run_summary.series(run.scalars, name, split) for run in compared.runs}
        series = compare_model.together(each, smoothing="usual" if is_train else "none")
        bands = seed_groups.bands(series.assign(x=series["step"]), compared.groups, between=is_train)
        if len(bands):
            words = compare_text.curves(bands)
            drawn = partial(compare_figures.curves, bands, "step", title, marks=not is_train)
            blocks.append(Chart(label, _in_own_colours(drawn, compared), words, bands))
    return Part("Training", blocks)


def _paired(compared: Compared, groups: Sequence[Group]) -> Part:
    """Return the paired differences of the other groups from the first, over shared seeds and rows."""
    rows = _pairs_of(compared)
    blocks: list[Block] = []
    notes: list[str] = []
    for second in groups[1 : 1 + MOST_PAIRED]:
        pairs, why = pairing.pairs(compared.summaries, groups[0], second)
        sides = [side for side in rows.differences(pairs) if side.differences] if pairs else []
        if not sides:
            notes.append(
                f"{second.label} cannot be paired with {groups[0].label}: {why or 'they have no common examples.'}"
            )
        for side in sides:
            forest = pairing.forest(side.differences)
            words = compare_text.paired(
                forest, groups[0].label, second.label, side.what, low_is_good=side.low_is_good, digits=side.digits
            )
            title = f"{second.label} minus {groups[0].label}: {side.key.replace('_', ' ')}"
            blocks.append(
                Chart(title, partial(compare_figures.forest, forest, side.title), f"{words} {why}".strip(), forest)
            )
    return Part("Paired differences", blocks, notes)


def _ranks(compared: Compared, configurations: Sequence[Group]) -> Part:
    """Return the last ranks by module and group."""
    modules = {run.summary["id"]: run.modules for run in compared.runs}
    table, rows = compare_model.rank_table(list(compared.summaries.values()), modules, compared.names)
    if rows.empty:
        return Part("Capacity", [])
    drawn = compare_model.group_ranks(table, compared.names, compared.groups)
    alike = compare_text.reproducible(compare_model.reproducibility(table, compared.names, configurations))
    read = drawn.rename(index=dict(zip(rows["name"], rows["short"], strict=True)))
    words = f"{compare_text.allocation(read, False)} {alike}"
    figure = partial(compare_figures.final_ranks, drawn, rows)
    return Part("Capacity", [Chart("Rank by module", figure, words, compare_model.named_rows(drawn), True)])


def _made(compared: Compared) -> Part:
    """Return what was set differently and what alike, and the versions and machines of the runs."""
    summaries = list(compared.summaries.values())
    difference = compare_model.config_difference(summaries, compared.names)
    machines = {compared.names[summary["id"]]: machine(summary) for summary in summaries}
    keys = list(dict.fromkeys(key for one in machines.values() for key in one))
    versions = pd.DataFrame(
        {"run": list(machines), **{key: [one.get(key) for one in machines.values()] for key in keys}}
    )
    same = "" if len(difference) else "The configurations are the same."
    alike = shared([summary["config"] for summary in summaries])
    return Part(
        "Setup",
        [
            Table("Settings that differ", difference, same, is_wide=True),
            Text(
                "Common configuration",
                yaml_text(by_name(alike)) if alike else "There are no common settings.",
                is_wide=True,
            ),
            Table("Versions and machine", versions, is_wide=True),
        ],
    )


def shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that are the same in all configurations, in their sections; empty sections are left out."""
    first, *others = configs
    flat: dict[str, Any] = {}
    for key, value in first.items():
        values = [other[key] for other in others if key in other]
        if len(values) < len(others):
            continue
        if value and all(isinstance(one, Mapping) for one in (value, *values)):
            inner = shared([value, *values])
            if inner:
                flat[key] = inner
        elif all(_same(one, value) for one in values):
            flat[key] = value
    return flat


def _same(one: object, other: object) -> bool:
    """Say whether two settings are equal; 1 and true are not, and neither are 1 and 1.0."""
    return type(one) is type(other) and one == other
