"""The student and its teachers: divergence and loss, the teachers' texts, and training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary
from dynlora.kinds.distil import result as distil_result
from dynlora.kinds.distil.result import Distil, Written
from dynlora.kinds.recorded import Interval
from dynlora.store import queries
from dynlora.text import score, short_names
from dynlora.viz.kit import charts
from dynlora.viz.kit.charts import model_intervals
from dynlora.viz.kit.panel import Choice, Panel, RunView
from dynlora.viz.kit.theme import Palette


class ComparedPanel(Panel[distil_result.Compared]):
    """Means with their intervals, a line for each teacher; models by colour and shape.

    Attributes:
        axis: title of the numbers' axis.
    """

    missing = "The test comes after the last step."
    axis: ClassVar[str]

    @abstractmethod
    def rows(self, result: Distil) -> tuple[Sequence[Interval], Sequence[Interval]]:
        """Return the numbers, and their paired differences from the base model's."""

    def data(self, view: RunView) -> distil_result.Compared | None:
        """Return the numbers as frames."""
        return distil_result.compared(view.result, *self.rows(view.result))

    def table(self, data: distil_result.Compared) -> pd.DataFrame:
        """Return every mean with its interval."""
        return data.rows.drop(columns="method")

    def figure(self, data: distil_result.Compared, colours: Palette) -> go.Figure:
        """Draw the means with their intervals."""
        return model_intervals(data.drawn, "teacher", "nats per token", self.axis, colours)

    def more(self, data: distil_result.Compared) -> Mapping[str, pd.DataFrame]:
        """Return the paired differences."""
        return data.differences


class Divergence(ComparedPanel):
    """KL(teacher || model) with its interval, a line for each teacher."""

    id = "divergence"
    order = 1
    title = "Divergence from the teachers"
    about = "Texts that teachers wrote for the test alone"
    axis = "KL in nats per token"

    def rows(self, result: Distil) -> tuple[Sequence[Interval], Sequence[Interval]]:
        """Return the divergences and their differences."""
        return result.kl, result.kl_against_base

    def caption(self, data: distil_result.Compared) -> str:
        """Return what is measured, and over what."""
        return (
            "Mean KL(teacher || model) over the tokens of texts that a teacher wrote for the test alone, nats; 0 is "
            "the teacher itself. Bars: 95 % CI over texts."
        )


class HeldOutLoss(ComparedPanel):
    """Held-out loss with its interval, a line for each teacher."""

    id = "loss"
    order = 2
    title = "Held-out loss"
    about = "Held-out examples of each teacher's own data"
    axis = "Loss in nats per token"

    def rows(self, result: Distil) -> tuple[Sequence[Interval], Sequence[Interval]]:
        """Return the losses and their differences."""
        return result.loss, result.loss_against_base

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no loss: the test is still to come, or had no data."""
        if view.result.kl:
            return "The data of no teacher could be read, so no held-out loss was measured."
        return self.missing

    def caption(self, data: distil_result.Compared) -> str:
        """Return what is measured, and over what."""
        return (
            "Mean loss over the tokens of held-out examples of each teacher's data, nats. The student never saw this "
            "data. Bars: 95 % CI over examples."
        )


@dataclass(frozen=True)
class TeacherTexts:
    """The texts of one teacher beside the counts of all."""

    result: Distil
    written: Written


class Texts(Panel[TeacherTexts]):
    """Texts of the chosen teacher."""

    id = "texts"
    order = 3
    title = "Texts of the teachers"
    about = "Written from the start token, without any data"
    missing = "The first texts appear here."

    def choice(self, view: RunView) -> Choice | None:
        """Return the teachers that have written."""
        names = short_names(list(view.result.names().values()), 80)
        options = {str(place): names[place] for place in sorted(_by_teacher(view.result))}
        return Choice("teacher", "Teacher", options, next(iter(options))) if options else None

    def data(self, view: RunView) -> TeacherTexts | None:
        """Return the last texts of the chosen teacher."""
        choice = self.choice(view)
        return None if choice is None else TeacherTexts(view.result, _by_teacher(view.result)[int(choice.of(view))])

    def caption(self, data: TeacherTexts) -> str:
        """Return how the texts were drawn, and what is odd about them."""
        result = data.result
        start = f" Each begins with {result.start}." if result.start else ""
        odd = [
            f"{distil_result.teacher_name(result, one.teacher)}: {one.empty:,} empty, {one.repeated:,} repeated"
            for one in result.counted
            if one.empty or one.repeated
        ]
        faults = f" {'; '.join(odd)}." if odd else " None is empty or repeats another." if result.counted else ""
        return f"Texts drawn at temperature 1, of at most {result.tokens:,} tokens.{start}{faults}"

    def table(self, data: TeacherTexts) -> pd.DataFrame:
        """Return the texts: columns text, tokens, ended."""
        rows = [[sample.text or "(empty)", sample.tokens, sample.ended] for sample in data.written.samples]
        return pd.DataFrame(rows, columns=["text", "tokens", "ended"])

    def more(self, data: TeacherTexts) -> Mapping[str, pd.DataFrame]:
        """Return the counts of all teachers: as far as they are, or at the end."""
        counts = (
            distil_result.counted_frame(data.result)
            if data.result.counted
            else distil_result.written_frame(data.result)
        )
        return {"Texts by teacher": counts}


def _by_teacher(result: Distil) -> dict[int, Written]:
    """Return the texts of each teacher that has some, by its position."""
    return {one.teacher: one for one in result.written if one.teacher < len(result.sources) and one.samples}


POINTS = 600
"""Most points of the series."""


class Student(Panel[pd.DataFrame]):
    """KL(teacher || student) of the texts of each step."""

    id = "student"
    order = 4
    title = "Student"
    about = "KL(teacher || student) of the texts of each step"
    missing = "The student has not begun yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns step and value, nats per token."""
        scalars = view.store.ask(queries.scalars_frame, view.folder, None, None, POINTS)
        series = run_summary.series(scalars, "kl", "student")
        return None if series.empty else series

    def caption(self, data: pd.DataFrame) -> str:
        """Return the first and the last value."""
        first, last = data["value"].iloc[0], data["value"].iloc[-1]
        return (
            f"KL(teacher || student) of each step's texts, from {score(first)} to {score(last)} nats per token. These "
            "are texts that it learns from."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the series."""
        return charts.line(data, "KL in nats per token", colours)
