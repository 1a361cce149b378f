"""What the Inputs page shows: groups, gates and the probe set of one run at one step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import inputs
from dynlora.analysis.gate_effect import REACTION, reaction_conclusion, reactions
from dynlora.analysis.inputs import InputsReading
from dynlora.analysis.run_summary import evaluated_rows, loss_unit
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.text import one_line
from dynlora.viz.inputs import figures
from dynlora.viz.inputs.figures import TokenTrace
from dynlora.viz.kit.token_text import cut_words, tokens_html
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, number_columns, plot_config, under
from dynlora.viz.ui.model_client import ask_model, in_background
from dynlora.viz.ui.panel_cards import conclusion
from dynlora.viz.ui.run_picker import has_model, link
from dynlora.viz.ui.url_state import among_steps, choose, segmented, to_address

MOST_EXAMPLES = 64
"""Probe examples whose tokens are looked at together."""

ORDERS = {"helped": "Largest decrease", "harmed": "Largest increase"}


def loss_cards(view: InputsReading, *, has_best: bool) -> None:
    """Draw where the adapter helps; `has_best`: the run kept its best adapter beside the last one."""
    if view.examples.empty:
        return
    first = cached_queries.ask(queries.examples_frame, view.folder, 0)["loss"]
    frame = figures.by_example(view.examples, first)
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
    under(f"{figures.example_caption(frame, step)} Base: the loss at step 0.", table, "helped")


def _trace(view: InputsReading) -> TokenTrace | None:
    """Return the token losses that the run recorded at its evaluations."""
    if figures.SIGNAL not in cached_queries.signal_names(view.folder):
        return None
    events = cached_queries.ask_events(queries.events_frame, view.folder, (figures.EVENT,))
    return figures.recorded(events, cached_queries.ask_events(queries.signal_frame, view.folder, figures.SIGNAL))


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
        list(figures.COLOURINGS),
        figures.DIFFERENCE,
        figures.COLOURINGS.__getitem__,
    )
    if trace is not None and trace.covers(int(example)):
        losses = _recorded(view, trace, int(example))
    else:
        note(figures.why_not(trace))
        losses = _losses(view, view.examples.loc[int(example)], has_best=has_best) if has_model(view.folder) else {}
    if not losses:
        return
    scale = figures.HELPS if colouring == figures.DIFFERENCE else figures.COSTS
    st.html(tokens_html(figures.lines_of(losses, colouring), scale, colours()))
    first = next(iter(losses.values()))
    words = f"{figures.token_caption(first)}{cut_words(len(first['tokens']))}"
    under(words, figures.token_frame(first), "token-view")


def _recorded(view: InputsReading, trace: TokenTrace, example: int) -> dict[str, dict[str, Any]]:
    """Draw the slider over evaluations; return the tokens of an example at the chosen one and at the last, by name."""
    best = (view.summary.get("best") or {}).get("step")
    words = figures.step_words(trace, best if isinstance(best, int) else None)
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
    whole = figures.all_tokens(messages, [int(index) for index in chosen.index])
    if whole.empty:
        note("Sorts the tokens of the probe examples by loss(base) − loss(adapter).")
        return
    order = segmented("token-order", "Order", list(ORDERS), "helped", ORDERS.__getitem__)
    table = whole if order == "helped" else whole.iloc[::-1]
    st.dataframe(table.head(200), hide_index=True, width="stretch", height=320, column_config=number_columns(table))
    under(figures.all_tokens_caption(whole, len(messages), int(messages[0]["step"])), table, "helped-tokens")


MOST_CHOSEN = 200
"""Examples that a selection may hold; an address must stay short."""


def shows(folder: Path) -> int:
    """Say how much there is to show of a run: more with gates, most where reacting to the input is shown to gain."""
    try:
        names = cached_queries.signal_names(folder)
        measured = reactions(cached_queries.ask_events(queries.events_frame, folder, (REACTION,)))
    except DynloraError:
        return 0
    if "probe_loss" not in names and "group_loss" not in names:
        return 0
    return 1 + ("gate" in names) + any(one.low is not None and one.low > 0 for one in measured[:1])


def show_conclusion(view: InputsReading) -> None:
    """Draw what the page shows, in a sentence, and where to go next."""
    summary = view.summary
    name, low_is_good = inputs.group_title("metric", summary["metric"])
    words = figures.conclusion(
        view.groups,
        name,
        evaluated_rows(summary, view.step),
        view.effect,
        gated=not view.gates.empty,
        low_is_good=low_is_good,
    )
    if view.reactions:
        words = f"{reaction_conclusion(view.reactions[0], loss_unit(summary))} {words}"
    with conclusion(words, ""):
        if has_model(view.folder):
            link("pages/playground.py", "Try a text of your own", run=summary["id"])
        link("pages/run.py", "Worst examples", run=summary["id"], section="results")


def colour_choice(kinds: list[str], modules: Mapping[str, str]) -> tuple[str, str]:
    """Draw what colours the probe set, and return it with the module whose gate is meant ("" for another colour).

    Args:
        kinds: what can colour it.
        modules: short name of each module.
    """
    by = segmented("colour", "Colour", kinds, "group", "Colour by {}".format)
    if by != "gate":
        return by, ""
    return by, choose("module", "Module", list(modules), next(iter(modules)), modules.__getitem__)


def placed(view: InputsReading) -> tuple[pd.DataFrame, tuple[str, str]]:
    """Draw what places the probe set in the plane, and return the examples there with the titles of the axes.

    PCA was recorded; UMAP is asked of the model, and stays PCA when it cannot answer.
    """
    examples = view.examples
    if segmented("plane", "Projection", ["PCA", "UMAP"], "PCA") == "UMAP":
        pairs = list(examples["text_pair"]) if bool(examples["text_pair"].notna().to_numpy().all()) else None
        points = ask_model(view.folder, "neighbours", texts=examples["text"].tolist(), pairs=pairs)
        if points is not None:
            x, y = np.array(points, dtype=float).T
            return examples.assign(x=x, y=y), ("UMAP dimension 1", "UMAP dimension 2")
    return examples, ("First principal component", "Second principal component")


def chosen_examples() -> list[int]:
    """Return the positions of the examples in the address."""
    parts = st.query_params.get("points", "").split(",")[:MOST_CHOSEN]
    return [int(part) for part in parts if part.isdecimal() and len(part) < 7]


def pin_link(run_id: str, chosen: list[int]) -> None:
    """Draw the link that shows the one selected example in every run of the same data."""
    if len(chosen) == 1:
        link("pages/compare.py", "Compare this example across runs", runs=run_id, example=str(chosen[0]))


def depth_chart(view: InputsReading, chosen: list[int]) -> None:
    """Draw the gates of the selected examples over the depth of the model, where gates were recorded."""
    depth = inputs.over_depth(view.probe_gates, view.modules, chosen)
    if len(depth):
        chart(figures.gates_over_depth(depth, colours()), figures.depth(depth), depth, "depth")


def selectable(figure: go.Figure, sentence: str, key: str) -> None:
    """Draw a scatter whose points can be selected; the choice goes to the address."""
    st.plotly_chart(
        figure,
        theme=None,
        key=f"chart-{key}",
        config=plot_config(key),
        alt=sentence,
        width="stretch",
        on_select=lambda: _selected(f"chart-{key}"),
        selection_mode=("points", "box", "lasso"),
    )


def _selected(key: str) -> None:
    points = st.session_state[key]["selection"]["points"]
    positions = sorted({int(point["customdata"][0]) for point in points if point.get("customdata")})[:MOST_CHOSEN]
    to_address(points=",".join(map(str, positions)) or None)
