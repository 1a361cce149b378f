"""The pictures of what one run learned and what that cost, as the page Run and notebooks show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.analysis import modules as kit_modules
from dynlora.analysis import run_summary
from dynlora.store import queries
from dynlora.viz.kit import lines as kit_lines
from dynlora.viz.kit.picture import Picture
from dynlora.viz.kit.run_queries import COLUMNS, RunQueries
from dynlora.viz.kit.theme import Palette
from dynlora.viz.run import figures, progress, result_figures, result_text
from dynlora.viz.run import text as run_text

POINTS = 600
"""Most points of a series that travel to the browser: least, greatest and last of each bin."""


@dataclass(frozen=True)
class Training:
    """What a run recorded while it trained.

    Attributes:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        scalars: all its numbers, as `queries.scalars_frame` returns them.
        store: answers the questions to the store.
    """

    folder: Path
    summary: Mapping[str, Any]
    scalars: pd.DataFrame
    store: RunQueries

    def series(self, name: str, split: str = "train") -> pd.DataFrame:
        """Return one number over the steps: columns step and value."""
        return run_summary.series(self.scalars, name, split)


def read_training(folder: Path, summary: Mapping[str, Any], store: RunQueries) -> Training:
    """Read what a run recorded while it trained.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        store: answers the questions to the store.

    Raises:
        DynloraError: when the run cannot be read.
    """
    return Training(folder, summary, store.ask(queries.scalars_frame, folder, None, None, POINTS), store)


def loss(run: Training, colours: Palette) -> Picture:
    """Return the training loss, and the held-out loss beside it."""
    train, held_out = run.series("loss"), run.series("loss", "validation")
    return Picture(figures.loss_lines(train, held_out, colours), _sampled(run, run_text.loss(train, held_out)), train)


def metric(run: Training, colours: Palette) -> Picture:
    """Return the held-out metrics by evaluation."""
    metrics = run_summary.with_rows(run_summary.held_out(run.scalars), run.summary)
    name = run.summary.get("metric") or run_summary.main_metric(run.summary)[0]
    words = run_text.metric(run.series(name, "validation"), name)
    return Picture(figures.metric_lines(metrics, colours), _sampled(run, words), metrics)


def _sampled(run: Training, words: str) -> str:
    """Return a caption with what it rests on: how many held-out examples an evaluation took."""
    return f"{words} {run_summary.sample_words(run.summary)}".strip()


def budget(run: Training, colours: Palette) -> Picture:
    """Return the adapter parameters in use, against the budget."""
    limit, line = run.summary["params"].get("budget"), run.store.budget(run.folder, run.summary)
    used = kit_modules.parameters(line)
    figure = kit_lines.line(used, "Adapter parameters in use", colours, limit=limit, tick=",")
    return Picture(figure, run_text.budget(line, limit), line)


def kinds(run: Training, colours: Palette) -> Picture:
    """Return how many components each kind of module holds over the steps.

    Raises:
        DynloraError: when the run cannot be read.
        KeyError: when it has recorded no ranks.
    """
    ranks = run.store.ask(queries.heatmap, run.folder, "rank", COLUMNS, None, None).frame
    totals = progress.components_by_kind(ranks, run.store.modules(run.folder))
    return Picture(result_figures.ranks_by_kind(totals, colours), result_text.by_kind(totals), totals)


def learning_rate(run: Training, colours: Palette) -> Picture:
    """Return the learning rate."""
    series = run.series("lr")
    return Picture(kit_lines.line(series, "Learning rate", colours), run_text.learning_rate(series), series)


def step_time(run: Training, colours: Palette) -> Picture:
    """Return the time of each step, and the strategy's part of it."""
    times = run_summary.step_times(run.scalars)
    words = run_text.step_time(times, run.series("optimizer_bytes"))
    return Picture(figures.step_time(times, colours), words, times)


PICTURES: Mapping[str, Callable[[Training, Palette], Picture]] = {
    "loss": loss, "metric": metric, "budget": budget, "kinds": kinds, "lr": learning_rate, "time": step_time,
}  # fmt: skip
"""The pictures of the section Training by name, in the order of the page."""

TITLES = {
    "loss": "Training loss", "metric": "Held-out metrics", "budget": "Parameter budget",
    "kinds": "Rank by module kind over time", "lr": "Learning rate", "time": "Step time",
}  # fmt: skip
"""Titles of their cards."""
