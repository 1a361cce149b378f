"""What a report holds, part by part: of one run, or of several side by side; what was not recorded is left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from dynlora.analysis import health, pairing, ranks_to_use, run_summary, verdict_text
from dynlora.analysis import run_summary as words
from dynlora.analysis.frames import SnapshotQueries
from dynlora.analysis.result_strip import result_strip
from dynlora.analysis.run_reading import RunReading, machine, setup_frame
from dynlora.analysis.seed_groups import by_name
from dynlora.analysis.verdict import Verdict, run_verdict
from dynlora.config_files import yaml_text
from dynlora.kinds.run_kind import RunKind, registry
from dynlora.store.summary import RunSummary
from dynlora.store.summary import run_summary as read_summary
from dynlora.text import number, one_line, plural
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import panels
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.panels import Compared, panels_of
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette
from dynlora.viz.report.page import Block, Chart, Document, Part, Table, Text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def verdict_part(verdict: Verdict) -> Part:
    """Return which configuration to use, how sure that is, and every difference from the baseline."""
    notes = (verdict_text.headline(verdict), verdict_text.outlook(verdict), verdict_text.left_out(verdict))
    drawn, table = compare_figures.drawable(verdict), verdict_text.table(verdict)
    title, blocks = "Differences from the baseline", list[Block]()
    if drawn:
        words = verdict_text.drawn(verdict, len(drawn))
        blocks.append(Chart(title, partial(compare_figures.differences, verdict), words, table, is_wide=True))
    elif verdict.contests:
        blocks.append(Table(title, table, is_wide=True))
    return Part("Verdict", blocks, [note for note in notes if note])


def ranks_part(run: RunReading) -> Part:
    """Return the ranks that a finished or stopped run ended with, as a table by kind and as code for PEFT."""
    summary, title = run.summary, "Ranks to use"
    evidence, settings = ranks_to_use.evidence_of(run), ranks_to_use.lora_settings(summary, summary.ranks)
    if evidence is None or settings is None:
        return Part(title, [])
    kinds = ranks_to_use.kinds_table(evidence)
    return Part(
        title,
        [
            Table("Ranks by kind of module", kinds, ranks_to_use.columns(kinds), is_wide=True),
            *(Text(name, text, is_wide=True) for name, (text, _) in ranks_to_use.snippets(settings).items()),
        ],
        [ranks_to_use.headline(evidence)],
    )


def setup_part(summary: RunSummary) -> Part:
    """Return how the run was made: its configuration, and the versions and machine it was made with."""
    return Part(
        "Setup",
        [
            Text("Configuration", yaml_text(by_name(summary.config))),
            Table("Versions, machine and size", setup_frame(summary)),
        ],
    )


HALF = 4
"""Of a row, in eighths: what is wider takes the row."""


def kind_document(folder: Path, kind: RunKind) -> Document:
    """Return the report of a run: its conclusion, what that rests on, its panels, and how it was made.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary, result = read_summary(folder), kind.read(folder)
    conclusion, view = kind.conclusion(result), RunView(folder, result)
    tables = [Table(title.replace("-", " ").capitalize(), frame) for title, frame in kind.tables(result).items()]
    missing = [f"{panel.title}: {panel.reason_missing(view)}" for panel in kind.panels if panel.data(view) is None]
    done = kind.done.format(step=summary.step, total=summary.max_steps)
    return Document(
        one_line(summary.name, 120),
        kind.headline(result),
        {"status": f"{summary.status}, {done.lower()}"},
        [
            Part("Conclusion", tables, [note for note in (conclusion.text, conclusion.basis) if note]),
            Part("Evidence", panel_blocks(kind.panels, view), missing),
            setup_part(summary),
        ],
        [words.about(summary)],
    )


def panel_blocks(panels: Iterable[Panel[Any]], view: RunView) -> list[Block]:
    """Return the panels that apply to a run, as a document shows them."""
    views = [
        (panel, one)
        for panel in panels
        if panel.applies(view) and not panel.element
        for one in panel.document_views(view).values()
    ]
    return [block for panel, one in views for block in _blocks(panel, one)]


def _blocks(panel: Panel[Any], view: RunView) -> list[Block]:
    """Return a panel as a chart, or as its table where it has no figure, and its further tables."""
    data = panel.data(view)
    if data is None:
        return []
    title, caption, table = panel.heading(view), panel.caption(data), panel.short_table(data)
    is_wide = panel.is_wide or panel.width > HALF
    more: list[Block] = [Table(title, frame) for title, frame in panel.more(data).items()]
    if not panel.has_figure:
        return [Table(title, table, caption, is_wide), *more]
    draw = cast("Callable[[Palette], Figure]", partial(panel.figure, data))
    return [Chart(title, draw, caption, table, is_wide), *more]


CELLS = 12_000
"""Most cells of a heat map, modules times columns: a report is read and mailed."""


def run_document(run: RunReading, among: Collection[str] | None = None) -> Document:
    """Return the report of a run.

    Args:
        run: what it says.
        among: ids of the runs that it is judged with; all of its folder by default.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary, view = run.summary, document_view(run)
    times = run_summary.step_times(run.scalars)
    judged = run_verdict(run.folder, summary, among)
    strip = result_strip(summary, judged, ranks_to_use.evidence_of(run))
    in_strip = ("Adapter parameters in use", "Budget used", strip.metric.question.partition(",")[0])
    facts = run_summary.headline(summary, len(run.event_steps), times)
    parts = [
        *([] if judged is None else [verdict_part(judged)]),
        ranks_part(run),
        training_part(view),
        panel_part("Capacity", view),
        panel_part("Module ablation", view),
        panel_part("Inputs", view),
        panel_part("Results", view),
        panel_part("Cost", view),
        panel_part("Machine", view),
        setup_part(summary),
    ]
    return Document(
        one_line(summary.name, 120),
        run_summary.about(summary),
        {"Status": _status(summary), **{name: words for name, words in facts.items() if name not in in_strip}},
        parts,
        _health(run),
        strip.answers,
    )


def document_view(run: RunReading) -> RunView:
    """Return what the panels of a report are drawn of: maps of a size that a document can hold."""
    run = replace(run, columns=int(np.clip(CELLS // max(len(run.modules), 1), 40, 400)))
    return RunView(run.folder, run, run.store)


def _status(summary: RunSummary) -> str:
    where = f"step {number(summary.step)} of {number(summary.max_steps)}"
    return summary.status if summary.step >= summary.max_steps else f"{summary.status}, {where}"


def _health(run: RunReading) -> list[str]:
    """Return the findings about the run, and what was checked and is well."""
    if not run.summary.step:
        return []
    outcome = health.outcome(run.evidence)
    sentences = (f"{one.level.capitalize()}: {one.title}. {one.words}" for one in outcome.findings)
    return [*sentences, " ".join([outcome.conclusion, *outcome.details])]


def panel_part(title: str, view: RunView) -> Part:
    """Return the panels of a training that stand under a heading."""
    return Part(title, panel_blocks((panel for panel in registry()["train"].panels if panel.part == title), view))


def training_part(view: RunView) -> Part:
    """Return what the run learned; a note where it has not begun."""
    part = panel_part("Training", view)
    return part if part.blocks else replace(part, notes=["No data has been recorded yet."])


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
    ranks = panel_blocks(panels_of("Capacity"), compared.view)
    parts = [
        *([] if judged is None else [verdict_part(judged)]),
        _ended(compared),
        Part("Training", panel_blocks(panels_of("Training"), compared.view)),
        _paired(compared),
        Part("Capacity", ranks, [compare_text.reproducible(compared.alike)] if ranks else []),
        _made(compared),
    ]
    return Document(
        f"Comparison of {plural(len(compared.names), 'run')}",
        "Runs that differ only in the seed are shown as one group, with a band.",
        facts,
        parts,
        [*notes, *map(verdict_text.headline, compared.judgements[1:]), *compared.notes],
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
            *panel_blocks(panels_of("Final results"), compared.view),
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
    machines = {compared.names[summary.id]: machine(summary) for summary in compared.rows}
    keys = list(dict.fromkeys(key for one in machines.values() for key in one))
    versions = pd.DataFrame(
        {"run": list(machines), **{key: [one.get(key) for one in machines.values()] for key in keys}}
    )
    alike = shared([summary.config for summary in compared.rows])
    common = yaml_text(by_name(alike)) if alike else "There are no common settings."
    return Part(
        "Setup",
        [
            *panel_blocks(panels_of("Setup"), compared.view),
            Text("Common configuration", common, is_wide=True),
            Table("Versions and machine", versions, is_wide=True),
        ],
        [one.reason_missing(compared.view) for one in panels_of("Setup") if one.data(compared.view) is None],
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
