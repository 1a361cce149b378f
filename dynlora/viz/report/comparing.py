"""What the report of several runs holds: how they ended, how they learned, paired differences, ranks, configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.analysis import pairing
from dynlora.analysis.frames import SnapshotQueries
from dynlora.analysis.run_reading import machine
from dynlora.analysis.seed_groups import by_name
from dynlora.config_files import yaml_text
from dynlora.text import plural
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import panels
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.panels import (
    Compared,
    DifferingSettings,
    FinalRanks,
    Frontier,
    GainAgainstForgetting,
    HeldOutMetric,
    TrainingLoss,
)
from dynlora.viz.report.document import Block, Chart, Document, Part, Table, Text
from dynlora.viz.report.one_run import panel_blocks, verdict_part

MOST_PAIRED = 6
"""Groups that are set against the first."""


def comparison_document(folders: Sequence[Path], notes: Sequence[str] = ()) -> Document:
    """Return the report of several runs, with notes at its top.

    Raises:
        DynloraError: when a run cannot be read.
    """
    compared = panels.compared({folder.name: folder for folder in folders}, SnapshotQueries())
    judged = compared.judged
    facts = {
        "Runs": f"{len(compared.names)}",
        "Configurations": f"{len(compared.by_config)}",
        "Deciding metric": compared.metric,
    }
    ranks = panel_blocks([FinalRanks()], compared.view)
    parts = [
        *([] if judged is None else [verdict_part(judged)]),
        _ended(compared),
        Part("Training", panel_blocks([TrainingLoss(), HeldOutMetric()], compared.view)),
        _paired(compared),
        Part("Capacity", ranks, [compare_text.reproducible(compared.alike)] if ranks else []),
        _made(compared),
    ]
    return Document(
        f"Comparison of {plural(len(compared.names), 'run')}",
        "Runs that differ only in the seed are shown as one group, with a band.",
        facts,
        parts,
        [*notes, *compare_model.warnings(compared.rows)],
    )


def _ended(compared: Compared) -> Part:
    judged, metric = compared.judged, compared.metric
    groups = compared.groups if judged is None else judged.in_order(compared.groups)
    points = compare_model.by_group(compared.summaries, groups, metric)
    is_judged = judged is not None and judged.decisive is not None
    words = compare_text.groups(points, metric, is_judged=is_judged)
    each = compare_model.final_table(compared.rows, compared.names, metric)
    return Part(
        "Final results",
        [
            Table("By configuration", compare_model.group_table(points, metric), words, is_wide=True),
            Table("Each run", each, is_wide=True),
            *panel_blocks([Frontier(), GainAgainstForgetting()], compared.view),
        ],
    )


def _paired(compared: Compared) -> Part:
    """Return the paired differences of the other groups from the verdict's baseline, over shared seeds and rows."""
    judged = compared.judged
    base, *others = sorted(
        compared.by_config, key=lambda group: judged is None or judged.baseline.runs[0] not in group.runs
    )
    blocks: list[Block] = []
    notes: list[str] = []
    for second in others[:MOST_PAIRED]:
        pairs, why = pairing.pairs(compared.summaries, base, second)
        sides = [side for side in compared.pairs.differences(pairs) if side.differences] if pairs else []
        if not sides:
            notes.append(f"{second.label} cannot be paired with {base.label}: {why or 'they have no common examples.'}")
        for side in sides:
            forest = pairing.forest(side.differences)
            words = compare_text.paired(
                forest, base.label, second.label, side.what, low_is_good=side.low_is_good, digits=side.digits
            )
            title = f"{second.label} minus {base.label}: {side.key.replace('_', ' ')}"
            blocks.append(
                Chart(title, partial(compare_figures.forest, forest, side.title), f"{words} {why}".strip(), forest)
            )
    return Part("Paired differences", blocks, notes)


def _made(compared: Compared) -> Part:
    """Return what was set differently and what alike, and the versions and machines of the runs."""
    machines = {compared.names[summary["id"]]: machine(summary) for summary in compared.rows}
    keys = list(dict.fromkeys(key for one in machines.values() for key in one))
    versions = pd.DataFrame(
        {"run": list(machines), **{key: [one.get(key) for one in machines.values()] for key in keys}}
    )
    alike = shared([summary["config"] for summary in compared.rows])
    common = yaml_text(by_name(alike)) if alike else "There are no common settings."
    settings = DifferingSettings()
    return Part(
        "Setup",
        [
            *panel_blocks([settings], compared.view),
            Text("Common configuration", common, is_wide=True),
            Table("Versions and machine", versions, is_wide=True),
        ],
        [settings.missing] if compared.differing.empty else [],
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
