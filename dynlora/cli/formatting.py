"""What the command line says of a run, in a line or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynlora.store.kinds import TRAIN
from dynlora.viz.kit.run_summary import origin_words
from dynlora.viz.kit.text import score


def format_method(row: Mapping[str, Any]) -> str:
    """Return a run's strategy with its fidelity, which belongs wherever methods stand side by side."""
    name = row["strategy"] or "?"
    return f"{name} ({row['fidelity']})" if row["fidelity"] else name


def format_summary(document: dict[str, Any]) -> str:
    """Return a run in two lines, and one for each repair of its data."""
    params, steps = document["params"], f"{document['step']}/{document['max_steps']}"
    if document["kind"] != TRAIN:
        return f"{document['id']}  {document['name']}\n{document['status']} at step {steps}, a {document['kind']} run"
    repairs = "".join(f"\ndata: {sentence}" for sentence in document.get("data_repairs") or ())
    return (
        f"{document['id']}  {document['name']}\n"
        f"{document['status']} at step {steps}, {format_metrics(document['metrics'])}{format_rows(document)}, "
        f"{format_parameters(params)}{format_origin(document)}{repairs}"
    )


def format_parameters(params: Mapping[str, Any]) -> str:
    """Return the adapter parameters in use, of the budget where it is known; a run that was imported may say none."""
    if "active" not in params:
        return "adapter parameters not known"
    used, budget = params["active"] + (params.get("gate") or 0), params.get("budget")
    return f"{used:,}{'' if budget is None else f' of {budget:,}'} adapter parameters"


def format_origin(document: dict[str, Any]) -> str:
    """Return a line that says which adapter a run starts from; empty where it starts new."""
    origin = document.get("origin")
    return f"\n{origin_words(origin, origin['run'] or origin['name'])}" if origin else ""


def format_rows(document: dict[str, Any]) -> str:
    """Return on how many held-out examples the metrics were found, where these are not all."""
    rows, of = (document["evaluated"].get(key) for key in ("rows", "of"))
    return f" (of {rows:,} of {of:,} held-out examples)" if rows and of and rows < of else ""


def format_metrics(metrics: dict[str, Any]) -> str:
    """Return the metrics that matter most, in words."""
    shown = [
        f"{key} {score(value)}"
        for key, value in metrics.items()
        if key in ("accuracy", "pearson", "perplexity", "loss") and value is not None
    ]
    return ", ".join(shown[:2]) or "not evaluated"
