"""The training loss, and the held-out loss beside it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.frames import smoothed
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import loss_unit, sample_words
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import HEIGHT, add_losses
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
        unit = loss_unit(run.summary) if run.summary.get("task_facts") else "nats"
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
    """Say how far the loss fell."""
    known = train.dropna(subset=["value"])
    smooth = smoothed(known["value"])
    first, last = float(smooth.iloc[0]), float(smooth.iloc[-1])
    verb = "fell" if last < first else "rose"
    words = f"The smoothed training loss {verb} from {first:.3f} to {last:.3f} over {int(known['step'].iloc[-1])} steps"
    if len(validation):
        words += (
            f"; the held-out loss was {validation['value'].iloc[-1]:.3f} at step {int(validation['step'].iloc[-1])}"
        )
    return words + "."


def loss_lines(train: pd.DataFrame, validation: pd.DataFrame, colours: Palette, unit: str = "nats") -> go.Figure:
    """Draw the training loss, pale as it is and bold smoothed, and the held-out loss; frames hold step and value."""
    drawn = theme.figure(colours, HEIGHT)
    drawn.add_scatter(
        x=train["step"],
        y=train["value"],
        mode="lines",
        name="Each step",
        line={"color": theme.faded(colours.accent, 0.3), "width": 1},
        hovertemplate="step %{x}<br>loss %{y:.4f}<extra></extra>",
    )
    return add_losses(drawn, train, validation, colours, "Smoothed", unit)
