"""What a run learns and forgets: the losses, the held-out metrics, and the retention of the base model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary
from dynlora.analysis.frames import at_highest, at_lowest, smoothed
from dynlora.analysis.retention import Retention, retention_conclusion
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import loss_unit, sample_words
from dynlora.store.meta import section, whole
from dynlora.text import listed, metric_words, plotly_text, score, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import HEIGHT, OWN_SCALE, add_losses, axis_within, titled
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Losses:
    """Both losses, columns step and value, their unit, and on how many examples the held-out one was measured."""

    train: pd.DataFrame
    held_out: pd.DataFrame
    sample: str
    unit: str


class TrainingLoss(Panel[Losses]):
    """The training loss, pale as it is and bold smoothed, and the held-out loss."""

    id = "loss"
    order = 11
    part = "Training"
    title = "Training loss"
    missing = "No loss has been recorded yet."

    def data(self, view: RunView) -> Losses | None:
        """Return both losses; None before the first step."""
        run: RunReading = view.result
        train, held_out = run.series("loss"), run.series("loss", "validation")
        if train["value"].isna().all():
            return None
        unit = loss_unit(run.summary) if run.summary.task_facts else "nats"
        return Losses(train, held_out, sample_words(run.summary), unit)

    def caption(self, data: Losses) -> str:
        """Return how far the loss fell, and what the held-out loss rests on."""
        return f"{loss(data.train, data.held_out)} {data.sample}".strip()

    def table(self, data: Losses) -> pd.DataFrame:
        """Return the training loss."""
        return data.train

    def figure(self, data: Losses, colours: Palette) -> go.Figure:
        """Draw the losses."""
        return loss_lines(data.train, data.held_out, colours, data.unit)


def loss(train: pd.DataFrame, validation: pd.DataFrame) -> str:
    """Say how far the smoothed training loss fell, and where the held-out loss ended."""
    known = train.dropna(subset=["value"])
    smooth = smoothed(known["value"])
    first, last = float(smooth.iloc[0]), float(smooth.iloc[-1])
    verb = "fell" if last < first else "rose"
    words = f"Training loss {verb} from {first:.3f} to {last:.3f}"
    if len(validation):
        words += f"; held-out {validation['value'].iloc[-1]:.3f}"
    return words + "."


def loss_lines(train: pd.DataFrame, validation: pd.DataFrame, colours: Palette, unit: str = "nats") -> go.Figure:
    """Draw the training loss, pale as it is and bold smoothed, and the held-out loss; frames hold step and value."""
    drawn = theme.figure(colours, HEIGHT)
    drawn.add_scatter(
        x=train["step"],
        y=train["value"],
        mode="lines",
        name="Each step",
        showlegend=False,
        line={"color": theme.faded(colours.accent, 0.3), "width": 1},
        hovertemplate="step %{x}<br>loss %{y:.4f}<extra></extra>",
    )
    return add_losses(drawn, train, validation, colours, "Smoothed", unit)


@dataclass(frozen=True)
class Metrics:
    """The metrics by evaluation.

    Attributes:
        numbers: of all metrics.
        deciding: name of the metric that decides.
        series: its values, columns step and value.
        sample: on how many examples they were measured, in words.
    """

    numbers: pd.DataFrame
    deciding: str
    series: pd.DataFrame
    sample: str


class HeldOutMetrics(Panel[Metrics]):
    """The held-out metrics; what has no upper end has a panel of its own."""

    id = "metric"
    order = 12
    part = "Training"
    title = "Held-out metrics"
    missing = "The run has not been evaluated yet."

    def data(self, view: RunView) -> Metrics | None:
        """Return the metrics; None before the first evaluation."""
        run: RunReading = view.result
        rows = run_summary.with_rows(run_summary.held_out(run.scalars), run.summary)
        deciding = run.summary.metric or run_summary.main_metric(dict(run.summary))[0]
        rows = rows[self.holds(rows["name"], deciding)]
        if rows.empty:
            return None
        return Metrics(rows, deciding, run.series(deciding, "validation"), run_summary.sample_words(run.summary))

    def holds(self, names: pd.Series, deciding: str) -> pd.Series:
        """Return which metrics are drawn: what decides, and what most people know."""
        return ~names.isin(MORE) | (names == deciding)

    def caption(self, data: Metrics) -> str:
        """Return the last and the best value of the metric that decides."""
        return f"{metric(data.series, data.deciding)} {data.sample}".strip()

    def figure(self, data: Metrics, colours: Palette) -> go.Figure:
        """Draw the metrics."""
        return metric_lines(data.numbers, colours)


MORE = ("brier", "ece", "matthews")
"""Metrics that few people ask for; they have a panel of their own."""


class MoreMetrics(HeldOutMetrics):
    """The held-out metrics that few people ask for: calibration and correlation."""

    id = "more_metrics"
    order = 18
    title = "More metrics"
    missing = "The run has no calibration and no Matthews correlation."
    is_optional = True

    def holds(self, names: pd.Series, deciding: str) -> pd.Series:
        """Return which metrics are drawn."""
        return names.isin(MORE) & (names != deciding)

    def caption(self, data: Metrics) -> str:
        """Return the last value of each."""
        last = data.numbers.dropna(subset=["value"]).groupby("name", sort=False).tail(1)
        if last.empty:
            return self.missing
        values = [
            f"{metric_words(name)} {score(value)}" for name, value in zip(last["name"], last["value"], strict=True)
        ]
        return f"{sentence_case(listed(values))} at step {int(last['step'].max())}. {data.sample}".strip()


def metric(series: pd.DataFrame, name: str) -> str:
    """Say the last and the best value of a held-out metric; `series` holds step and value."""
    known = series.dropna(subset=["value"])
    if known.empty:
        return "The run has not been evaluated yet."
    is_low = name in run_summary.LOW_IS_GOOD
    last, best = known.iloc[-1], known.loc[(at_lowest if is_low else at_highest)(known["value"])]
    words = f"{sentence_case(metric_words(name))} is {score(last['value'])} at step {int(last['step'])}"
    extreme = "lowest" if is_low else "highest"
    if best["step"] == last["step"]:
        return f"{words}, the {extreme} value."
    return f"{words}; the {extreme} value is {score(best['value'])} at step {int(best['step'])}."


def metric_lines(metrics: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the held-out metrics by evaluation; columns name, step, value, and examples where they are samples.

    What has no upper end, such as perplexity, has a panel of its own; all that is a fraction shares one.
    """
    names = [str(name) for name in dict.fromkeys(metrics["name"])]
    panels = _panels(names)
    drawn = theme.figure(colours, HEIGHT + PANEL * (len(panels) - 1))
    place = {name: number for number, panel in enumerate(panels) for name in panel}
    style, size = theme.contrasting(names), "<br>n = %{customdata:,}" if "examples" in metrics else ""
    for name, part in metrics.groupby("name", sort=False):
        colour, symbol, dash = style[str(name)]
        drawn.add_scatter(
            x=part["step"],
            y=part["value"],
            mode="lines+markers",
            name=plotly_text(sentence_case(metric_words(str(name))), 40),
            yaxis=_axis_name(place[str(name)], "y"),
            line={"color": colour, "width": 1.8, "dash": dash},
            marker={"size": 7, "symbol": symbol},
            customdata=part["examples"] if size else None,
            hovertemplate=f"step %{{x}}<br>%{{fullData.name}} %{{y:.4f}}{size}<extra></extra>",
        )
    drawn.update_layout(showlegend=len(names) > 1)
    titled(drawn, "Score")
    for number, panel in enumerate(panels):
        values = metrics[metrics["name"].isin(panel)]["value"]
        drawn.layout[_axis_name(number, "yaxis")] = theme.axis(colours) | _panel_axis(
            panel, values, (number, len(panels)), is_single=metrics["step"].nunique() == 1
        )
    drawn.update_xaxes(anchor=_axis_name(len(panels) - 1, "y"))
    theme.single_step(drawn, metrics["step"])
    return drawn


PANEL, GAP = 120, 0.14
"""Height that each further panel of the metrics adds, pixels; and the gap between two, as a fraction of all."""

LOG_FROM = 8.0
"""Numbers without an upper end that reach over more than this factor are drawn by their logarithm."""


def _panels(names: Sequence[str]) -> list[list[str]]:
    """Return the metrics of each panel, from the top: those with a scale of their own alone, all others together."""
    shared = [name for name in names if name not in OWN_SCALE]
    return [*([name] for name in names if name in OWN_SCALE), *([shared] if shared or not names else [])]


def _axis_name(number: int, kind: str) -> str:
    """Return what plotly calls the axis of a panel."""
    return kind if number == 0 else f"{kind}{number + 1}"


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis: 1, 2 and 5 times powers of ten, only powers where that is many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = (1, 2, 5) if len(powers) < 5 else (1,)
    return [factor * 10.0**power for power in powers for factor in few]


def _panel_axis(names: Sequence[str], values: pd.Series, place: tuple[int, int], *, is_single: bool) -> dict[str, Any]:
    """Return the axis of a panel of metrics.

    Args:
        names: of its metrics.
        values: of all of them.
        place: number of the panel, and of how many.
        is_single: there is one evaluation: plotly would count from -1 to 1.
    """
    number, of = place
    high = (1 - GAP * (of - 1)) / of
    top = 1 - number * (high + GAP)
    title = sentence_case(metric_words(names[0])) if len(names) == 1 and names[0] in OWN_SCALE else "Score"
    look: dict[str, Any] = {"domain": [max(0.0, top - high), top], "title_text": plotly_text(title), "anchor": "x"}
    known = values[np.isfinite(values)]
    if title != "Score" and len(known) and known.min() > 0 and known.max() > LOG_FROM * known.min():
        ticks = _log_ticks(float(known.min()), float(known.max()))
        return look | {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}
    if is_single and values.between(0, 1).all():
        return look | {"range": [-0.03, 1.03]}
    return look | axis_within(*names)


WRITER = {"adapter": "loss", "base model": "base_loss"}
LABELLER = {"mean cosine of states": "cosine", "same nearest sentence": "agreement"}
"""The lines of the figure, and the numbers they show."""


class RetentionOverTime(Panel[list[Retention]]):
    """The loss of adapter and base on public text, or how far hidden states are those of the base."""

    id = "retention"
    order = 19
    part = "Training"
    title = "Retention"
    about = "Adapter against base model on public text that no task is about"
    missing = "Not measured yet. Runs with log.retention measure it at evaluations."

    def applies(self, view: RunView) -> bool:
        """Say whether the run measures it."""
        return bool(whole(section(view.result.summary.config, "log").get("retention")))

    def data(self, view: RunView) -> list[Retention] | None:
        """Return what was measured at each evaluation; None before the first."""
        return view.result.retention or None

    def caption(self, data: list[Retention]) -> str:
        """Return what the last evaluation found, with its interval."""
        return f"{retention_conclusion(data[-1])} Step {data[-1].step:,}."

    def table(self, data: list[Retention]) -> pd.DataFrame:
        """Return a row for each evaluation."""
        return pd.DataFrame([vars(one) for one in data]).dropna(axis=1, how="all")

    def figure(self, data: list[Retention], colours: Palette) -> go.Figure:
        """Draw the losses of adapter and base, or cosine and agreement."""
        is_writer, table = data[-1].rise is not None, self.table(data)
        lines = WRITER if is_writer else LABELLER
        drawn, style = theme.figure(colours, HEIGHT), theme.contrasting(list(lines))
        for name, column in lines.items():
            colour, symbol, dash = style[name]
            drawn.add_scatter(
                x=table["step"],
                y=table[column] if column in table else [None] * len(table),
                mode="lines+markers",
                name=name.capitalize(),
                line={"color": colour, "width": 1.8, "dash": dash},
                marker={"size": 7, "symbol": symbol},
                hovertemplate="step %{x}<br>%{fullData.name} %{y:.4f}<extra></extra>",
            )
        drawn.update_layout(showlegend=True)
        return titled(drawn, "loss (nats per token)" if is_writer else "score")
