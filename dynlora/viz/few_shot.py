"""A meta-LoRA on a new task: a few examples per class, and predictions at once, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.data_files.reader import sent_table
from dynlora.errors import ConfigError, DynloraError
from dynlora.kinds.recycle.kind import RecycleKind
from dynlora.kinds.recycle.result import WHAT
from dynlora.text import listed, one_line, plural
from dynlora.viz.ui.cards import card, note, rows, safe, titled, under
from dynlora.viz.ui.model_client import ask_model
from dynlora.viz.ui.run_picker import find_run, link, list_all, run_labels
from dynlora.viz.ui.url_state import choose

MOST_ROWS = 500
"""Examples at most; a class needs a few."""

MOST_TEXTS = 100
"""Texts to classify at most."""

Support = list[list[str]]
"""(text, label) pairs, as the child takes them."""


def pasted(words: str) -> Support:
    """Return the examples of pasted lines, each `label: text`.

    Raises:
        ConfigError: naming the first line that is none.
    """
    examples: Support = []
    for place, line in enumerate(words.splitlines(), 1):
        if not line.strip():
            continue
        label, colon, text = line.partition(":")
        if not colon or not label.strip() or not text.strip():
            raise ConfigError(f"line {place}: write the label, a colon and the text, such as `complaint: too late`")
        examples.append([text.strip(), label.strip()])
    return _checked(examples)


def of_file(name: str, data: bytes) -> Support:
    """Return the examples of a small file with columns text and label, read as `dynlora fewshot --support` reads it.

    Raises:
        ConfigError: when it lacks a column, or its examples cannot be used.
        DataError: when it cannot be read.
    """
    table = sent_table(name, data)
    columns = {column.strip().lower(): column for column in table.columns}
    missing = [column for column in ("text", "label") if column not in columns]
    if missing:
        column_names = listed([one_line(column, 40) for column in table.columns], 20)
        raise ConfigError(
            f"{one_line(name, 60)}: has no column {missing[0]}; it has {column_names}; rename the two that are meant "
            "to text and label"
        )
    pairs = zip(table.values(columns["text"]), table.values(columns["label"]), strict=True)
    return _checked([["" if cell is None else str(cell).strip() for cell in pair] for pair in pairs])


def _checked(support: Support) -> Support:
    """Return examples that can be used.

    Raises:
        ConfigError: when there are too many, one is blank, or they are of one class.
    """
    if len(support) > MOST_ROWS:
        raise ConfigError(f"{plural(len(support), 'example')}: give at most {MOST_ROWS}; a few per class are enough")
    if not all(text and label for text, label in support):
        raise ConfigError("a text or a label is empty: fill it in, or remove the row")
    labels = {label for _, label in support}
    if len(labels) < 2:
        raise ConfigError(f"the examples are of {len(labels)} class: give examples of two classes or more")
    return support


def asked_texts(words: str) -> list[str]:
    """Return the texts to classify, one per line.

    Raises:
        ConfigError: when there are too many.
    """
    texts = [line.strip() for line in words.splitlines() if line.strip()]
    if len(texts) > MOST_TEXTS:
        raise ConfigError(f"{plural(len(texts), 'text')}: give at most {MOST_TEXTS}; the command takes more")
    return texts


def answers(answered: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the answers as a table: text, label, distance to each class, nearest example and its label."""
    rows = [
        {
            "text": one["text"],
            "label": one["label"],
            "nearest example": one["nearest"]["text"],
            "its label": one["nearest"]["label"],
            **{f"distance to {label}": value for label, value in one["distances"].items()},
        }
        for one in answered
    ]
    return pd.DataFrame(rows)


KIND = RecycleKind()

EXAMPLE = """delivery: my parcel has not arrived
delivery: when will the order be here
refund: I want my money back
refund: please pay me back for the broken lamp"""

QUESTIONS = """where is my package
can I return this and get a refund"""


def can_try() -> bool:
    """Say whether there is a meta-LoRA to try."""
    runs = list_all((KIND.name,))
    return any(KIND.has_model(Path(folder)) for folder in runs["folder"])


def few_shot_tab() -> None:
    """Draw the tab: which meta-LoRA, the examples, the texts, and what is predicted."""
    runs = list_all((KIND.name,))
    runs = runs[[KIND.has_model(Path(folder)) for folder in runs["folder"]]]
    titled("Playground: few-shot", "Give a few examples per class of any task. Nothing is trained.")
    if runs.empty:
        note(WHAT)
        link("pages/recycle.py", "Make a meta-LoRA of finished runs")
        return
    words = run_labels(runs)
    run_id = choose("meta", "Meta-LoRA", list(words), next(iter(words)), words.__getitem__)
    with card(
        "Examples", "few-shot-support", "One per line: label, colon, text; or a file with columns text and label"
    ):
        given, texts = _given()
    with card("Predictions", "few-shot-answers"):
        _predictions(find_run(run_id).folder, given, texts)


def _given() -> tuple[Support | None, list[str]]:
    """Draw the fields and return the examples and the texts; no examples where they cannot be used."""
    left, right = st.columns([3, 2])
    with left:
        words = st.text_area("Examples", EXAMPLE, key="few-shot-examples", height=150, max_chars=100_000)
    with right:
        sent = st.file_uploader("Or a file (CSV or JSONL)", ["csv", "jsonl"], max_upload_size=1, key="few-shot-file")
    questions = st.text_area(
        "Texts to classify, one per line", QUESTIONS, key="few-shot-texts", height=100, max_chars=50_000
    )
    try:
        given = pasted(words) if sent is None else of_file(sent.name, sent.getvalue())
        return given, asked_texts(questions)
    except DynloraError as error:
        st.error(safe(str(error)))
        return None, []


def _predictions(folder: Path, given: Support | None, texts: list[str]) -> None:
    """Draw what the meta-LoRA says of the texts."""
    if not given or not texts:
        note("Give examples of two classes or more, and a text.")
        return
    predicted = ask_model(folder, "few_shot", support=given, texts=texts)
    if predicted is None:
        return
    frame = answers(predicted)
    rows(frame.round(3))
    labels = plural(len({label for _, label in given}), "class").replace("classs", "classes")
    under(
        f"Nearest of {labels} by squared distance to the mean of its examples, {plural(len(given), 'example')} in all.",
        frame,
        "few-shot",
    )
