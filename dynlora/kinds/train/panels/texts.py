"""What a language model wrote at its evaluations: each text beside that of the first, and how many are correct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynlora.analysis.stats import share_interval
from dynlora.store import queries
from dynlora.text import percent
from dynlora.viz.kit.panel import Panel, RunView

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


Steps = dict[int, list[Generated]]
"""The texts of each evaluation by its step, in order."""


class GeneratedTexts(Panel[Steps]):
    """What the model wrote at the last evaluation, beside its text at the first."""

    id = "generations"
    order = 39
    part = "Results"
    title = "Generated texts"
    missing = "The run has not recorded any texts."
    is_wide = True
    is_optional = True

    def heading(self, view: RunView) -> str:
        """Return the title with the step of the last evaluation."""
        return f"{self.title} at step {max(self.data(view) or {0: []}):,}"

    def data(self, view: RunView) -> Steps | None:
        """Return the texts; None for a run that writes nothing."""
        return by_step(view.store.ask_events(queries.events_frame, view.folder, ("generations",))) or None

    def caption(self, data: Steps) -> str:
        """Return how many answers are right, or how many texts changed."""
        return conclusion(data)

    def table(self, data: Steps) -> pd.DataFrame:
        """Return the texts of the last evaluation beside those of the first."""
        return beside_first(data[max(data)], data[min(data)])


def by_step(events: pd.DataFrame) -> Steps:
    """Return the texts of each evaluation by its step, in order; what is no text is left out.

    Args:
        events: those of kind `generations`, with columns step and payload.
    """
    steps_texts: Steps = {}
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


def beside_first(texts: Sequence[Generated], first: Sequence[Generated]) -> pd.DataFrame:
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
