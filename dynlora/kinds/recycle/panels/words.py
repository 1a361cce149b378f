"""The nearest words of the synthetic inputs of a class."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pandas as pd

from dynlora.kinds.recycle.result import Inverted
from dynlora.text import one_line, percent
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Choice, Panel, RunView
from dynlora.viz.kit.theme import Palette


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
