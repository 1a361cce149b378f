"""Cards of the Inputs page for a run that writes: where its adapter helps, example by example and token by token."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis.inputs_reading import InputsReading
from dynlora.store import queries
from dynlora.text import one_line
from dynlora.viz.inputs import token_losses
from dynlora.viz.inputs.token_losses import TokenTrace
from dynlora.viz.kit.token_text import cut_words, tokens_html
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, colours, note, number_columns, under
from dynlora.viz.ui.model_client import ask_model, in_background
from dynlora.viz.ui.run_picker import has_model
from dynlora.viz.ui.url_state import among_steps, choose, segmented

MOST_EXAMPLES = 64
"""Probe examples whose tokens are looked at together."""

ORDERS = {"helped": "Largest decrease", "harmed": "Largest increase"}


def loss_cards(view: InputsReading, *, has_best: bool) -> None:
    """Draw where the adapter helps; `has_best`: the run kept its best adapter beside the last one."""
    if view.examples.empty:
        return
    first = cached_queries.ask(queries.examples_frame, view.folder, 0)["loss"]
    frame = token_losses.by_example(view.examples, first)
    with card("Loss change by example", "helped"):
        _examples(frame, view.step)
    trace = _trace(view)
    with card("Loss by token", "token-view"):
        if trace is None and not has_model(view.folder):
            note("This run recorded no token losses and kept no adapter, so the loss of single tokens is not known.")
        else:
            _one_example(view, trace, has_best=has_best)
    if not has_model(view.folder):
        return
    with card("Tokens with the largest loss change", "helped-tokens"):
        _tokens(view, frame)


def _examples(frame: pd.DataFrame, step: int) -> None:
    """List the probe examples by how much the loss fell."""
    order = segmented("order", "Order", list(ORDERS), "helped", ORDERS.__getitem__)
    table = frame if order == "helped" else frame.iloc[::-1]
    st.dataframe(table, hide_index=True, width="stretch", height=280, column_config=number_columns(table))
    under(f"{token_losses.example_caption(frame, step)} Base: the loss at step 0.", table, "helped")


def _trace(view: InputsReading) -> TokenTrace | None:
    """Return the token losses that the run recorded at its evaluations."""
    if token_losses.SIGNAL not in cached_queries.signal_names(view.folder):
        return None
    events = cached_queries.ask_events(queries.events_frame, view.folder, (token_losses.EVENT,))
    return token_losses.recorded(
        events, cached_queries.ask_events(queries.signal_frame, view.folder, token_losses.SIGNAL)
    )


def _one_example(view: InputsReading, trace: TokenTrace | None, *, has_best: bool) -> None:
    """Draw one example with each token in the colour of its loss."""
    labels = {str(index): one_line(text, 70) for index, text in view.examples["text"].items()}
    example = choose("example", "Example", ["", *labels], "", lambda key: labels.get(key, "Choose an example"))
    if not example:
        note("Colours the tokens of a held-out example by their loss, with the adapter and without.")
        return
    colouring = segmented(
        "token-colour",
        "Colour",
        list(token_losses.COLOURINGS),
        token_losses.DIFFERENCE,
        token_losses.COLOURINGS.__getitem__,
    )
    if trace is not None and trace.covers(int(example)):
        losses = _recorded(view, trace, int(example))
    else:
        note(token_losses.why_not(trace))
        losses = _losses(view, view.examples.loc[int(example)], has_best=has_best) if has_model(view.folder) else {}
    if not losses:
        return
    scale = token_losses.HELPS if colouring == token_losses.DIFFERENCE else token_losses.COSTS
    st.html(tokens_html(token_losses.lines_of(losses, colouring), scale, colours()))
    first = next(iter(losses.values()))
    words = f"{token_losses.token_caption(first)}{cut_words(len(first['tokens']))}"
    under(words, token_losses.token_frame(first), "token-view")


def _recorded(view: InputsReading, trace: TokenTrace, example: int) -> dict[str, dict[str, Any]]:
    """Draw the slider over evaluations; return the tokens of an example at the chosen one and at the last, by name."""
    best = (view.summary.get("best") or {}).get("step")
    words = token_losses.step_words(trace, best if isinstance(best, int) else None)
    step = among_steps("token-step", "Evaluation at step", list(trace.steps), words.__getitem__)
    steps = dict.fromkeys((step, trace.steps[-1]))
    return {f"adapter, step {words[one]}": trace.at(example, one) for one in steps}


def _losses(view: InputsReading, row: Any, *, has_best: bool) -> dict[str, dict[str, Any]]:
    """Return what the best and the last adapter make of an example, by their names; empty where they cannot say."""
    pair = row["text_pair"] if isinstance(row["text_pair"], str) else None
    answers = {}
    for which in ("last", "best") if has_best else ("last",):
        answer = ask_model(view.folder, "example_losses", which=which, text=row["text"], pair=pair)
        if answer is None:
            return {}
        answers[which] = answer
    names = {
        which: f"{'best ' if which == 'best' else ''}adapter, step {one['step']:,}" for which, one in answers.items()
    }
    return {
        names[which]: one for which, one in answers.items() if which == "last" or one["step"] != answers["last"]["step"]
    }


def _tokens(view: InputsReading, frame: pd.DataFrame) -> None:
    """List the tokens of many examples by how much more probable they became."""
    chosen = view.examples.head(MOST_EXAMPLES)
    pairs = [pair if isinstance(pair, str) else None for pair in chosen["text_pair"]]
    messages = in_background(
        "token-losses",
        f"Compute token losses of {len(chosen)} examples",
        "examples",
        view.folder,
        "token_losses",
        texts=chosen["text"].tolist(),
        pairs=pairs,
    )
    whole = token_losses.all_tokens(messages, [int(index) for index in chosen.index])
    if whole.empty:
        note("Sorts the tokens of the probe examples by loss(base) − loss(adapter).")
        return
    order = segmented("token-order", "Order", list(ORDERS), "helped", ORDERS.__getitem__)
    table = whole if order == "helped" else whole.iloc[::-1]
    st.dataframe(table.head(200), hide_index=True, width="stretch", height=320, column_config=number_columns(table))
    under(token_losses.all_tokens_caption(whole, len(messages), int(messages[0]["step"])), table, "helped-tokens")
