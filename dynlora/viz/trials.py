"""What other kinds of run answer in the Playground: few examples per class, and a problem decoded step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.data_files.reader import sent_table
from dynlora.errors import ConfigError, DynloraError
from dynlora.kinds.decode import frames
from dynlora.kinds.decode.kind import DecodeKind
from dynlora.kinds.decode.result import Step
from dynlora.kinds.recycle.kind import RecycleKind
from dynlora.kinds.recycle.result import WHAT
from dynlora.store.meta import count, finite, table
from dynlora.text import listed, one_line, plural
from dynlora.viz.ui.cards import card, colours, note, rows, safe, titled, under
from dynlora.viz.ui.live import fragment
from dynlora.viz.ui.model_client import POLL_S, Streamed, ask_model, begun
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


RECYCLE = RecycleKind()

FEW_SHOT_EXAMPLE = """delivery: my parcel has not arrived
delivery: when will the order be here
refund: I want my money back
refund: please pay me back for the broken lamp"""

QUESTIONS = """where is my package
can I return this and get a refund"""


def can_try_few_shot() -> bool:
    """Say whether there is a meta-LoRA to try."""
    runs = list_all((RECYCLE.name,))
    return any(RECYCLE.has_model(Path(folder)) for folder in runs["folder"])


def few_shot_tab() -> None:
    """Draw the tab: which meta-LoRA, the examples, the texts, and what is predicted."""
    runs = list_all((RECYCLE.name,))
    runs = runs[[RECYCLE.has_model(Path(folder)) for folder in runs["folder"]]]
    titled("Playground: few-shot", "Give a few examples per class of any task. Nothing is trained.")
    if runs.empty:
        note(WHAT)
        link("pages/recycle.py", "Make a meta-LoRA of finished runs")
        return
    words = run_labels(runs)
    run_id = choose("meta", "Meta-LoRA", words)
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
        words = st.text_area("Examples", FEW_SHOT_EXAMPLE, key="few-shot-examples", height=150, max_chars=100_000)
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


DECODE = DecodeKind()

PROBLEM = "Tom has 14 books. Tom buys 9 more. How many books does Tom have?"
MOST_CHARACTERS = 4000
ASKED = "decode-live"
"""Key of the session: what was asked last, and its stream."""


def can_try_decode() -> bool:
    """Say whether there is a decode whose roles can be asked."""
    return not _able().empty


def _able() -> pd.DataFrame:
    """Return the decodes whose draft, target and reward are there; those of most samples are not kept."""
    runs = list_all((DECODE.name,))
    return runs[[has_roles(str(folder)) for folder in runs["folder"]]]


@st.cache_data(max_entries=500, ttl=60, show_spinner=False)
def has_roles(folder: str) -> bool:
    """Say whether the runs that a decode names are still there."""
    return DECODE.has_model(Path(folder))


def live_tab() -> None:
    """Draw the tab: whose roles, the problem, the threshold, and the steps as they are written."""
    runs = _able()
    titled("Playground: decode", "Type a problem and watch who writes each step.")
    if runs.empty:
        note(f"{frames.WHAT} No decode here has its draft, target and reward at hand.")
        link("pages/decode.py", "Start a decode")
        return
    words = run_labels(runs)
    run_id = choose("decode", "Draft, target and reward of", words)
    with card("Problem", "decode-live-problem"):
        question = st.text_area("Problem", PROBLEM, key="decode-live-question", height=80, max_chars=MOST_CHARACTERS)
        threshold = st.slider(
            "Threshold",
            0.0,
            1.0,
            0.7,
            0.05,
            key="decode-live-threshold",
            help="0 accepts every step of the draft; 1 lets the target rewrite almost all.",
        )
        request = (run_id, question, threshold)
        is_new = st.session_state.get(ASKED, (None, None))[0] != request
        has_begun = st.session_state.get(ASKED) is not None
        pressed = st.button("Decode", type="primary", icon=":material/play_arrow:", key="decode-live-start")
        if pressed or (has_begun and is_new):
            _begin(request, find_run(run_id).folder, question, threshold)
    if st.session_state.get(ASKED) is not None:
        _steps_card(st.session_state[ASKED][1], threshold)


def _begin(request: tuple[Any, ...], folder: Path, question: str, threshold: float) -> None:
    """Ask the child; what was asked before ends."""
    before = st.session_state.get(ASKED)
    if before is not None:
        before[1].stop()
    with st.spinner("Loading draft, target and reward"):
        stream = begun(folder, "decode", question=question, threshold=threshold)
        # Within the spinner: its end draws, and a press meanwhile would draw the page again there and lose the stream.
        st.session_state[ASKED] = (request, stream)


def _steps_card(stream: Streamed, threshold: float) -> None:
    """Draw the steps, again and again while they are written."""

    @fragment(run_every=None if stream.ended else POLL_S)
    def live() -> None:
        was_writing = not stream.ended
        stream.read()
        if was_writing and stream.ended:
            st.rerun()
        with card("Solution, step by step", "decode-live-steps"):
            if stream.error:
                st.error(safe(stream.error))
            steps = [_step(message) for message in stream.messages if "by" in message]
            st.html(frames.steps_html(steps, threshold, colours()))
            end = next((message for message in stream.messages if "ended" in message), None)
            if end is not None:
                under(_ending(end), _frame(steps), "decode-live")
            elif not stream.ended:
                note("Writing the next step.")

    live()


def _step(message: Mapping[str, Any]) -> Step:
    """Return a step of a message; a value of another kind counts as none."""
    text = message.get("discarded")
    return Step.model_validate({**message, "discarded": None if text is None else {"text": text}})


def _ending(end: Mapping[str, Any]) -> str:
    """Return what it took."""
    tokens = table(end.get("tokens"))
    accepted, gone, target = (count(tokens.get(name)) for name in ("draft_kept", "draft_discarded", "target"))
    mine, whole = finite(end.get("flops")), finite(end.get("target_flops"))
    share = f" {100 * mine / whole:.0f} % of the decode FLOPs that the target alone needs." if mine and whole else ""
    answer = one_line(end.get("answer") or "none", 60)
    tokens_text = f"{accepted:,} of the draft kept, {gone:,} discarded, {target:,} of the target"
    return f"Answer: {answer}; tokens: {tokens_text}.{share}"


def _frame(steps: Sequence[Step]) -> pd.DataFrame:
    rows = [[step.by, step.text.strip(), step.reward, step.accepted, step.discarded] for step in steps]
    return pd.DataFrame(rows, columns=["by", "text", "reward", "accepted", "discarded"])
