"""The part of a run's report about what its last evaluation found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dynlora.analysis import results, run_summary, written
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.registry import registry
from dynlora.store import queries
from dynlora.viz.kit.panel import RunView
from dynlora.viz.report.document import Block, Chart, Part, Table
from dynlora.viz.report.kind_report import panel_blocks
from dynlora.viz.run import generations, result_figures, result_text


def results_part(view: RunView) -> Part:
    """Return scores by class and group, the worst examples, and what the adapters add to the base model."""
    run: RunReading = view.result
    evaluated = run_summary.evaluation(run.evaluations)
    if evaluated is None:
        return Part("Results", [])
    panels = panel_blocks((panel for panel in registry()["train"].panels if panel.part == "Results"), view)
    return Part("Results", [*panels, *_base(run, evaluated[1]), *_generated(run)])


def _generated(run: RunReading) -> list[Block]:
    """Return what the model wrote at the last evaluation beside the first; nothing for a run that writes nothing."""
    steps = generations.by_step(queries.events_frame(run.folder, ("generations",)))
    if not steps:
        return []
    last = next(reversed(steps))
    table = generations.table(steps[last], next(iter(steps.values())))
    return [Table(f"Generated texts at step {last:,}", table, generations.conclusion(steps), is_wide=True)]


def _base(run: RunReading, payload: Mapping[str, Any]) -> list[Block]:
    """Return the probe set with the adapters off and on."""
    ends = results.base_ends(queries.examples_frame(run.folder), run.final("base_loss"), run.final("base_prediction"))
    if ends.empty:
        return []
    labels = [str(label) for label in (payload.get("labels") or [])]
    before, after = "with adapters off", "with adapters on"
    named = results.answer_names(ends, labels)
    unit = run_summary.loss_unit(run.summary)
    drawn = partial(
        result_figures.before_after, named, f"Loss {before}", f"Loss {after}", unit, has_classes=bool(labels)
    )
    words, table = result_text.before_after(ends, before, after), results.changed(named)
    table = written.as_written(table) if run_summary.writes(run.summary) else table
    blocks: list[Block] = [Chart("Effect of the adapters", drawn, words, table)]
    return blocks + _answers(named, labels, before, after)


def _answers(named: Any, labels: Sequence[str], before: str, after: str) -> list[Block]:
    if not labels:
        return []
    counts = results.answers(named)
    words = result_text.answers(counts, before.capitalize(), after)
    return [Chart("Changed predictions", partial(result_figures.answer_bar, counts), words, counts)]
