"""Figures of what an evaluation found: scores by class and group, answers before and after, the machine in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.stats import share_interval
from dynlora.text import percent, plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

LONGEST = 4000
"""Characters of a text that are compared and drawn."""


@dataclass(frozen=True)
class Generated:
    """One text that was written.

    Attributes:
        row: position of the prompt among the held-out examples.
        group: its input group, empty without one.
        prompt: what the model continued.
        expected: what the data has there.
        text: what the model wrote.
        ended: whether it wrote the end token; else it was cut off.
        right: whether its answer is right; None where there is none to check.
    """

    row: int
    group: str
    prompt: str
    expected: str
    text: str
    ended: bool
    right: bool | None


def by_step(events: pd.DataFrame) -> dict[int, list[Generated]]:
    """Return the texts of each evaluation by its step, in order; what is no text is left out.

    Args:
        events: those of kind `generations`, with columns step and payload.
    """
    steps_texts: dict[int, list[Generated]] = {}
    for step, payload in zip(events["step"], events["payload"], strict=True):
        rows = payload.get("rows") if isinstance(payload, Mapping) else None
        texts = [_generated(row) for row in rows if isinstance(row, Mapping)] if isinstance(rows, Sequence) else []
        if texts:
            steps_texts[int(step)] = texts
    return dict(sorted(steps_texts.items()))


def _generated(row: Mapping[str, Any]) -> Generated:
    """Return one text as it was recorded."""
    text = {key: str(row.get(key) or "")[:LONGEST] for key in ("group", "prompt", "expected", "text")}
    place, right = row.get("row"), row.get("right")
    return Generated(
        row=place if isinstance(place, int) else -1,
        ended=bool(row.get("ended")),
        right=right if isinstance(right, bool) else None,
        **text,
    )


def right_of(texts: Sequence[Generated]) -> tuple[int, int]:
    """Return how many answers are right, and how many were checked."""
    checked = [text.right for text in texts if text.right is not None]
    return sum(checked), len(checked)


def changes(before: str, after: str) -> list[tuple[str, bool]]:
    """Return a text in pieces, each with whether its words are others than in the text before."""
    from difflib import SequenceMatcher

    old, new = _words(before), _words(after)
    pieces: list[tuple[str, bool]] = []
    for kind, _, _, start, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if end > start:
            pieces.append(("".join(new[start:end]), kind != "equal"))
    return pieces


def _words(text: str) -> list[str]:
    """Return the words of a text with the white space after each; together they are the text."""
    import re

    return re.findall(r"\s+|\S+\s*", text)


def table(texts: Sequence[Generated], first: Sequence[Generated]) -> pd.DataFrame:
    """Return the texts of a step beside those of the first, one row a prompt."""
    before = {text.row: text for text in first}
    rows = [
        {
            "prompt": text.prompt,
            "at first": before[text.row].text if text.row in before else "",
            "now": text.text,
            "expected": text.expected,
            "correct": {True: "yes", False: "no", None: "–"}[text.right],
            "group": text.group or "–",
            "complete": "yes" if text.ended else "cut off",
        }
        for text in texts
    ]
    columns = ["prompt", "at first", "now", "expected", "correct", "group", "complete"]
    return pd.DataFrame(rows, columns=columns)


def conclusion(steps: Mapping[int, Sequence[Generated]]) -> str:
    """Return what the texts show in a sentence: how many answers are right, or how many texts changed."""
    known = list(steps)
    first, last = known[0], known[-1]
    right, of = right_of(steps[last])
    if of:
        low, high = share_interval(right, of)
        sentence = (
            f"At step {last:,}, {right} of {of} answers are correct (95 % CI {percent(low, 0)} to {percent(high, 0)})"
        )
        before = "; at step {:,}, {} of {}".format(first, *right_of(steps[first])) if last != first else ""
        return f"{sentence}{before}."
    if last == first:
        return f"The model continued {len(steps[last])} prompts at step {last:,}."
    before = {text.row: text.text for text in steps[first]}
    moved = sum(before.get(text.row) != text.text for text in steps[last])
    return f"{moved} of {len(steps[last])} texts are other ones at step {last:,} than at step {first:,}."


def answer_bar(counts: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw how the predictions changed as one divided bar; columns answer and count, in the order they are drawn."""
    drawn = theme.figure(colours, 210, left=12)
    shades = (theme.faded(colours.accent, 0.35), colours.accent, colours.second, theme.faded(colours.second, 0.35))
    inks = (colours.text, colours.panel, colours.panel, colours.text)
    total = max(1, int(counts["count"].sum()))
    rows = zip(counts["answer"], counts["count"], shades, inks, strict=True)
    for answer, count, colour, ink in rows:
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


def before_after(
    named: pd.DataFrame, before: str, after: str, unit: str, colours: Palette, *, has_classes: bool = True
) -> go.Figure:
    """Draw the loss of each probe example before against after, with the diagonal on which nothing changes.

    Args:
        named: columns first_loss, last_loss, first, last, label, text.
        before: title of the first axis, without its unit.
        after: title of the second.
        unit: of the loss.
        colours: of the mode.
        has_classes: an answer is right or wrong; numbers and texts are not.
    """
    drawn = theme.figure(colours, 320)
    wide, high = (_reach(named[column].to_numpy(float)) for column in ("first_loss", "last_loss"))
    top = max(wide[1], high[1])
    drawn.add_scatter(
        x=[0, top],
        y=[0, top],
        mode="lines",
        line={"color": colours.muted, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        name="No change",
    )
    right = np.asarray(named["last"].eq(named["label"]), bool)
    both = [(True, "Correct", colours.accent, "circle"), (False, "Wrong", colours.second, "x")]
    if not has_classes:
        right, both = np.ones(len(named), bool), [(True, "Example", colours.accent, "circle")]
    for is_right, name, colour, symbol in both:
        part = named.loc[right == is_right]
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
    drawn.update_xaxes(title_text=f"{plotly_text(before)} ({plotly_text(unit)})", range=wide)
    drawn.update_yaxes(title_text=f"{plotly_text(after)} ({plotly_text(unit)})", range=high)
    return drawn


def _reach(losses: np.ndarray) -> tuple[float, float]:
    """Return an axis for losses: from zero, unless they all lie close together."""
    known = losses[np.isfinite(losses)]
    low, high = float(np.min(known, initial=np.inf)), float(np.max(known, initial=0.1))
    gap = 0.05 * max(high - low, 0.02) if np.isfinite(low) else 0.0
    return (low - gap if low > 0.5 * high else 0.0, high + gap)


def readings(series: pd.DataFrame, names: Mapping[str, str], title: str, colours: Palette) -> go.Figure:
    """Draw readings of the machine over time.

    Args:
        series: columns name, minutes, value.
        names: recorded name and what it is called, in the order of the colours.
        title: of the axis, with its unit.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 230)
    recorded = [name for name in names if (series["name"] == name).any()]
    for name, (colour, _, dash) in theme.contrasting(recorded).items():
        part = series[series["name"] == name]
        drawn.add_scatter(
            x=part["minutes"],
            y=part["value"],
            mode="lines" if len(part) > 20 else "lines+markers",
            name=plotly_text(names[name]),
            line={"color": colour, "width": 1.8, "dash": dash},
            hovertemplate=f"%{{x:.1f}} min<br>{plotly_text(names[name])} %{{y:,.0f}}<extra></extra>",
        )
    drawn.update_layout(showlegend=len(recorded) > 1)
    drawn.update_xaxes(title_text="Minutes since the first reading")
    drawn.update_yaxes(title_text=plotly_text(title), rangemode="tozero")
    return drawn


def before_after_caption(ends: pd.DataFrame, before: str, after: str) -> str:
    """Say on how many probe examples the loss fell, and its means."""
    fell = int((ends["change"] < 0).sum())
    return (
        f"The loss is lower {after} than {before} on {fell} of {len(ends)} probe examples; the mean changed from "
        f"{ends['first_loss'].mean():.3f} to {ends['last_loss'].mean():.3f}."
    )


def answers(counts: pd.DataFrame, before: str, after: str) -> str:
    """Say the accuracy of both sides and how many answers changed, and which way; counts in the order of `ANSWERS`."""
    unchanged, won, lost, _ = (int(count) for count in counts["count"])
    total = int(counts["count"].sum())
    if not total:
        return "This run has no probe set."
    return (
        f"{before} {percent((unchanged + lost) / total)} of {total} probe predictions are correct, {after} "
        f"{percent((unchanged + won) / total)}: {won} predictions became correct, {lost} became wrong."
    )
