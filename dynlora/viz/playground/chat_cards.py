"""The cards of a run that writes: the conversation as it grows, one text token by token, and module by module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.store import queries
from dynlora.text import one_line, sentence_case
from dynlora.viz.kit.token_text import cut_words, tokens_html, visible
from dynlora.viz.playground import chat_form, chat_model
from dynlora.viz.playground import figures as chat_figures
from dynlora.viz.playground.cards import example_choice, other_run, why_not
from dynlora.viz.playground.chat_model import Answer, Settings, Talk, Turn, Voice
from dynlora.viz.playground.model import Task
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, rows, safe, under
from dynlora.viz.ui.guard import fragment
from dynlora.viz.ui.model_client import POLL_S, ask_model, begin, in_background
from dynlora.viz.ui.run_picker import Chosen


def talk_cards(run: Chosen, task: Task, summary: Mapping[str, Any], examples: pd.DataFrame) -> Chosen | None:
    """Draw all that a person can ask a run that writes, and return the second run that answers beside it.

    Args:
        run: whose model is asked.
        task: of the run.
        summary: as `queries.run_summary` returns it.
        examples: of the probe set, offered to start from.
    """
    about = ask_model(run.folder, "writer")
    if about is None:
        return None
    chat_form.restore(run.id)
    with st.container(horizontal=True, vertical_alignment="bottom", key="playground-choices"):
        other = other_run(run, task)
        example_choice(examples, lambda text, _pair: chat_form.ask(text))
    other_id = st.query_params.get("other")
    if other_id and other is None:
        note(why_not(other_id, task))
    settings = chat_form.settings_row(about)
    origin = chat_model.where_from(about, summary)
    if origin:
        note(origin)
    talk = chat_form.talk_of(run.id, chat=settings.chat)
    _conversation(talk, _voices(run, other), settings)
    chat_form.keep(run.id)
    answers = _finished(talk)
    if answers and not talk.is_writing:
        _one_answer(answers)
    return other


def _conversation(talk: Talk, voices: list[Voice], settings: Settings) -> None:
    """Draw what was said and the field for what is said next: below a conversation, above a text that is continued."""
    place = st.container() if settings.chat else None
    prompt = chat_form.next_prompt(talk)
    if prompt:
        _begin(talk, voices, prompt, settings)
    if settings.chat:
        chat_form.chat_field(talk)
    else:
        chat_form.completion_form()
    with place or st.container():
        if talk.turns:
            _live_card(talk, "Conversation" if settings.chat else "Continuations")
        elif settings.chat:
            note("Enter a message. Adapter and base model answer side by side, each with its own conversation.")
        else:
            note("Enter a prompt and press Generate. Adapter and base model continue it side by side.")


def _voices(run: Chosen, other: Chosen | None) -> list[Voice]:
    """Return who answers: adapter, base model, and the adapter of the second run."""
    voices = [Voice(chat_model.OWN, "adapter", run.folder, "adapter"), Voice("base", "base model", run.folder, "base")]
    if other is not None:
        name = one_line(cached_queries.ask(queries.run_summary, other.folder)["name"], 40)
        voices.append(Voice("other", f"run {name}", other.folder, "adapter"))
    return voices


def _begin(talk: Talk, voices: list[Voice], prompt: str, settings: Settings) -> None:
    """Ask all voices; of texts that are continued only the last is kept."""
    talk.stop()
    answers = {}
    for voice in voices:
        request = talk.request_for(voice, prompt, settings)
        stream = begin(
            voice.folder,
            "write",
            mode=voice.mode,
            temperature=settings.temperature,
            seed=settings.seed,
            new_tokens=settings.new_tokens,
            **request,
        )
        answers[voice.key] = Answer(voice, request, stream)
    if not settings.chat:
        talk.turns.clear()
    talk.turns.append(Turn(prompt, settings, answers))


def _live_card(talk: Talk, title: str) -> None:
    """Draw the turns, again and again while somebody writes."""

    @fragment(run_every=POLL_S if talk.is_writing else None)
    def live() -> None:
        was_writing = talk.is_writing
        talk.read()
        if was_writing and not talk.is_writing:
            st.rerun()  # the field is free again, and tokens and modules can be looked at
        with card(title, "answers"):
            for turn in talk.turns:
                _turn(turn)
            if talk.is_writing:
                if st.button("Stop", icon=":material/stop:", key="talk-stop"):
                    talk.stop()
                    st.rerun()
            elif talk.turns:
                under(chat_model.caption(talk.turns[-1]), chat_model.table(talk), "answers")

    live()


def _turn(turn: Turn) -> None:
    """Draw a prompt and its answers side by side."""
    if turn.settings.chat:
        st.html(chat_model.prompt_html(turn.prompt))
    for column, answer in zip(st.columns(len(turn.answers)), turn.answers.values(), strict=True):
        with column:
            if answer.stream.error:
                st.error(safe(f"{sentence_case(answer.voice.name)}: {answer.stream.error}"))
            if answer.ids or not answer.stream.error:
                st.html(chat_model.answer_html(answer))


def _finished(talk: Talk) -> dict[str, Answer]:
    """Return the answers that have tokens, the last turn first, by what a list calls them."""
    answers = {}
    for place in range(len(talk.turns), 0, -1):
        turn = talk.turns[place - 1]
        for answer in turn.answers.values():
            if answer.ids:
                before = f"{place}. " if turn.settings.chat else ""
                answers[f"{before}{sentence_case(answer.voice.name)}: {one_line(answer.text, 60)}"] = answer
    return answers


def _one_answer(answers: dict[str, Answer]) -> None:
    """Draw the choice of an answer, its tokens, and the modules that it depends on."""
    chosen = st.selectbox("Answer to look at", list(answers), key="talk-answer")
    answer = answers[chosen if chosen in answers else next(iter(answers))]
    _token_card(answer)
    _ablation_card(answer)


def _token_card(answer: Answer) -> None:
    """Draw a text token by token: how much more probable the adapter makes each than the base model does."""
    with card("Token probabilities", "tokens"):
        view = ask_model(answer.voice.folder, "token_view", ids=answer.ids, **answer.request)
        if view is None:
            return
        tokens = view["tokens"]
        st.html(tokens_html({"": chat_model.text_tokens(view)}, chat_model.BETTER, colours()))
        frame = chat_model.token_frame(view)
        under(f"{chat_model.token_caption(frame)}{cut_words(len(tokens))}", frame, "tokens")
        names = [f"{place}. {visible(row['text'])}" for place, row in enumerate(tokens, 1)]
        place = st.selectbox(
            "Alternatives for token",
            [None, *range(len(names))],
            key="talk-token",
            width=320,
            format_func=lambda index: "Choose a token" if index is None else names[index],
        )
        if place is not None and place < len(tokens):
            alternatives = chat_model.alternatives(tokens[place])
            rows(
                alternatives.assign(
                    adapter=alternatives["adapter"].map(visible), base=alternatives["base"].map(visible)
                ).round(4)
            )


def _ablation_card(answer: Answer) -> None:
    """Draw what the text loses without each module, measured when asked for."""
    with card("Attribution by module", "carry"):
        estimate = ask_model(answer.voice.folder, "estimate_text", ids=answer.ids, **answer.request)
        if estimate is None:
            return
        note(
            "Change of log p(text) when the adapter of one module is switched off: first a first-order estimate of all "
            "modules from one backward pass. The measurement takes a forward pass for each module, the largest "
            "estimates first; Cancel keeps what is measured."
        )
        messages = in_background(
            "text-ablation",
            "Measure all modules",
            "modules",
            answer.voice.folder,
            "ablate_text",
            ids=answer.ids,
            **answer.request,
        )
        modules = cached_queries.modules(answer.voice.folder)
        estimates = chat_model.estimate_frame(estimate["adds"], modules)
        frame = chat_model.ablation_frame(messages, modules) if messages else estimates
        if frame.empty:
            return
        caption = chat_model.ablation_caption(frame, estimates) if messages else chat_model.estimate_caption(frame)
        left, right = st.columns(2)
        with left:
            bars = chat_figures.ablation_bars(frame, colours())
            chart(bars, caption, frame.drop(columns="position"), "carry")
        with right:
            every = "All modules" if len(frame) == len(modules) else "The modules measured so far"
            explanation = f"{every}, by kind and layer. Above zero the module makes the text more probable."
            chart(chat_figures.ablation_map(frame, colours()), explanation, frame.drop(columns="position"), "carry-map")
