"""What trainings side by side recorded: curves, quality against costs, final ranks, settings that differ."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary, seed_groups
from dynlora.analysis.retention import RETENTION, retentions
from dynlora.store import queries
from dynlora.text import metric_words
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.panels import Compared, ComparisonPanel, Drawn
from dynlora.viz.kit.panel import Choice, RunView
from dynlora.viz.kit.theme import Palette


class CurvesPanel(ComparisonPanel):
    """A number of each group over training, with the band of its runs.

    The choices are `metric`, its name; `x`, a key of `seed_groups.CLOCKS`; `smoothing`, a key of `frames.SMOOTHING`;
    and `scale`, linear or log.

    Attributes:
        split: of the number.
    """

    part = "Training"
    missing = "None of these runs has recorded this value yet."
    is_wide = False
    split: ClassVar[str]

    @abstractmethod
    def name(self, runs: Compared, chosen: Mapping[str, str]) -> str:
        """Return the name of the number."""

    def numbers(self, runs: Compared, chosen: Mapping[str, str]) -> pd.DataFrame:
        """Return the bands of the groups."""
        each = {run: runs.series(run, self.name(runs, chosen), self.split) for run in runs.folders}
        smoothing = chosen.get("smoothing", "usual") if self.split == "train" else "none"
        series = seed_groups.placed(compare_model.together(each, smoothing=smoothing), self._clocks(runs, chosen))
        return seed_groups.bands(series, runs.groups, between=self.split == "train")

    def _clocks(self, runs: Compared, chosen: Mapping[str, str]) -> dict[str, pd.DataFrame | None]:
        return {run: runs.clock(chosen.get("x", "step"), run) for run in runs.folders}

    def _left_out(self, runs: Compared, chosen: Mapping[str, str]) -> str:
        """Say which runs cannot be placed on the axis; empty when all can."""
        missing = [runs.names[run] for run, clock in self._clocks(runs, chosen).items() if clock is None]
        return compare_text.left_out(missing, seed_groups.CLOCKS[chosen.get("x", "step")])

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no curve: nothing was recorded, or not along this axis."""
        return self._left_out(view.result, view.chosen) or self.missing

    def caption(self, data: Drawn) -> str:
        """Return between which values the curves end, and what is not in them."""
        sampled = "" if self.split == "train" else compare_model.sample_words(data.runs.rows)
        parts = (compare_text.curves(data.numbers), sampled, self._left_out(data.runs, data.chosen))
        return " ".join(filter(None, parts))

    def figure(self, data: Drawn, colours: Palette) -> go.Figure:
        """Draw the mean of each group with its band."""
        title = f"{self.name(data.runs, data.chosen)} (held-out)"
        if self.split == "train":
            units = {run_summary.loss_unit(summary) for summary in data.runs.rows}
            words = "Training loss" if data.chosen.get("smoothing") == "none" else "Smoothed training loss"
            title = f"{words} ({units.pop()})" if len(units) == 1 else words
        return compare_figures.curves(
            data.numbers,
            seed_groups.CLOCKS[data.chosen.get("x", "step")],
            title,
            colours,
            marks=self.split != "train",
            styles=data.runs.styles(colours),
            is_log=data.chosen.get("scale") == "log",
        )


class TrainingLoss(CurvesPanel):
    """The training loss of each group."""

    id = "loss"
    order = 1
    title = "Training loss"
    split = "train"

    def name(self, runs: Compared, chosen: Mapping[str, str]) -> str:
        """Return the loss, unless another number is chosen."""
        return chosen.get("metric", "loss")


class HeldOutMetric(CurvesPanel):
    """The held-out metric of each group."""

    id = "metric"
    order = 2
    title = "Held-out metric"
    split = "validation"

    def heading(self, view: RunView) -> str:
        """Return the title with the metric."""
        return f"Held-out {metric_words(view.result.metric)}"

    def name(self, runs: Compared, chosen: Mapping[str, str]) -> str:
        """Return the metric that decides, unless another one is chosen."""
        return chosen.get("metric", runs.metric)


class Frontier(ComparisonPanel):
    """The last metric of each group against the adapter parameters in use."""

    id = "parameters"
    card = "frontier"
    order = 3
    title = "Quality against parameters"
    missing = "None of these runs has both a metric and a parameter count. Wait for the first evaluation."

    def numbers(self, runs: Compared, chosen: Mapping[str, str]) -> pd.DataFrame:
        """Return the groups; none where no group has both numbers."""
        return runs.points if len(runs.points.dropna(subset=["active", "mean"])) else pd.DataFrame()

    def caption(self, data: Drawn) -> str:
        """Return the Pareto set."""
        return compare_text.frontier(data.numbers, data.runs.metric)

    def figure(self, data: Drawn, colours: Palette) -> go.Figure:
        """Draw a point for each group."""
        return compare_figures.frontier(data.numbers, data.runs.metric, colours, data.runs.styles(colours))


class GainAgainstForgetting(ComparisonPanel):
    """The last metric of each group against what it forgot."""

    id = "retention"
    order = 4
    title = "Gain against forgetting"
    missing = "None of these runs has measured what it forgot. Train with log.retention=1 to measure it."

    def numbers(self, runs: Compared, chosen: Mapping[str, str]) -> pd.DataFrame:
        """Return the groups that measured it."""
        ask = runs.store.ask_events
        events = {run: ask(queries.events_frame, folder, (RETENTION,)) for run, folder in runs.folders.items()}
        last = {run: read[-1] for run, frame in events.items() if (read := retentions(frame))}
        return compare_model.by_retention(runs.points, runs.groups, last, runs.metric)

    def caption(self, data: Drawn) -> str:
        """Return which group forgets least and which most."""
        return compare_text.retention(data.numbers, data.runs.metric)

    def figure(self, data: Drawn, colours: Palette) -> go.Figure:
        """Draw a point for each group."""
        return compare_figures.retention(data.numbers, data.runs.metric, colours, data.runs.styles(colours))


RANKS = Choice("ranks", "Ranks shown", {"mean": "Final rank", "spread": "Spread over seeds"}, "mean", is_row=True)
"""The mean over the runs of a group, or their standard deviation."""


class FinalRanks(ComparisonPanel):
    """The last rank of each module in each group, or how far it differs between seeds."""

    id = "ranks"
    part = "Capacity"
    order = 5
    title = "Rank by module"
    missing = "No run of these has recorded ranks yet. Wait for the first step of one of them."

    def choice(self, view: RunView) -> Choice | None:
        """Return mean or spread; None before the first rank."""
        return None if view.result.ranks[1].empty else RANKS

    def numbers(self, runs: Compared, chosen: Mapping[str, str]) -> pd.DataFrame:
        """Return the ranks, a row for each module."""
        return runs.final_ranks(spread=chosen.get("ranks") == "spread")

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no map: no ranks, or no seeds."""
        if view.result.ranks[1].empty:
            return self.missing
        return "No configuration has two runs, so there is no spread over seeds. Train another seed."

    def caption(self, data: Drawn) -> str:
        """Return how far the columns differ, or the seeds."""
        rows = data.runs.ranks[1]
        named = data.numbers.rename(index=dict(zip(rows["name"], rows["short"], strict=True)))
        return compare_text.allocation(named, data.chosen.get("ranks") == "spread")

    def table(self, data: Drawn) -> pd.DataFrame:
        """Return the ranks with the names of the modules."""
        return compare_model.named_rows(data.numbers)

    def figure(self, data: Drawn, colours: Palette) -> go.Figure:
        """Draw modules by groups."""
        is_spread = data.chosen.get("ranks") == "spread"
        title = "Standard deviation of rank (components)" if is_spread else "Rank (components)"
        return compare_figures.final_ranks(data.numbers, data.runs.ranks[1], colours, title)


class DifferingSettings(ComparisonPanel):
    """The settings that are not the same in all runs."""

    id = "settings"
    part = "Setup"
    order = 6
    title = "Settings that differ"
    missing = "The configurations are the same."

    def numbers(self, runs: Compared, chosen: Mapping[str, str]) -> pd.DataFrame:
        """Return a row for each setting."""
        return runs.differing

    def caption(self, data: Drawn) -> str:
        """Return the names of the settings."""
        return compare_text.settings_that_differ(data.numbers)
