"""The Playground of a meta-LoRA: a few examples per class, and predictions at once, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.errors import DynloraError
from dynlora.inference.client import shared
from dynlora.kinds.recycle import text
from dynlora.kinds.recycle.kind import RecycleKind
from dynlora.text import markdown_text, plural
from dynlora.viz.few_shot import support
from dynlora.viz.ui.cards import card, note, rows, safe, titled, under
from dynlora.viz.ui.run_picker import find_run, link, list_all, run_labels
from dynlora.viz.ui.url_state import choose

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
        note(text.WHAT)
        link("pages/recycle.py", "Make a meta-LoRA of finished runs")
        return
    words = run_labels(runs)
    run_id = choose("meta", "Meta-LoRA", list(words), next(iter(words)), words.__getitem__)
    with card(
        "Examples", "few-shot-support", "One per line: label, colon, text; or a file with columns text and label"
    ):
        given, asked = _given()
    with card("Predictions", "few-shot-answers"):
        _predictions(find_run(run_id).folder, given, asked)


def _given() -> tuple[support.Support | None, list[str]]:
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
        given = support.pasted(words) if sent is None else support.of_file(sent.name, sent.getvalue())
        return given, support.asked_texts(questions)
    except DynloraError as error:
        st.error(safe(str(error)))
        return None, []


def _predictions(folder: Path, given: support.Support | None, asked: list[str]) -> None:
    """Draw what the meta-LoRA says of the texts."""
    if not given or not asked:
        note("Give examples of two classes or more, and a text.")
        return
    try:
        with st.spinner("Running the model"):
            found = _answers(str(folder), tuple(map(tuple, given)), tuple(asked))
    except DynloraError as error:
        st.error(markdown_text(str(error), 2000))
        return
    frame = support.answers(found)
    rows(frame.round(3))
    labels = plural(len({label for _, label in given}), "class").replace("classs", "classes")
    under(
        f"Nearest of {labels} by squared distance to the mean of its examples, {plural(len(given), 'example')} in all.",
        frame,
        "few-shot",
    )


@st.cache_data(max_entries=100, ttl=3600, show_spinner=False)
def _answers(folder: str, given: tuple[tuple[str, ...], ...], asked: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what the child predicts; kept as long as the same is asked."""
    return shared().ask("few_shot", folder=folder, support=[list(pair) for pair in given], texts=list(asked))
