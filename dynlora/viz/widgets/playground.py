"""The Playground's cards: one text under the lens, and small files."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false
# (pandas comes without types)
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.errors import ConfigError
from dynlora.viz import figures_playground, playground, token_view
from dynlora.viz.labels import one_line, plural
from dynlora.viz.widgets.address import choose, put, to_address
from dynlora.viz.widgets.cards import card, chart, colours, note, safe, table, under
from dynlora.viz.widgets.inputs import InputsView
from dynlora.viz.widgets.model_answers import ask_model
from dynlora.viz.widgets.picker import Chosen, find_run, list_all, run_words

LIMIT = 20_000
"""Characters of a text."""

MOST_EXAMPLES = 256
MOST_LAYERS = 12

LONG = "playground-long"
"""Where a text is kept that is too long for the address."""


@dataclass(frozen=True)
class Asked:
    """What a person wants to know.

    Attributes:
        run: whose model is asked.
        text: the text.
        pair: the second text of a pair, None for tasks with one.
        other: a second run, or None.
    """

    run: Chosen
    text: str
    pair: str | None
    other: Chosen | None


def text_form(run: Chosen, examples: pd.DataFrame, *, paired: bool) -> Asked | None:
    """Draw the text field and what is asked beside it; return what is in the address, None while there is no text.

    Args:
        run: whose model is asked.
        examples: of the probe set, columns text and text_pair, offered to start from.
        paired: whether the task has second texts.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", key="playground-choices"):
        other = _other_run(run)
        _example(examples)
    text, pair = st.query_params.get("text", ""), st.query_params.get("pair", "")
    if not text:
        text, pair = st.session_state.get(LONG, ("", ""))
    put("playground-text", text)
    put("playground-pair", pair)
    with st.form("playground", border=False):
        st.text_area("text", max_chars=LIMIT, key="playground-text", height=110)
        if paired:
            st.text_area("second text", max_chars=LIMIT, key="playground-pair", height=80)
        st.form_submit_button("Ask the model", type="primary", icon=":material/psychology:", on_click=_asked)
    if len(text) + len(pair) > playground.MAX_SHARED:
        note(f"A text of more than {playground.MAX_SHARED:,} characters is not part of the link.")
    if not text or (paired and not pair):
        note("Type or paste a text and ask; the answer, and why, appear below. The link of this page holds the text.")
        return None
    return Asked(run, text, pair if paired else None, other)


def _asked() -> None:
    """Put what was typed into the address, or aside where it is too long for one."""
    said = st.session_state["playground-text"].strip()
    second = st.session_state.get("playground-pair", "").strip()
    short = len(said) + len(second) <= playground.MAX_SHARED
    to_address(text=said if said and short else None, pair=second if second and short else None)
    st.session_state[LONG] = ("", "") if short else (said, second)


def _other_run(run: Chosen) -> Chosen | None:
    """Draw the choice of a second run and return it."""
    runs = list_all()
    words = {key: word for key, word in run_words(runs[runs["status"] == "finished"]).items() if key != run.id}
    chosen = choose("other", "compare with", ["", *words], "", lambda key: words.get(key, "no other run"), width=320)
    return find_run(chosen) if chosen else None


def _example(examples: pd.DataFrame) -> None:
    """Draw the choice of an example to start from."""
    if examples.empty:
        return
    shown = examples.head(50)
    labels = {int(index): f"{text[:70]}" for index, text in zip(shown.index, shown["text"], strict=True)}
    chosen = st.selectbox(
        "or an example of the probe set", [None, *labels], key="playground-example", width=360,
        format_func=lambda index: "choose one" if index is None else safe(labels[index]),
    )  # fmt: skip
    if chosen is not None and st.session_state.get("playground-example-used") != chosen:
        st.session_state["playground-example-used"] = chosen
        row = shown.loc[chosen]
        pair = row.get("text_pair")
        to_address(
            text=str(row["text"])[: playground.MAX_SHARED], pair=str(pair) if isinstance(pair, str) and pair else None
        )
        st.rerun()


def answers_card(asked: Asked) -> None:
    """Draw the answers of base, adapter, adapter with frozen gates, and the second run side by side."""
    with card("What do they answer?", "answers"):
        texts, pairs = [asked.text], None if asked.pair is None else [asked.pair]
        found: dict[str, Any] = {}
        for who, mode in (("adapter", "adapter"), ("gates frozen", "frozen"), ("base with head", "base")):
            answer = ask_model(asked.run.folder, "answers", texts=texts, pairs=pairs, mode=mode)
            if answer is None:
                return
            found[who] = answer[0]
        if asked.other is not None:
            answer = ask_model(asked.other.folder, "answers", texts=texts, pairs=pairs, mode="adapter")
            if answer is not None:
                found["the other run"] = answer[0]
        frame = playground.side_by_side(found)
        chart(figures_playground.answer_bars(frame, colours()), playground.answers_sentence(frame), frame, "answers")
        unusual = found["adapter"].get("unusual")
        if unusual:
            st.warning("The members disagree more than about 99 of 100 held-out rows: the text is unlike the data.")


def explained_cards(asked: Asked, modules: pd.DataFrame) -> None:
    """Draw what each token, each gate and each module has to do with the answer."""
    found = ask_model(asked.run.folder, "explain", text=asked.text, pair=asked.pair)
    if found is None:
        return
    unit = "log-odds" if found["labels"] else "number"
    with card("Which words carry the answer?", "tokens"):
        token_lines(found, unit)
    left, right = st.columns(2)
    with left, card("Which modules carry the answer?", "carry"):
        frame = playground.without_modules(found, modules)
        words = playground.modules_sentence(frame, unit)
        chart(figures_playground.module_bars(frame, unit, colours()), words, frame.drop(columns="position"), "carry")
    with right, card("Which gates does it open?", "opened"):
        if found["gate"] is None:
            note("This run has no gates: its adapters treat every input alike.")
        else:
            places = playground.gates_by_place(found["gate"], modules)
            told = "Above 1 the adapter of the module counts more for this text, below 1 less."
            chart(figures_playground.gate_table(places, colours()), told, places.reset_index(names="kind"), "opened")
    depth_card(found, modules)


def token_lines(found: Mapping[str, Any], unit: str) -> None:
    """Draw the text with each token in the colour of what it adds, for the adapter and the base."""
    frame = token_view.contributions(found["tokens"], found)
    lines = {name: found[key] for name, key in (("adapter", "contribution"), ("base", "base_contribution"))}
    st.html(token_view.sentence_html(found["tokens"], lines, colours(), unit=unit))
    under(f"What the answer's {unit} lose when a word is hidden; one scale for both lines.", frame, "tokens")


def token_card(view: InputsView) -> None:
    """Draw one example of the probe set word by word: its gates or what each word adds, over depth."""
    if view.examples.empty:
        return
    with card("One example, word by word", "token-view"):
        shown = view.examples.head(MOST_EXAMPLES)
        labels = {str(index): one_line(text, 70) for index, text in zip(shown.index, shown["text"], strict=True)}
        wanted = choose("example", "example", ["", *labels], "", lambda key: labels.get(key, "choose one"))
        if not wanted:
            note("Colours the words of an example by their gates, or by what each adds to the answer, layer by layer.")
            return
        row = shown.loc[int(wanted)]
        pair = row["text_pair"] if isinstance(row["text_pair"], str) and row["text_pair"] else None
        found = ask_model(view.folder, "explain", text=row["text"], pair=pair)
        if found is None:
            return
        token_lines(found, "log-odds" if found["labels"] else "number")
        depth_lines(found, view.modules)


def depth_card(found: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Draw the text once a layer: each token's gate where gates are one a token, else how far the adapters move it."""
    with card("The text, layer by layer", "depth-tokens"):
        depth_lines(found, modules)


def depth_lines(found: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Draw the text once a layer, at most a dozen of them."""
    if found["token_gate"] is not None:
        lines, centre, unit = token_view.by_layer(found["token_gate"], modules), 1.0, "factor"
        told = "The mean gate of each token over the modules of a layer; 1 is neutral."
    elif found["moved"] is not None:
        lines, centre, unit = token_view.layers_of(found["moved"]), None, "of its length"
        told = "How far the adapters carry each token's state from where the base model has it, after each layer."
    else:
        note("This method's forward is its own: its layers are not shown one by one.")
        return
    shown = dict(list(lines.items())[:: max(1, -(-len(lines) // MOST_LAYERS))])
    st.html(token_view.sentence_html(found["tokens"], shown, colours(), centre=centre, unit=unit))
    words = token_view.words(found["tokens"])
    frame = pd.DataFrame({name: list(values)[: len(words)] for name, values in lines.items()})
    under(told, frame.assign(token=words), "depth-tokens")


def file_card(run: Chosen) -> None:
    """Draw the upload of a small file and its predictions."""
    with card("A small file", "file"):
        upload = st.file_uploader(
            "texts, one a line, or a column text", ["txt", "csv", "jsonl"], max_upload_size=1, key="playground-file"
        )
        if upload is None:
            note(f"Up to {plural(playground.MOST_ROWS, 'row')}; dynlora predict takes larger files.")
            return
        try:
            texts, pairs = playground.texts_of(upload.name, upload.getvalue())
        except ConfigError as error:
            st.error(safe(str(error)))
            return
        found = ask_model(run.folder, "answers", texts=texts, pairs=pairs, mode="adapter")
        if found is not None:
            frame = playground.answer_table(found)
            st.dataframe(frame.round(3), hide_index=True, width="stretch")
            table(frame, "predictions")
