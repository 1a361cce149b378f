"""The check before runs start: one button, the result of `dynlora preflight`, and the tokens of one example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import seed_groups
from dynlora.errors import DynloraError
from dynlora.jobs import launch
from dynlora.text import markdown_text, one_line, percent, plural
from dynlora.viz.kit.theme import Palette
from dynlora.viz.kit.token_text import Colouring, TextToken, lines_html
from dynlora.viz.launch import cost_model, form_model
from dynlora.viz.launch.data_source import Source
from dynlora.viz.ui import model_client
from dynlora.viz.ui.cards import card, chart, colours, figures, note, under, unseen_chart
from dynlora.viz.ui.run_picker import is_read_only, runs_dir

IN_LOSS, MASKED = "in the loss", "not in the loss"

SPECIAL = Colouring("special tokens", ("other", "special"), is_diverging=False)

KEY = "Pale: read, but not in the loss. ◆ on a colour: a special token, such as the end token."
"""What tokens look like."""


def rows_html(rows: Sequence[Mapping[str, Any]], colours: Palette) -> str:
    """Return rows one below the other, each with its place and its tokens.

    Args:
        rows: as the preview of tokens lists them: place, pieces, tokens, in_loss, cut.
        colours: of the mode.
    """
    return lines_html({_head(row): list(map(_token, row["pieces"])) for row in rows}, 1.0, SPECIAL, colours)


def _head(row: Mapping[str, Any]) -> str:
    counts = f"{row['in_loss']:,} of {row['tokens']:,} tokens in the loss"
    return f"{one_line(row['place'], 80)} · {counts}{', truncated' if row['cut'] else ''}"


def _token(piece: Mapping[str, Any]) -> TextToken:
    words = f"{plural(int(piece['tokens']), 'token')}, {IN_LOSS if piece['loss'] else MASKED}"
    return TextToken(str(piece["text"]), float(piece["special"]) if piece["loss"] else None, words)


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table: place, tokens, those in the loss, whether cut, and the text of both parts."""
    return pd.DataFrame(
        [
            {
                "example": row["place"],
                "tokens": row["tokens"],
                "tokens in the loss": row["in_loss"],
                "truncated": "yes" if row["cut"] else "no",
                MASKED: _part(row, False),
                IN_LOSS: _part(row, True),
            }
            for row in rows
        ]
    )


def _part(row: Mapping[str, Any], counts: bool) -> str:
    return "".join(str(piece["text"]) for piece in row["pieces"] if piece["loss"] == counts)


def caption(rows: Sequence[Mapping[str, Any]], *, is_chat: bool) -> str:
    """Say which part of the tokens is in the loss, over the rows that are shown."""
    tokens, counted = (sum(int(row[name]) for row in rows) for name in ("tokens", "in_loss"))
    chat = " The chat template of the model is applied." if is_chat else ""
    return (
        f"{counted:,} of the {tokens:,} tokens of {plural(len(rows), 'example')} are in the loss "
        f"({percent(counted / max(tokens, 1))}).{chat}"
    )


def lost_words(answer: Mapping[str, Any]) -> str:
    """Return which rows lose their whole completion to truncation and what keeps them; empty where none does."""
    lost, limit = answer["lost"], answer["limit"]
    if not lost["count"]:
        return ""
    of = f"of the first {answer['counted']:,}" if answer["counted"] < answer["of"] else f"of {answer['counted']:,}"
    which = "loses its" if lost["count"] == 1 else "lose their"
    return (
        f"{lost['count']:,} {of} training examples {which} whole completion after {limit:,} tokens and "
        f"{'is' if lost['count'] == 1 else 'are'} left out: {lost['places']}. data.max_length={answer['longest']} "
        "keeps every example whole."
    )


def cut_words(answer: Mapping[str, Any]) -> str:
    """Say how many rows are truncated, and how long the longest is."""
    cut, limit = answer["cut"]["count"], answer["limit"]
    head = f"The longest training example has {answer['longest']:,} tokens"
    if not cut:
        return f"{head}; none is truncated (data.max_length={limit})."
    return f"{head}; {cut:,} of {answer['counted']:,} are truncated after {limit:,} and lose their end token."


KEPT_PREVIEW = 4
"""Previews that a session remembers, so that going back to earlier settings shows theirs again."""


def show_tokens(config: Mapping[str, Any], source: Source, place: Any) -> None:
    """Draw the button that asks for the tokens, and what was answered; nothing for data with labels.

    Args:
        config: the whole configuration, as the form has it.
        source: the choice of data; the button waits for what it misses.
        place: container of the card.
    """
    if is_read_only() or not source.is_written:
        return
    missing = source.missing
    with place, card("Tokens and loss mask", "tokens"):
        usual = form_model.config_field("model.name").default
        if (config.get("model") or {}).get("name") in (None, usual):
            st.warning(
                f"The model {usual} is an encoder and cannot write texts. Set Model to a decoder, such as "
                "smollm2\\-135m, or begin with the preset Instruction tuning.",
                icon=":material/warning:",
            )
        known = st.session_state.setdefault("token-previews", {})
        key = _preview_key(config)
        pressed = st.button(
            "Show tokens",
            icon=":material/segment:",
            key="ask-tokens",
            disabled=bool(missing),
            help=missing or "Loads the tokenizer of the model, not the model, and applies its chat template.",
        )
        if pressed:
            with st.spinner("Loading the tokenizer and the data"):
                known[key] = _answer(config)
            while len(known) > KEPT_PREVIEW:
                known.pop(next(iter(known)))
        answer = known.get(key)
        if answer is None:
            note("Shows a few examples as the model sees them, and which tokens are in the loss.")
        elif isinstance(answer, str):
            st.error(markdown_text(answer, 2000))
        else:
            _draw_preview(answer)


def _preview_key(config: Mapping[str, Any]) -> str:
    """Return what the tokens depend on, as a key: another one is another preview."""
    needed = {"data": config.get("data"), "model": config.get("model"), "seed": config.get("seed")}
    return seed_groups.launch_key("tokens", needed)


def _answer(config: Mapping[str, Any]) -> Any:
    """Return the preview, or why there is none, in a sentence."""
    try:
        return launch.token_preview(dict(config), runs_dir())
    except DynloraError as error:
        return str(error)


def _draw_preview(answer: Mapping[str, Any]) -> None:
    """Draw a preview: what is lost first, then the rows."""
    if lost := lost_words(answer):
        st.warning(markdown_text(lost, 800), icon=":material/content_cut:")
    for sentence in answer["notes"]:
        st.warning(markdown_text(sentence, 600), icon=":material/warning:")
    draw_rows(answer["rows"], "tokens", is_chat=answer["is_chat"])
    note(cut_words(answer))


def draw_rows(rows: Sequence[Mapping[str, Any]], key: str, *, is_chat: bool = False) -> None:
    """Draw rows as tokens, and the same as a table."""
    st.html(rows_html(rows, colours()))
    note(KEY)
    under(caption(rows, is_chat=is_chat), frame(rows), key)


KEPT = 40
"""Checks that a session remembers, so that going back to earlier settings shows theirs again."""


@dataclass(frozen=True)
class Plan:
    """Runs that cost the same: one is checked for all.

    Attributes:
        label: the method, where an experiment has several; empty for runs of one.
        config: of the run that is checked.
        runs: how many runs there are like it.
    """

    label: str
    config: Mapping[str, Any]
    runs: int


def check_button(plans: Sequence[Plan], missing: str = "", training: int = 0) -> None:
    """Draw the button that checks configurations; the answers are remembered for `show_check`.

    Args:
        plans: what is checked, one run of each.
        missing: what has to be given first, in a sentence; the button waits for it.
        training: runs that train now, and so slow the check's own steps.
    """
    if is_read_only():
        return
    model_client.keep(None if missing else plans[0].config)
    pressed = st.button(
        "Check",
        icon=":material/fact_check:",
        key="check",
        disabled=bool(missing),
        help=missing or "Loads model and data, takes two steps, and estimates the cost of the run. Saves nothing.",
    )
    if not pressed:
        return
    known = st.session_state.setdefault("checks", {})
    unseen_chart()
    for number, plan in enumerate(plans, 1):
        method = f"Checking {plan.label}, {number} of {len(plans)}: " if len(plans) > 1 else ""
        with st.spinner(f"{method}Loading model and data and taking two steps"):
            try:
                answer: Any = launch.preflight(dict(plan.config), runs_dir())
            except DynloraError as error:
                answer = str(error)
        known[_key(plan.config)] = (answer, training)
    while len(known) > KEPT:
        known.pop(next(iter(known)))


def _key(config: Mapping[str, Any]) -> str:
    return seed_groups.launch_key("check", {**config, "name": None})


def checked_seconds(plans: Sequence[Plan]) -> float | None:
    """Return the seconds that all runs take one after another, by their checks; None where one was not checked."""
    known = st.session_state.get("checks", {})
    answers = [known.get(_key(plan.config), (None, 0))[0] for plan in plans]
    if any(answer is None or isinstance(answer, str) for answer in answers):
        return None
    return cost_model.total_seconds(list(zip(answers, (plan.runs for plan in plans), strict=True)))


def show_check(plans: Sequence[Plan]) -> None:
    """Draw what the check of these settings said; say so when the form has changed since the last one."""
    known = st.session_state.get("checks", {})
    answers = [known.get(_key(plan.config), (None, 0)) for plan in plans]
    if any(answer is None for answer, _ in answers):
        if known:
            note("The form has changed since the last check. Check again for the present cost.")
        return
    refused = [(plan, answer) for plan, (answer, _) in zip(plans, answers, strict=True) if isinstance(answer, str)]
    for plan, answer in refused:
        st.error(markdown_text(f"{plan.label}: {answer}" if plan.label else answer, 2000))
    if not refused:
        _draw(plans, [answer for answer, _ in answers], answers[0][1])


def _draw(plans: Sequence[Plan], answers: Sequence[Mapping[str, Any]], training: int) -> None:
    """Draw the checks' figures and warnings, and of one of them parameters, schedule and rows."""
    costs = list(zip(answers, (plan.runs for plan in plans), strict=True))
    labels = [plan.label for plan in plans]
    with card("Cost estimate", "costs"):
        figures(cost_model.figures(costs), "figures-costs")
        if len(plans) > 1:
            methods = cost_model.methods_frame(labels, costs)
            st.dataframe(methods, hide_index=True, width="stretch")
        note(cost_model.cost_caption(answers[0], training))
        if generation := cost_model.generation_caption(answers[0]):
            note(generation)
        for sentence in dict.fromkeys(sentence for answer in answers for sentence in answer["warnings"]):
            st.warning(markdown_text(sentence, 600), icon=":material/warning:")
    at = 0
    if len(plans) > 1:
        chosen = st.segmented_control("Method", labels, default=labels[0], key="checked-method")
        at = labels.index(chosen) if chosen in labels else 0
    _draw_one(answers[at])


def _draw_one(estimate: Mapping[str, Any]) -> None:
    """Draw one check's parameters, schedule and rows."""
    left, right = st.columns(2)
    kinds, timeline = cost_model.kinds_frame(estimate), cost_model.timeline(estimate)
    with left, card("Trainable parameters by module kind", "kinds"):
        chart(cost_model.kinds_bars(kinds, colours()), cost_model.kinds_caption(estimate), kinds, "kinds")
    with right, card("Schedule", "schedule"):
        figure = cost_model.schedule_lanes(timeline, colours())
        chart(figure, cost_model.schedule_caption(estimate), timeline, "schedule")
    with card("Tokenized examples", "preview"):
        _preview(estimate)


def _preview(estimate: Mapping[str, Any]) -> None:
    """Draw a few rows with the tokens that the model sees of each; those of a language model with their loss mask."""
    if estimate.get("writes"):
        rows = [
            {**row, "place": f"training example {row['row']:,}", "tokens": len(row["tokens"])}
            for row in estimate["preview"]
        ]
        draw_rows(rows, "preview")
        note(cost_model.data_caption(estimate))
        return
    preview = cost_model.preview_frame(estimate)
    st.dataframe(
        preview,
        hide_index=True,
        width="stretch",
        column_config={
            "row": st.column_config.NumberColumn(format="localized", width="small"),
            "tokens": st.column_config.NumberColumn(width="small"),
            "text": st.column_config.TextColumn(width="medium"),
            "model input": st.column_config.TextColumn(width="large"),
        },
    )
    under(cost_model.data_caption(estimate), preview, "preview")
