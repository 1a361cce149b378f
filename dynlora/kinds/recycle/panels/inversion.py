"""The inversion of teachers: its loss, their agreement by class, the nearest words, and the tokens that are kept."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary
from dynlora.kinds.recycle import result
from dynlora.kinds.recycle.result import POINTS, Inverted
from dynlora.store import queries
from dynlora.store.reader import RunReader
from dynlora.text import listed, one_line, percent, plotly_text, score
from dynlora.viz.kit import charts, theme
from dynlora.viz.kit.panel import Choice, Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Inverting:
    """Loss and mean agreement by step: columns step and value."""

    loss: pd.DataFrame
    agreement: pd.DataFrame


class Inversion(Panel[Inverting]):
    """Loss of the inversion over its steps."""

    id = "inversion"
    order = 2
    title = "Inversion"
    about = "Synthetic inputs that a teacher assigns to its class"
    missing = "No input has been made yet."

    def data(self, view: RunView) -> Inverting | None:
        """Return both series."""
        scalars = view.store.ask(queries.scalars_frame, view.folder, None, None, POINTS)
        both = Inverting(*(run_summary.series(scalars, name, "inversion") for name in ("inversion_loss", "agreement")))
        return None if both.loss.empty else both

    def caption(self, data: Inverting) -> str:
        """Return first and last loss, and the last agreement."""
        loss, agreement = data.loss["value"], data.agreement["value"]
        last = (
            f" Mean agreement with the teachers at the end: {percent(agreement.iloc[-1], 0)}." if len(agreement) else ""
        )
        return (
            f"Inversion loss over {len(loss):,} recorded iterations, from {score(loss.iloc[0])} to "
            f"{score(loss.iloc[-1])}. Each group of classes begins again.{last}"
        )

    def table(self, data: Inverting) -> pd.DataFrame:
        """Return loss and agreement by step."""
        loss, agreement = data.loss.rename(columns={"value": "loss"}), data.agreement
        return loss.merge(agreement.rename(columns={"value": "agreement"}), on="step")

    def figure(self, data: Inverting, colours: Palette) -> go.Figure:
        """Draw loss and agreement."""
        loss, agreement = data.loss, data.agreement
        drawn = theme.figure(colours, 260)
        drawn.add_scatter(
            x=loss["step"],
            y=loss["value"],
            mode="lines",
            name="Loss",
            line={"color": colours.second, "width": 1.6},
            hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
        )
        drawn.add_scatter(
            x=agreement["step"],
            y=agreement["value"],
            mode="lines",
            name="Agreement",
            yaxis="y2",
            line={"color": colours.accent, "width": 1.6, "dash": "dash"},
            hovertemplate="step %{x}: agreement %{y:.0%}<extra></extra>",
        )
        drawn.update_xaxes(title_text="Step")
        right = {
            **theme.axis(colours),
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.05],
            "tickformat": ".0%",
            "showgrid": False,
            "title": theme.axis_title("Agreement", colours),
            "dtick": 0.25,
        }
        drawn.update_layout(showlegend=True, yaxis2=right, margin={"r": 56})
        drawn.update_yaxes(title_text="Loss", selector={"anchor": "x"}, rangemode="tozero")
        return drawn


class Agreement(Panel[pd.DataFrame]):
    """Last agreement of each class, the lowest first."""

    id = "agreement"
    order = 3
    title = "Teacher agreement by class"
    missing = "No class has been inverted yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns class, teacher, agreement."""
        frame = result.agreement_frame(view.result, view.folder)
        return frame if frame["agreement"].notna().any() else None

    def caption(self, data: pd.DataFrame) -> str:
        """Return the classes whose inputs their teacher does not see in them."""
        known = data.dropna(subset=["agreement"])
        low = known[known["agreement"] < result.LOW]
        if low.empty:
            return f"The teachers assign at least {percent(known['agreement'].min(), 0)} of the inputs to their class."
        names = listed([one_line(name, 40) for name in low["class"]])
        verb, whose = ("is", "Its") if len(low) == 1 else ("are", "Their")
        return (
            f"{len(low):,} of {len(known):,} classes {verb} below {percent(result.LOW, 0)}: {names}. {whose} inputs "
            "teach little; more iterations may help."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a bar for each class, in the colour of its teacher: two teachers may have classes of one name."""
        known = data.dropna(subset=["agreement"]).reset_index(drop=True)
        drawn = theme.figure(colours, 280)
        names = [plotly_text(name, 30) for name in known["class"]]
        looks = theme.styles(sorted(set(data["teacher"])))
        for teacher, part in known.groupby("teacher", sort=True):
            drawn.add_bar(
                x=part.index.tolist(),
                y=part["agreement"],
                name=plotly_text(teacher, 40),
                marker={"color": looks[str(teacher)][0]},
                customdata=[names[number] for number in part.index],
                hovertemplate="%{customdata}: %{y:.0%}<extra>%{fullData.name}</extra>",
            )
        drawn.update_layout(barmode="overlay", showlegend=1 < len(looks) <= result.MOST_NAMED)
        drawn.add_hline(y=result.LOW, line={"color": colours.muted, "width": 1, "dash": "dot"})
        drawn.update_yaxes(title_text="Agreement", tickformat=".0%", range=[0, 1.05])
        drawn.update_xaxes(
            tickmode="array",
            tickvals=list(range(len(known))),
            ticktext=names,
            tickangle=-45,
            showticklabels=len(known) <= result.MOST_NAMED,
            title_text="" if len(known) <= result.MOST_NAMED else "Classes, lowest first",
        )
        return drawn


@dataclass(frozen=True)
class ClassWords:
    """The synthetic inputs of a class, by its name."""

    name: str
    inverted: Inverted


class Words(Panel[ClassWords]):
    """Nearest word of each token of some synthetic inputs."""

    id = "words"
    order = 4
    title = "Nearest words"
    missing = "The words appear when the first classes are done."

    def choice(self, view: RunView) -> Choice | None:
        """Return the classes that are done."""
        names = view.result.classes
        done = {str(group): one_line(names[group], 80) for group in sorted(view.result.inverted) if group < len(names)}
        return Choice("class", "Class", done, next(iter(done))) if done else None

    def data(self, view: RunView) -> ClassWords | None:
        """Return the inputs of the chosen class."""
        choice = self.choice(view)
        if choice is None:
            return None
        group = int(choice.of(view))
        return ClassWords(view.result.classes[group], view.result.inverted[group])

    def caption(self, data: ClassWords) -> str:
        """Return what the words are, and how many the teacher assigns to the class."""
        agreement = data.inverted.agreement
        share = "" if agreement is None else percent(agreement, 0)
        assigned = f" The teacher assigns {share} of its inputs to the class." if share else ""
        return (
            f"Nearest word of each token that is left, for some synthetic inputs of {one_line(data.name, 60)}."
            f"{assigned} They are points between words, so they need not read as text."
        )

    def table(self, data: ClassWords) -> pd.DataFrame:
        """Return the inputs, a row each."""
        return pd.DataFrame({"input": [" ".join(words) for words in data.inverted.inputs]})

    def html(self, data: ClassWords, colours: Palette) -> str:
        """Draw the words of each input in a line."""
        return words_html(data.inverted, colours)


MOST_INPUTS = 8
"""Inputs that are drawn."""


def words_html(one: Inverted, colours: Palette) -> str:
    """Return the inputs of a class, a line each; every word of the run is escaped."""
    style = (
        f"background:{theme.faded(colours.accent, 0.12)};border-radius:4px;padding:0.1rem 0.35rem;font-size:0.82rem;"
        "font-family:ui-monospace,monospace"
    )
    lines = [
        "".join(f"<span style='{style}'>{html.escape(one_line(word, 30)) or '·'}</span>" for word in words)
        for words in one.inputs[:MOST_INPUTS]
    ]
    row = "display:flex;flex-wrap:wrap;gap:0.25rem;margin:0.25rem 0"
    return "".join(f"<div style='{row}'>{line}</div>" for line in lines)


@dataclass(frozen=True)
class Tokens:
    """Mean tokens of an input by step (columns step and value), of so many at the start."""

    numbers: pd.DataFrame
    at_start: int


class TokensKept(Panel[Tokens]):
    """Mean tokens per input over all classes."""

    id = "kept"
    order = 6
    title = "Tokens kept"
    missing = "No token has been dropped yet."

    def applies(self, view: RunView) -> bool:
        """Say whether tokens are dropped in this recycle: the signal is defined at its start."""
        with RunReader(view.folder) as reader:
            return "tokens_kept" in reader.signals()

    def data(self, view: RunView) -> Tokens | None:
        """Return the mean over all classes."""
        frame = view.store.ask(queries.signal_frame, view.folder, "tokens_kept", None, None, POINTS)
        series = pd.DataFrame({"step": frame["step"], "value": frame.drop(columns="step").mean(axis=1)})
        return None if series.empty else Tokens(series, view.result.tokens)

    def caption(self, data: Tokens) -> str:
        """Return how many tokens are left at the end."""
        return (
            f"Mean tokens per input over all classes: {data.numbers['value'].iloc[-1]:.1f} of {data.at_start} at the "
            "end. Those of least use are dropped after a quarter of the iterations."
        )

    def figure(self, data: Tokens, colours: Palette) -> go.Figure:
        """Draw the series."""
        return charts.line(data.numbers, "tokens kept", colours)
