"""What the last evaluation found: confusion and scores of classes, results of input groups, the worst examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import results, run_summary
from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.inputs import group_with_size, large_enough, sized_groups
from dynlora.analysis.module_effects import LEAST_EXAMPLES
from dynlora.analysis.results import as_written
from dynlora.analysis.run_reading import RunReading
from dynlora.store import queries
from dynlora.text import number, one_line, percent, plotly_text, plural, score, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import score_dots
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

MISSING = "The last evaluation counted no classes."


@dataclass(frozen=True)
class Confusion:
    """How often each class was predicted as each: rows are the truth, columns the prediction."""

    step: int
    counts: list[list[float]]
    labels: list[str]


def _confusion(run: RunReading) -> Confusion | None:
    evaluated = run_summary.evaluation(run.evaluations)
    matrix = None if evaluated is None else run_summary.confusion(evaluated[1])
    return None if evaluated is None or matrix is None else Confusion(evaluated[0], *matrix)


class ConfusionMatrix(Panel[Confusion]):
    """The confusion matrix."""

    id = "confusion"
    order = 31
    part = "Results"
    title = "Confusion matrix"
    missing = MISSING
    is_optional = True

    def data(self, view: RunView) -> Confusion | None:
        """Return the counts of the last evaluation."""
        return _confusion(view.result)

    def caption(self, data: Confusion) -> str:
        """Return the share of right answers and the most frequent error."""
        table = np.asarray(data.counts, dtype=float)
        total = table.sum()
        if not total:
            return "Nothing was evaluated."
        wrong = table - np.diag(np.diag(table))
        truth, guess = np.unravel_index(int(wrong.argmax()), wrong.shape)
        right = percent(np.trace(table) / total)
        words = f"At step {data.step}, {right} of {number(int(total))} held-out predictions are correct"
        if not wrong.max():
            return words + "."
        return (
            f"{words}; the most frequent error is {one_line(data.labels[int(truth)], 40)} predicted as "
            f"{one_line(data.labels[int(guess)], 40)} ({plural(int(wrong.max()), 'example')})."
        )

    def table(self, data: Confusion) -> pd.DataFrame:
        """Return the counts."""
        return run_summary.confusion_table(data.counts, data.labels)

    def figure(self, data: Confusion, colours: Palette) -> go.Figure:
        """Draw the matrix."""
        return confusion(data.counts, data.labels, colours)


class ClassScores(Panel[pd.DataFrame]):
    """Precision, recall and F1 of each class."""

    id = "classes"
    order = 32
    part = "Results"
    title = "Scores by class"
    missing = MISSING
    is_optional = True

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return a row for each class."""
        matrix = _confusion(view.result)
        return None if matrix is None else results.class_scores(matrix.counts, matrix.labels)

    def caption(self, data: pd.DataFrame) -> str:
        """Return which class is found best and worst."""
        return class_scores(data)

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the scores."""
        return score_dots(data, "class", ["precision", "recall", "F1"], "Score (0 to 1)", colours)


SCORES = "Precision: correct among predicted. Recall: correct among true. F1: their harmonic mean."


def class_scores(scores: pd.DataFrame) -> str:
    """Say which class is found best and worst by F1; one without examples is no result."""
    known = scores[scores["examples"] > 0]
    if known.empty:
        return "No class has an example, so there are no scores."
    best, worst = known.loc[at_highest(known["F1"])], known.loc[at_lowest(known["F1"])]
    if len(known) < 2:
        return f"One class has examples: {one_line(best['class'], 40)}, F1 {score(best['F1'])}."
    if score(best["F1"]) == score(worst["F1"]):
        return f"F1 is {score(best['F1'])} for all {len(known)} classes. {SCORES}"
    high, low = (
        f"{one_line(row['class'], 40)} ({score(row['F1'])}, {plural(int(row['examples']), 'example')})"
        for row in (best, worst)
    )
    return f"F1 is highest for {high} and lowest for {low}. {SCORES}"


def confusion(counts: Sequence[Sequence[float]], labels: Sequence[str], colours: Palette) -> go.Figure:
    """Draw a confusion matrix: rows are the truth, columns the prediction, colour the share of the row."""
    table = np.asarray(counts, dtype=float)
    names = [plotly_text(label, 14) for label in labels]
    totals = table.sum(axis=1, keepdims=True)
    share = np.divide(100 * table, totals, out=np.zeros_like(table), where=totals > 0)
    drawn = theme.figure(colours, int(np.clip(110 + 46 * len(names), 220, 640)))
    drawn.add_heatmap(
        z=share,
        x=list(range(len(names))),
        y=list(range(len(names))),
        customdata=table,
        xgap=2,
        ygap=2,
        colorscale=colours.sequential_scale,
        zmin=0,
        zmax=100,
        showscale=False,
        hovertemplate="%{customdata:,} examples, %{z:.1f} % of their class<extra></extra>",
    )
    if len(names) <= 12:
        drawn.update_traces(text=table, texttemplate="%{text:,}<br>%{z:.0f} %")
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
    drawn.update_xaxes(**ticks, title_text="Predicted", tickangle=0 if len(names) <= 4 else None)
    drawn.update_yaxes(**ticks, title_text="True", autorange="reversed")
    return drawn


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
        groups = sized_groups(run.store, run.folder)
        if groups.empty or groups["metric"].isna().all():
            return None
        metric = run.summary.metric or run_summary.main_metric(dict(run.summary))[0] or "metric"
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
        names = [group_with_size(group, n) for group, n in zip(data.groups["group"], data.groups["n"], strict=True)]
        return score_dots(data.groups.assign(group=names), "group", ["metric"], data.metric, colours)


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


def group_scores(groups: pd.DataFrame, metric: str, column: str = "metric") -> str:
    """Say how far apart the groups are, of which some have a value in the column."""
    known = large_enough(groups.dropna(subset=[column]))
    if known.empty:
        return f"No group has {LEAST_EXAMPLES} examples, so none is named."
    best, worst = known.loc[at_highest(known[column])], known.loc[at_lowest(known[column])]
    if score(best[column]) == score(worst[column]):
        groups_of = "the one group" if len(known) == 1 else f"all {len(known)} groups"
        return f"{one_line(sentence_case(metric), 40)} is {score(best[column])} for {groups_of}."
    return (
        f"{one_line(sentence_case(metric), 40)} is highest for {one_line(best['group'], 40)} "
        f"({score(best[column])}) and lowest for "
        f"{one_line(worst['group'], 40)} ({score(worst[column])}); difference {best[column] - worst[column]:.3f}."
    )


@dataclass(frozen=True)
class ProbeEnds:
    """The probe set on two occasions, with names for answers where there are classes, and how examples are read."""

    ends: pd.DataFrame
    labels: Sequence[str]
    unit: str
    writes: bool

    @property
    def numbers(self) -> pd.DataFrame:
        """The examples, the greatest change of the loss first."""
        rows = results.changed(self.ends, 5000)
        return as_written(rows) if self.writes else rows


class AdapterLosses(Panel[ProbeEnds]):
    """The loss of each probe example with the adapters off against on.

    Attributes:
        sides: what both occasions are called.
    """

    id = "base"
    order = 37
    part = "Results"
    title = "Effect of the adapters"
    missing = "Not recorded in this run. Newer runs evaluate the base model on the probe set at their end."
    sides: ClassVar[tuple[str, str]] = ("with adapters off", "with adapters on")

    def ends(self, run: RunReading, examples: pd.DataFrame) -> pd.DataFrame:
        """Return the probe set on both occasions, without rows where they were not recorded."""
        return results.base_ends(examples, run.final("base_loss"), run.final("base_prediction"))

    def data(self, view: RunView) -> ProbeEnds | None:
        """Return the probe set on both occasions; None where they were not recorded."""
        run: RunReading = view.result
        evaluated = run_summary.evaluation(run.evaluations)
        ends = self.ends(run, run.store.ask_events(queries.examples_frame, run.folder))
        if evaluated is None or ends.empty:
            return None
        labels = [str(label) for label in (evaluated[1].get("labels") or [])]
        unit, writes = run_summary.loss_unit(run.summary), run_summary.writes(run.summary)
        return ProbeEnds(results.answer_names(ends, labels), labels, unit, writes)

    def caption(self, data: ProbeEnds) -> str:
        """Return on how many probe examples the loss fell, and its means."""
        ends, (before, after) = data.ends, self.sides
        return (
            f"The loss is lower {after} than {before} on {int((ends['change'] < 0).sum())} of {len(ends)} probe "
            f"examples; the mean changed from {ends['first_loss'].mean():.3f} to {ends['last_loss'].mean():.3f}."
        )

    def short_table(self, data: ProbeEnds) -> pd.DataFrame:
        """Return the examples that changed most."""
        return self.table(data).head(100)

    def figure(self, data: ProbeEnds, colours: Palette) -> go.Figure:
        """Draw a point for each example, with the diagonal on which nothing changes."""
        drawn = theme.figure(colours, 320)
        wide, high = (_reach(data.ends[column].to_numpy(float)) for column in ("first_loss", "last_loss"))
        top = max(wide[1], high[1])
        drawn.add_scatter(
            x=[0, top],
            y=[0, top],
            mode="lines",
            line={"color": colours.muted, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            name="No change",
        )
        right = np.asarray(data.ends["last"].eq(data.ends["label"]), bool)
        both = [(True, "Correct", colours.accent, "circle"), (False, "Wrong", colours.second, "x")]
        if not data.labels:
            right, both = np.ones(len(data.ends), bool), [(True, "Example", colours.accent, "circle")]
        for is_right, name, colour, symbol in both:
            part = data.ends.loc[right == is_right]
            drawn.add_scatter(
                x=part["first_loss"],
                y=part["last_loss"],
                mode="markers",
                name=name,
                marker={"color": theme.faded(colour, 0.75), "symbol": symbol, "size": 7},
                text=[plotly_text(text, 90) for text in part["text"]],
                hovertemplate="%{text}<br>before %{x:.3f}, after %{y:.3f}<extra></extra>",
            )
        drawn.update_layout(showlegend=True)
        drawn.update_xaxes(title_text=f"Loss {self.sides[0]} ({plotly_text(data.unit)})", range=wide)
        drawn.update_yaxes(title_text=f"Loss {self.sides[1]} ({plotly_text(data.unit)})", range=high)
        return drawn


class AdapterAnswers(AdapterLosses):
    """What became of the answers when the adapters were switched on, as one divided bar."""

    id = "base_answers"
    order = 38
    title = "Predictions changed by the adapters"
    is_optional = True

    def data(self, view: RunView) -> ProbeEnds | None:
        """Return the probe set on both occasions; None where there are no classes."""
        data = super().data(view)
        return data if data and data.labels else None

    def caption(self, data: ProbeEnds) -> str:
        """Return the accuracy of both sides and how many answers changed, and which way."""
        unchanged, won, lost, wrong = results.answers(data.ends)["count"].tolist()
        (before, after), total = self.sides, unchanged + won + lost + wrong
        return (
            f"{before.capitalize()} {percent((unchanged + lost) / total)} of {total} probe predictions are correct, "
            f"{after} {percent((unchanged + won) / total)}: {won} predictions became correct, {lost} became wrong."
        )

    def table(self, data: ProbeEnds) -> pd.DataFrame:
        """Return how many answers there are of each sort."""
        return results.answers(data.ends)

    def more(self, data: ProbeEnds) -> Mapping[str, pd.DataFrame]:
        """Return the examples whose answer is another one."""
        rows = results.turned(data.ends).head(100)
        return {"Examples with another prediction": rows} if len(rows) else {}

    def figure(self, data: ProbeEnds, colours: Palette) -> go.Figure:
        """Draw the sorts of answers in their order."""
        counts, drawn = results.answers(data.ends), theme.figure(colours, 210, left=12)
        shades = (theme.faded(colours.accent, 0.35), colours.accent, colours.second, theme.faded(colours.second, 0.35))
        inks = (colours.text, colours.panel, colours.panel, colours.text)
        total = int(counts["count"].sum())
        for answer, count, colour, ink in zip(counts["answer"], counts["count"], shades, inks, strict=True):
            drawn.add_bar(
                x=[count],
                y=[""],
                orientation="h",
                name=plotly_text(answer),
                marker={"color": colour},
                text=f"{count:,}" if count / total > 0.04 else "",
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": ink},
                hovertemplate=f"{plotly_text(answer)}: %{{x:,}} examples<extra></extra>",
            )
        drawn.update_layout(barmode="stack", bargap=0.4, showlegend=True, legend={"traceorder": "normal"})
        drawn.update_xaxes(title_text="Probe examples", range=[0, total])
        drawn.update_yaxes(showticklabels=False, showgrid=False)
        return drawn


class LossesSinceFirst(AdapterLosses):
    """The loss of each probe example at the first evaluation against now."""

    id = "changed"
    order = 35
    title = "Changes since the first evaluation"
    missing = "The probe set has been evaluated fewer than two times, so there is no comparison yet."
    sides = ("at the first evaluation", "now")

    def ends(self, run: RunReading, examples: pd.DataFrame) -> pd.DataFrame:
        """Return the probe set at the first and the last evaluation."""
        try:
            ask = partial(run.store.ask_events, queries.signal_frame, run.folder)
            return results.probe_ends(examples, ask("probe_loss"), ask("probe_prediction"))
        except KeyError:  # the run has no probe set
            return pd.DataFrame()


class AnswersSinceFirst(AdapterAnswers, LossesSinceFirst):
    """What became of the answers since the first evaluation."""

    id = "changed_answers"
    order = 36
    title = "Predictions changed since the first evaluation"
    sides = LossesSinceFirst.sides


def _reach(losses: np.ndarray) -> tuple[float, float]:
    """Return an axis for losses: from zero, unless they all lie close together."""
    known = losses[np.isfinite(losses)]
    low, high = float(np.min(known, initial=np.inf)), float(np.max(known, initial=0.1))
    gap = 0.05 * max(high - low, 0.02) if np.isfinite(low) else 0.0
    return (low - gap if low > 0.5 * high else 0.0, high + gap)
