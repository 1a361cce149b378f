"""The cards of a run that writes: the conversation as it grows, one text token by token, and module by module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import one_line, sentence_case
from dynlora.viz.kit.token_text import cut_words, tokens_html, visible
from dynlora.viz.playground import chat_model
from dynlora.viz.playground import figures as chat_figures
from dynlora.viz.playground import model as playground_model
from dynlora.viz.playground.cards import example_choice, other_run, strength_slider, why_not
from dynlora.viz.playground.chat_model import MOST_NEW, TEMPERATURES, Answer, Settings, Talk, Turn, Voice
from dynlora.viz.playground.model import Task
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, rows, safe, under
from dynlora.viz.ui.live import fragment
from dynlora.viz.ui.model_client import POLL_S, ask_model, begin, in_background
from dynlora.viz.ui.run_picker import Chosen
from dynlora.viz.ui.url_state import put, segmented, to_address

NAMES = ("mode", "temperature", "seed", "tokens", "strength", "other", "text")
"""What the page keeps in its address."""

COMPLETION, CHAT = "completion", "chat"
WORDS = {COMPLETION: "Completion", CHAT: "Chat"}
MOST_SEED = 2**31 - 1

_TALKS, _KEPT, _PENDING, _LONG = "talks", "talk-address", "talk-pending", "talk-long"


def restore(run_id: str) -> None:
    """Write the address as it was when the page was left; one that says something itself is left alone."""
    entries = st.session_state.get(_KEPT, {}).get(run_id, {})
    if "address-mode" not in st.session_state and not any(name in st.query_params for name in NAMES):
        to_address(**entries)


def keep(run_id: str) -> None:
    """Remember the address."""
    entries = st.session_state.setdefault(_KEPT, {})
    entries[run_id] = {name: st.query_params[name] for name in NAMES if name in st.query_params}


def talk_of(run_id: str, *, chat: bool) -> Talk:
    """Return what was said with a run in this session; chat and completion are apart."""
    return st.session_state.setdefault(_TALKS, {}).setdefault((run_id, chat), Talk())


def settings_row(about: Mapping[str, Any]) -> Settings:
    """Draw how texts are written and return it.

    Args:
        about: as the child's `writer` describes the run.
    """
    modes = [COMPLETION, CHAT] if about["chat"] else [COMPLETION]
    usual = CHAT if about["chat"] and about["learned_chat"] else COMPLETION
    with in_row("talk-settings", "bottom"):
        mode = segmented("mode", "Mode", modes, usual, WORDS.__getitem__)
        temperature = _number(
            "temperature",
            "Temperature",
            0.0,
            *TEMPERATURES,
            step=0.1,
            format="%.1f",
            help="0 takes the most probable token (greedy). Above 0, tokens are drawn from softmax(logits / T).",
        )
        seed = _number("seed", "Seed", 0, 0, MOST_SEED, step=1, help="Of the draw; greedy decoding does not use it.")
        tokens = _number(
            "tokens",
            "Max new tokens",
            min(MOST_NEW, int(about["new"])),
            1,
            MOST_NEW,
            step=1,
            help=f"Prompt and text together have at most {about['total']:,} tokens.",
        )
        strength = strength_slider()
    if not about["chat"]:
        note("The tokenizer of this run has no chat template, so the model can only continue texts.")
    return Settings(mode == CHAT, float(temperature), int(seed), int(tokens), strength)


def completion_form() -> None:
    """Draw the field of a text to continue and what asks."""
    put("playground-text", st.query_params.get("text", "") or st.session_state.get(_LONG, ""))
    with st.form("playground", border=False):
        st.text_area("Prompt", max_chars=playground_model.LIMIT, key="playground-text", height=110)
        st.form_submit_button("Generate", type="primary", icon=":material/psychology:", on_click=_typed)
    if len(st.session_state["playground-text"]) > playground_model.MAX_SHARED:
        note(f"The link does not include texts of more than {playground_model.MAX_SHARED:,} characters.")


def chat_field(talk: Talk) -> None:
    """Draw the field of the next message, which Enter sends, and what clears the conversation.

    The field is in a container: at the end of the window it would make the page scroll at every token.
    """
    with st.container():
        st.chat_input(
            "Message",
            max_chars=playground_model.LIMIT,
            key="talk-message",
            disabled=talk.is_writing,
            on_submit=_said,
            args=(talk,),
        )
    if talk.turns:
        st.button("Clear conversation", icon=":material/delete:", key="talk-clear", on_click=_cleared, args=(talk,))


def ask(prompt: str) -> None:
    """Put a prompt into the address, or aside where it is too long for one, and let it be asked."""
    is_short = len(prompt) <= playground_model.MAX_SHARED
    to_address(text=prompt if prompt and is_short else None)
    st.session_state[_LONG] = "" if is_short else prompt
    st.session_state[_PENDING] = prompt


def next_prompt(talk: Talk) -> str:
    """Return what is to be asked now, once: what was entered, or the text of a link while nothing was said yet."""
    entered = st.session_state.pop(_PENDING, "")
    return entered or ("" if talk.turns else st.query_params.get("text", ""))


def _typed() -> None:
    ask(st.session_state["playground-text"])


def _said(talk: Talk) -> None:
    """Send a message; the link of a conversation has its first one."""
    message = str(st.session_state["talk-message"] or "")
    if talk.turns:
        st.session_state[_PENDING] = message
    else:
        ask(message)


def _cleared(talk: Talk) -> None:
    talk.stop()
    talk.turns.clear()
    st.session_state.pop(_LONG, None)
    to_address(text=None)


def _number(name: str, label: str, usual: float, low: float, high: float, **more: Any) -> float:
    """Draw a number that lives in the address; what is no number there counts as none."""
    key = f"address-{name}"
    try:
        number = float(st.query_params.get(name, usual))
    except ValueError:
        number = usual
    number = min(max(number, low), high) if math.isfinite(number) else usual
    put(key, type(low)(number))
    value = st.number_input(
        label, low, high, key=key, width=140, on_change=_number_changed, args=(name, key, usual), **more
    )
    return usual if value is None else value


def _number_changed(name: str, key: str, usual: float) -> None:
    value = st.session_state[key]
    to_address(**{name: None if value == usual else value})


def talk_cards(run: Chosen, task: Task, summary: RunSummary, examples: pd.DataFrame) -> Chosen | None:
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
    restore(run.id)
    with in_row("playground-choices", "bottom"):
        other = other_run(run, task)
        example_choice(examples, lambda text, _pair: ask(text))
    other_id = st.query_params.get("other")
    if other_id and other is None:
        note(why_not(other_id, task))
    settings = settings_row(about)
    origin = chat_model.where_from(about, summary)
    if origin:
        note(origin)
    talk = talk_of(run.id, chat=settings.chat)
    _conversation(talk, _voices(run, other), settings)
    keep(run.id)
    answers = _finished(talk)
    if answers and not talk.is_writing:
        _one_answer(answers)
    return other


def _conversation(talk: Talk, voices: list[Voice], settings: Settings) -> None:
    """Draw what was said and the field for what is said next: below a conversation, above a text that is continued."""
    place = st.container() if settings.chat else None
    prompt = next_prompt(talk)
    if prompt:
        _begin(talk, voices, prompt, settings)
    if settings.chat:
        chat_field(talk)
    else:
        completion_form()
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
        name = one_line(cached_queries.ask(queries.run_summary, other.folder).name, 40)
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
                words = one_line(answer.text, 60) or "(nothing)"
                answers[f"{before}{sentence_case(answer.voice.name)}: {words}"] = answer
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
