"""The card of generated texts: a slider over evaluations, one prompt whole, and all of them as a table."""

from __future__ import annotations

import html

import streamlit as st

from dynlora.store import queries
from dynlora.viz.kit import strong_language
from dynlora.viz.run import generations
from dynlora.viz.run.generations import Generated
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import asked_for_texts, card, note, table
from dynlora.viz.ui.run_picker import Chosen

KEY = "generations"


def generated_texts(run: Chosen) -> None:
    """Draw what the model wrote at its evaluations; nothing for a run that writes nothing.

    Raises:
        DynloraError: when the run cannot be read.
    """
    steps = generations.by_step(cached_queries.ask_events(queries.events_frame, run.folder, ("generations",)))
    if not steps:
        return
    with card("Generated texts", KEY, generations.conclusion(steps)):
        step = _step(list(steps))
        first = next(iter(steps.values()))
        frame = generations.table(steps[step], first)
        is_shown = asked_for_texts(strong_language.count(frame), KEY)
        shown = frame if is_shown else strong_language.hidden(frame)
        texts = steps[step]
        names = [f"{place + 1}. {_line(prompt)}" for place, prompt in enumerate(shown["prompt"])]
        place = st.selectbox("Prompt", range(len(names)), format_func=names.__getitem__, key=f"{KEY}-prompt")
        if is_shown or shown["now"].iloc[place] == frame["now"].iloc[place]:
            _one(texts[place], first, step)
        else:
            note("This text has strong language. Choose Show text to read it.")
        table(shown, KEY, frame)


def _step(steps: list[int]) -> int:
    """Draw the slider over evaluations and return the chosen step."""
    if len(steps) < 2:
        return steps[-1]
    return st.select_slider("Evaluation at step", steps, value=steps[-1], key=f"{KEY}-step-{len(steps)}")


def _one(text: Generated, first: list[Generated], step: int) -> None:
    """Draw one prompt and its text, with the words marked that are others than at the first evaluation."""
    before = next((one.text for one in first if one.row == text.row), "")
    pieces = generations.changes(before, text.text) if text is not first else [(text.text, False)]
    marked = "".join(f"<mark>{html.escape(piece)}</mark>" if new else html.escape(piece) for piece, new in pieces)
    verdict = {True: " · correct", False: " · not correct", None: ""}[text.right]
    parts = (
        ("Prompt", html.escape(text.prompt), ""),
        (f"Step {step:,}{verdict}{'' if text.ended else ' · cut off at the limit'}", marked or "(nothing)", ""),
        ("First evaluation", html.escape(before) or "(nothing)", " dl-pale"),
        ("In the data", html.escape(text.expected), " dl-pale"),
    )
    st.html("".join(
        f'<div class="dl-text{kind}"><small>{html.escape(title)}</small><pre>{body}</pre></div>'
        for title, body, kind in parts if body
    ))  # fmt: skip


def _line(text: str) -> str:
    """Return the beginning of a text in a line."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= 80 else f"{flat[:79]}…"
