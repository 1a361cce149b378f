"""What the last evaluation found of each input group, and which examples cost most."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary
from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.results import as_written
from dynlora.analysis.run_reading import RunReading
from dynlora.store import queries
from dynlora.text import one_line, score, sentence_case
from dynlora.viz.kit.charts import score_dots
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class GroupResults:
    """The metric of each input group, what it is called, and on how many examples it was measured, in words."""

    groups: pd.DataFrame
    metric: str
    sample: str


class ResultsByGroup(Panel[GroupResults]):
    """The metric of each input group at the last evaluation."""

    id = "groups"
    order = 33
    part = "Results"
    title = "Results by input group"
    missing = "This run has no input groups. Set data.group_by to a column to get them."
    width = 3

    def data(self, view: RunView) -> GroupResults | None:
        """Return the groups; None where there are none."""
        run: RunReading = view.result
        groups = run.store.ask_events(queries.groups_frame, run.folder)
        if groups.empty or groups["metric"].isna().all():
            return None
        metric = run.summary.get("metric") or run_summary.main_metric(run.summary)[0] or "metric"
        sample = run_summary.sample_words(run.summary) if run_summary.is_sampled(run.summary) else ""
        return GroupResults(groups, metric, sample)

    def caption(self, data: GroupResults) -> str:
        """Return how far apart the groups are."""
        return f"{group_scores(data.groups, data.metric)} {data.sample}".strip()

    def table(self, data: GroupResults) -> pd.DataFrame:
        """Return a row for each group."""
        return data.groups.rename(columns={"metric": data.metric})

    def figure(self, data: GroupResults, colours: Palette) -> go.Figure:
        """Draw a dot for each group."""
        return score_dots(data.groups, "group", ["metric"], data.metric, colours)


class WorstExamples(Panel[pd.DataFrame]):
    """The examples with the highest loss at the last evaluation."""

    id = "worst"
    order = 34
    part = "Results"
    title = "Highest-loss examples"
    missing = "The last evaluation kept no examples."
    width = 5

    def heading(self, view: RunView) -> str:
        """Return the title with the step of the evaluation."""
        evaluated = run_summary.evaluation(view.result.evaluations)
        return self.title if evaluated is None else f"{self.title} at step {evaluated[0]:,}"

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the examples; None before the first evaluation."""
        run: RunReading = view.result
        evaluated = run_summary.evaluation(run.evaluations)
        worst = pd.DataFrame() if evaluated is None else run_summary.worst(evaluated[1])
        if worst.empty:
            return None
        return as_written(worst) if run_summary.writes(run.summary) else worst

    def caption(self, data: pd.DataFrame) -> str:
        """Return between which losses they are."""
        return f"Loss from {score(data['loss'].min())} to {score(data['loss'].max())}."


def group_scores(groups: pd.DataFrame, metric: str) -> str:
    """Say how far apart the groups are."""
    known = groups.dropna(subset=["metric"])
    if known.empty:
        return "No group has been evaluated yet."
    best, worst = known.loc[at_highest(known["metric"])], known.loc[at_lowest(known["metric"])]
    if score(best["metric"]) == score(worst["metric"]):
        groups_of = "the one group" if len(known) == 1 else f"all {len(known)} groups"
        return f"{one_line(sentence_case(metric), 40)} is {score(best['metric'])} for {groups_of}."
    return (
        f"{one_line(sentence_case(metric), 40)} is highest for {one_line(best['group'], 40)} "
        f"({score(best['metric'])}) and lowest for "
        f"{one_line(worst['group'], 40)} ({score(worst['metric'])}); difference {best['metric'] - worst['metric']:.3f}."
    )
