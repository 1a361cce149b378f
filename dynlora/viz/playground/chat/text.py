"""Texts of the Playground of a run that writes, as HTML: turns, answers side by side, tokens in colour."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynlora.analysis.run_summary import ACTIVE
from dynlora.text import number, one_line, percent, sentence_case, signed
from dynlora.viz.kit.token_text import Colouring, TextToken, visible
from dynlora.viz.playground.chat.model import Answer

BETTER = Colouring("log p(adapter) − log p(base), nats", ("less probable with the adapter", "more probable"))


def prompt_html(prompt: str) -> str:
    """Return what a person asked."""
    return f'<div class="dl-text dl-asked"><small>Prompt</small><pre>{html.escape(prompt)}</pre></div>'


def answer_html(answer: Answer) -> str:
    """Return what one wrote: who, how long, and the text."""
    head = f"{sentence_case(answer.voice.name)} · {answer.state}"
    empty = "…" if answer.is_writing else "(nothing)"
    return (
        f'<div class="dl-text"><small>{html.escape(head)}</small><pre>{html.escape(answer.text) or empty}</pre></div>'
    )


def text_tokens(found: Mapping[str, Any]) -> Sequence[TextToken]:
    """Return the tokens of a text in the colour of how much more probable the adapter makes them."""
    return [TextToken(row["text"], row["adapter"] - row["base"], _told(row)) for row in found["tokens"]]


def _told(row: Mapping[str, Any]) -> str:
    lines = [
        f"p(token): adapter {percent(np.exp(row['adapter']))}, base {percent(np.exp(row['base']))}",
        f"difference {signed(row['adapter'] - row['base'], 2)} nats",
    ]
    for name in ("adapter", "base"):
        top = ", ".join(
            f"{visible(one_line(text, 20) if text.strip() else text)} {percent(p, 0)}" for text, p in row[f"{name}_top"]
        )
        lines.append(f"{name}: {top}")
    return "\n".join(lines)


def where_from(about: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Say which adapter answers where that is not the one of the run's end; empty where it is."""
    step = number(int(about["step"]))
    if about["place"] == "adapter":
        return ""
    if summary["status"] in ACTIVE:
        return f"The run is still training. The adapter is that of its last checkpoint (step {step})."
    return f"The run did not finish. The adapter is that of its last checkpoint (step {step})."
