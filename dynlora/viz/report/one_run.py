"""What the report of one run holds, part by part; what the run has not recorded is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dynlora.analysis import health
from dynlora.analysis.gate_effect import gate_effect
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_verdict import run_verdict
from dynlora.kinds.registry import registry
from dynlora.store import queries
from dynlora.viz.inputs import figures as inputs_figures
from dynlora.viz.inputs import model as inputs_model
from dynlora.viz.inputs import text as inputs_text
from dynlora.viz.kit import lines as kit_lines
from dynlora.viz.kit import modules as kit_modules
from dynlora.viz.kit import run_summary
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.text import number, one_line, sentence_case
from dynlora.viz.report.conclusion_parts import ranks_part, verdict_part
from dynlora.viz.report.document import Block, Chart, Document, Part
from dynlora.viz.report.kind_report import panel_blocks
from dynlora.viz.report.knockouts_part import knockouts_part
from dynlora.viz.report.results_part import results_part
from dynlora.viz.report.setup_part import setup_part
from dynlora.viz.run import figures, progress, result_figures, result_text
from dynlora.viz.run import text as run_text

CELLS = 12_000
"""Most cells of a heat map, modules times columns: a report is read and mailed."""


def run_document(run: RunReading) -> Document:
    """Return the report of a run.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary, panels, view = run.summary, registry()["train"].panels, document_view(run)
    times = run_summary.step_times(run.scalars)
    judged = run_verdict(run.folder, summary)
    found = [
        *([] if judged is None else [verdict_part(judged)]),
        ranks_part(run),
        learning_part(run),
        Part("Capacity", panel_blocks((one for one in panels if one.part == "Capacity"), view)),
        knockouts_part(run),
        inputs_part(run),
        results_part(run),
        cost_part(run),
        setup_part(summary),
    ]
    return Document(
        one_line(summary["name"], 120),
        run_summary.about(summary),
        {"status": _status(summary), **run_summary.headline(summary, len(run.event_steps), times)},
        found,
        _health(run),
    )


def document_view(run: RunReading) -> RunView:
    """Return what the panels of a report are drawn of: maps of a size that a document can hold."""
    run = replace(run, columns=int(np.clip(CELLS // max(len(run.modules), 1), 40, 400)))
    return RunView(run.folder, run, run.store)


def _status(summary: Mapping[str, Any]) -> str:
    where = f"step {number(summary['step'])} of {number(summary['max_steps'])}"
    return str(summary["status"]) if summary["step"] >= summary["max_steps"] else f"{summary['status']}, {where}"


def _health(run: RunReading) -> list[str]:
    """Return the findings about the run, and what was checked and is well."""
    if not run.summary["step"]:
        return []
    found = health.outcome(run.evidence)
    said = (f"{one.level.capitalize()}: {one.title}. {one.words}" for one in found.findings)
    return [*said, " ".join([found.conclusion, *found.details])]


def learning_part(run: RunReading) -> Part:
    """Return what the run learned, step by step."""
    train, held_out = (run_summary.series(run.scalars, "loss", split) for split in ("train", "validation"))
    if train.empty:
        return Part("Training", [], ["No data has been recorded yet."])
    metrics, name = (
        run_summary.with_rows(run_summary.held_out(run.scalars), run.summary),
        run.summary.get("metric") or run_summary.main_metric(run.summary)[0],
    )
    blocks: list[Block] = [
        Chart("Training loss", partial(figures.loss_lines, train, held_out), run_text.loss(train, held_out), train)
    ]
    if len(metrics):
        words = run_text.metric(run_summary.series(run.scalars, name, "validation"), name)
        drawn = partial(figures.metric_lines, metrics)
        blocks.append(Chart("Held-out metrics", drawn, words, metrics))
    return Part("Training", blocks)


def cost_part(run: RunReading) -> Part:
    """Return what the run used: parameters, time, and the numbers of its method."""
    blocks: list[Block] = []
    limit, line = run.summary["params"].get("budget"), run.budget
    if len(line):
        used = kit_modules.parameters(line)
        title = "Adapter parameters in use"
        drawn = partial(kit_lines.line, used, title, limit=limit, tick=",")
        blocks.append(Chart("Parameter budget", drawn, run_text.budget(line, limit), line))
    ranks = run.whole("rank", run.columns)
    if len(ranks):
        totals = progress.components_by_kind(ranks, run.modules)
        drawn = partial(result_figures.ranks_by_kind, totals)
        blocks.append(Chart("Rank by module kind over time", drawn, result_text.by_kind(totals), totals))
    times = run_summary.step_times(run.scalars)
    if len(times):
        words = run_text.step_time(times, run_summary.series(run.scalars, "optimizer_bytes", "train"))
        blocks.append(Chart("Step time", partial(figures.step_time, times), words, times))
    rate = run_summary.series(run.scalars, "lr", "train")
    if len(rate):
        drawn = partial(kit_lines.line, rate, "Learning rate")
        blocks.append(Chart("Learning rate", drawn, run_text.learning_rate(rate), rate))
    return Part("Cost", [*blocks, *_own_numbers(run)])


def _own_numbers(run: RunReading) -> list[Block]:
    """Return the numbers that only this run's method records."""
    blocks: list[Block] = []
    for name in run_summary.own_numbers(run.scalars):
        series = run_summary.series(run.scalars, name, "train")
        word = one_line(name.replace("_", " ").replace("/", ": "), 60)
        words = (
            f"{sentence_case(word)} changed from {number(series['value'].iloc[0])} to "
            f"{number(series['value'].iloc[-1])}."
        )
        blocks.append(Chart(f"Method metric: {word}", partial(kit_lines.line, series, word, zero=False), words, series))
    return blocks


def inputs_part(run: RunReading) -> Part:
    """Return the gates by input group, for runs that have gates."""
    gates = queries.gates_by_group(run.folder)
    if gates.empty:
        return Part("Inputs", [])
    probe, examples = queries.probe_gates(run.folder), queries.examples_frame(run.folder)
    fits = not probe.empty and len(probe) == len(examples)
    effect = gate_effect(probe.to_numpy(float), examples["group"].tolist()) if fits else None
    drawn = partial(inputs_figures.gate_map, gates, run.modules, effect, hide=False)
    words = inputs_text.gates(gates, run.modules, effect, run.summary["step"])
    return Part("Inputs", [Chart("Gates by input group", drawn, words, inputs_model.gate_table(gates), is_wide=True)])
