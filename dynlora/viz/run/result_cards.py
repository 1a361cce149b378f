"""The Run page's results: what the last evaluation found, and what changed since the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import results, run_summary, written
from dynlora.analysis.gate_effect import reaction_conclusion
from dynlora.analysis.run_reading import read_run
from dynlora.kinds.registry import registry
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.viz.kit.panel import RunView
from dynlora.viz.run import result_figures, result_text
from dynlora.viz.run.generation_cards import generated_texts
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, texts
from dynlora.viz.ui.panel_cards import panel_cards
from dynlora.viz.ui.run_picker import Chosen

NOT_RECORDED = "Not recorded in this run. Newer runs evaluate the base model on the probe set at their end."


def run_results(run: Chosen, summary: RunSummary, events: pd.DataFrame) -> None:
    """Draw scores by class and group, the worst examples, and the probe set before and after.

    Raises:
        DynloraError: when the run cannot be read.
    """
    evaluated = run_summary.evaluation(events)
    if evaluated is None:
        note("The run has not been evaluated yet. Results appear with the first evaluation.")
        return
    _, payload = evaluated
    labels = [str(label) for label in (payload.get("labels") or [])]
    reading = read_run(run.folder, cached_queries.CACHED, summary)
    if reading.reactions:
        note(reaction_conclusion(reading.reactions[0], run_summary.loss_unit(summary)))
    generated_texts(run)
    panels = (panel for panel in registry()["train"].panels if panel.part == "Results")
    panel_cards(panels, RunView(run.folder, reading, reading.store))
    unit = run_summary.loss_unit(summary)
    examples = cached_queries.ask_events(queries.examples_frame, run.folder)
    shown = Shown(labels, unit, run_summary.writes(summary))
    ends = results.probe_ends(examples, *(_probe(run.folder, name) for name in ("probe_loss", "probe_prediction")))
    with card("Changes since the first evaluation", "changed"):
        _before_after(ends, ("at the first evaluation", "now"), shown, "changed")
    base = (_last(run.folder, name) for name in ("base_loss", "base_prediction"))
    with card("Effect of the adapters", "base"):
        ends = results.base_ends(examples, *base)
        if ends.empty:
            note(NOT_RECORDED)
        else:
            _before_after(ends, ("with adapters off", "with adapters on"), shown, "base")


@dataclass(frozen=True)
class Shown:
    """How examples are shown: names of classes, unit of the loss, and whether texts are to be written."""

    labels: Sequence[str]
    unit: str
    writes: bool


def _before_after(ends: pd.DataFrame, names: tuple[str, str], shown: Shown, key: str) -> None:
    """Draw the losses of the probe set on two occasions, what became of the answers, and the texts."""
    if ends.empty:
        note("The probe set has been evaluated fewer than two times, so there is no comparison yet.")
        return
    (before, after), labels = names, shown.labels
    named = results.answer_names(ends, labels)
    read = written.as_written if shown.writes else lambda rows: rows
    left, right = st.columns([2, 3])
    with left:
        figure = result_figures.before_after(
            named, f"Loss {before}", f"Loss {after}", shown.unit, colours(), has_classes=bool(labels)
        )
        table = read(results.changed(named, 5000))
        chart(figure, result_text.before_after(ends, before, after), table, f"{key}-loss")
    with right:
        if labels:
            counts = results.answers(named)
            words = result_text.answers(counts, before.capitalize(), after)
            chart(result_figures.answer_bar(counts, colours()), words, counts, f"{key}-answers")
        rows = results.turned(named) if labels and key == "base" else results.changed(named)
        texts(read(rows), f"{key}-examples", 230 if labels else 360)


def _probe(folder: Path, name: str) -> pd.DataFrame:
    """Return a signal of the probe set at all evaluations, empty when the run has none."""
    try:
        return cached_queries.ask_events(queries.signal_frame, folder, name)
    except KeyError:
        return pd.DataFrame({"step": []})


def _last(folder: Path, name: str) -> Any:
    found = _probe(folder, name)
    return found.iloc[-1, 1:].to_numpy(float) if len(found) else None
