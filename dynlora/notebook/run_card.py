"""A run as a card in a notebook: how it stands, what it is, its result with what that rests on, and its ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.analysis import modules as kit_modules
from dynlora.analysis import run_summary
from dynlora.analysis.capacity_frames import event_steps
from dynlora.analysis.run_summary import STATUS_WORDS
from dynlora.analysis.stats import share_interval
from dynlora.notebook.rank_grid import rank_grid
from dynlora.notebook.templates import filled
from dynlora.store import queries
from dynlora.text import duration, metric_words, percent, score, sentence_case


def run_card(folder: Path) -> str:
    """Return a run as HTML, as it is now.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary = queries.run_summary(folder)
    modules = kit_modules.described(queries.modules_frame(folder))
    is_over = summary["status"] not in run_summary.ACTIVE
    return filled(
        "run_card.html",
        name=summary["name"],
        about=run_summary.about(summary),
        status_word=STATUS_WORDS.get(summary["status"], summary["status"]),
        steps=run_summary.format_progress(summary),
        share=None if is_over else run_summary.progress_share(summary),
        error=summary.get("error") or "",
        figures=_figures(summary, len(event_steps(queries.events_frame(folder, ("reallocate",))))),
        id=folder.name,
        ranks=rank_grid(summary["ranks"], modules),
    )


def _figures(summary: Mapping[str, Any], moved: int) -> dict[str, str]:
    """Return the figures that matter first: label to value; what is not known yet is left out."""
    name, value = run_summary.main_metric(summary)
    metrics, params, time = (summary.get(key) or {} for key in ("metrics", "params", "time"))
    loss, used = metrics.get("loss"), run_summary.parameters_in_use(params)
    share = run_summary.budget_share(params)
    of = "" if share is None else f", {percent(share / 100)} of the budget"
    found = {
        f"{sentence_case(metric_words(name))}, held-out": None if value is None else _result(summary, name, value),
        f"Loss, held-out ({run_summary.loss_unit(summary)})": None if loss is None or name == "loss" else score(loss),
        "Adapter parameters in use": None if used is None else f"{used:,}{of}",
        "Reallocations": f"{moved}" if moved else None,
        "Training time": duration(time["train_s"]) if time.get("train_s") else None,
    }
    return {label: words for label, words in found.items() if words is not None}


def _result(summary: Mapping[str, Any], name: str, value: float) -> str:
    """Return the metric that decides, with the number of examples and, of a share of them, its 95 % interval."""
    rows = (summary.get("evaluated") or {}).get("rows") or run_summary.evaluated_rows(summary, summary["step"])
    if not rows or name == run_summary.GENERATED:
        return score(value)
    if name != "accuracy" or not 0 <= value <= 1:
        return f"{score(value)} (n = {rows:,})"
    low, high = share_interval(round(value * rows), rows)
    return f"{score(value)} (95 % CI {score(low)} to {score(high)}, n = {rows:,})"
