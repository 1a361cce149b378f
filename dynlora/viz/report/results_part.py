"""The part of a run's report about what its last evaluation found."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dynlora.store import queries
from dynlora.viz import sentences
from dynlora.viz.health.run_data import RunReading
from dynlora.viz.kit import run_summary as listing
from dynlora.viz.report.document import Block, Chart, Part, Table
from dynlora.viz.run import figures, results
from dynlora.viz.run import result_figures as figures_results
from dynlora.viz.run import result_text as sentences_run


def results_part(run: RunReading) -> Part:
    """Return scores by class and group, the worst examples, and what the adapters add to the base model."""
    evaluated = listing.evaluation(run.evaluations)
    if evaluated is None:
        return Part("Results", [])
    step, payload = evaluated
    worst = listing.worst(payload)
    blocks = [*_classes(step, payload), *_groups(run), *_base(run, payload)]
    if len(worst):
        blocks.append(Table(f"Where is it most wrong at step {step:,}?", worst, is_wide=True))
    return Part("Results", blocks)


def _classes(step: int, payload: Mapping[str, Any]) -> list[Block]:
    found = listing.confusion(payload)
    if found is None:
        return []
    scores, columns = results.class_scores(*found), ["precision", "recall", "F1"]
    dots = partial(figures_results.score_dots, scores, "class", columns, "score, 0 to 1")
    words, table = sentences.confusion(*found, step), listing.confusion_table(*found)
    return [
        Chart("What is taken for what?", partial(figures.confusion, *found), words, table),
        Chart("Which classes does it find?", dots, sentences_run.class_scores(scores), scores),
    ]


def _groups(run: RunReading) -> list[Block]:
    groups = queries.groups_frame(run.folder)
    if groups.empty or groups["metric"].isna().all():
        return []
    metric = run.summary.get("metric") or listing.main_metric(run.summary)[0] or "metric"
    drawn = partial(figures_results.score_dots, groups, "group", ["metric"], metric)
    words = sentences_run.group_scores(groups, metric)
    return [Chart("How does each group of inputs fare?", drawn, words, groups.rename(columns={"metric": metric}))]


def _base(run: RunReading, payload: Mapping[str, Any]) -> list[Block]:
    """Return the probe set with the adapters off and on."""
    ends = results.base_ends(queries.examples_frame(run.folder), run.last("base_loss"), run.last("base_prediction"))
    if ends.empty:
        return []
    labels = [str(label) for label in (payload.get("labels") or [])]
    before, after = "with the adapters off", "with them on"
    named = results.answer_names(ends, labels)
    unit = "nats" if labels else "squared error"
    drawn = partial(figures_results.before_after, named, f"loss {before}", f"loss {after}", unit)
    words = sentences_run.before_after(ends, before, after)
    blocks: list[Block] = [Chart("What do the adapters add?", drawn, words, results.changed(named))]
    return blocks + _answers(named, labels, before, after)


def _answers(named: Any, labels: Sequence[str], before: str, after: str) -> list[Block]:
    if not labels:
        return []
    counts = results.answers(named)
    words = sentences_run.answers(counts, before.capitalize(), after)
    return [Chart("What became of the answers?", partial(figures_results.answer_bar, counts), words, counts)]
