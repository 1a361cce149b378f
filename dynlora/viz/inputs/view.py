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
from dynlora.analysis.inputs import InputsReading
from dynlora.analysis.module_effects import REACTION, reactions
from dynlora.analysis.retention import effects_target
from dynlora.errors import DynloraError
from dynlora.kinds.run_kind import registry
from dynlora.kinds.train.panels.effects import BY, PAIR, evidence, group_effects, what_moves
from dynlora.kinds.train.panels.measured import why_not
from dynlora.store import queries
from dynlora.text import one_line
from dynlora.viz.inputs import figures
from dynlora.viz.inputs.figures import TokenTrace
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.token_text import cut_words, tokens_html
from dynlora.viz.knockout import ablation_button
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, number_columns, plot_config, safe, under
from dynlora.viz.ui.live import guarded
from dynlora.viz.ui.model_client import ask_model, in_background
from dynlora.viz.ui.panel_cards import conclusion, panel_card, panel_cards
from dynlora.viz.ui.run_picker import Chosen, has_model, is_read_only, link
from dynlora.viz.ui.url_state import choose, segmented, slide, to_address

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
    order = segmented("order", "Order", ORDERS)
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
    example = choose("example", "Example", {"": "Choose an example", **labels})
    if not example:
        note("Colours the tokens of a held-out example by their loss, with the adapter and without.")
        return
    colouring = segmented("token-colour", "Colour", figures.COLOURINGS)
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
    best = view.summary.best.get("step")
    words = figures.step_words(trace, best if isinstance(best, int) else None)
    step = slide("token-step", "Evaluation at step", trace.steps, trace.steps[-1], words.__getitem__)
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
    order = segmented("token-order", "Order", ORDERS)
    table = whole if order == "helped" else whole.iloc[::-1]
    st.dataframe(table.head(200), hide_index=True, width="stretch", height=320, column_config=number_columns(table))
    under(figures.all_tokens_caption(whole, len(messages), int(messages[0]["step"])), table, "helped-tokens")


MOST_CHOSEN = 200
"""Examples that a selection may hold; an address must stay short."""


def shows(folder: Path) -> int:
    """Say how much there is to show of a run: most with effects by input; gates, and more where reacting gains."""
    try:
        names = cached_queries.signal_names(folder)
        measured = reactions(cached_queries.ask_events(queries.events_frame, folder, (REACTION,)))
    except DynloraError:
        return 0
    if "probe_loss" not in names and "group_loss" not in names:
        return 0
    gains = any(one.low is not None and one.low > 0 for one in measured[:1])
    return 1 + ("gate" in names) + gains + 3 * ("probe_effect" in names)


GROUPINGS = {"group": "Input groups", "class": "Classes", "length": "Lengths"}
"""What the probe examples can be grouped by, and what people call it."""


MAPS = {"effects": "Effect on the output", "importance_by_group": "Importance", "gates": "Gates"}
"""What the page maps by input group."""

PANELS_OF = {"importance_by_group": ("importance_by_group",), "gates": ("reaction", "gates")}
"""Ids of the panels of a map, where these are all that it has."""


def choose_map(view: InputsReading) -> str:
    """Draw what is mapped and what the examples are grouped by, where there is a choice; return what is mapped."""
    names = cached_queries.signal_names(view.folder)
    has = {"effects": True, "importance_by_group": "probe_importance" in names, "gates": "gate" in names}
    offered = [name for name in MAPS if has[name]]
    usual = "gates" if view.module_effects is None and has["gates"] else "effects"
    with in_row("inputs-controls", "bottom"):
        name = segmented("map", "Map", offered, usual, MAPS.__getitem__) if len(offered) > 1 else usual
        if view.module_effects is not None and name != "gates" and len(view.groupings) > 1:
            segmented(BY, "Grouped by", list(view.groupings), words=GROUPINGS.__getitem__)
    return name


def addressed(view: InputsReading) -> dict[str, str]:
    """Return what the address groups the examples by, and the two groups that it compares."""
    return {name: st.query_params[name] for name in (BY, *PAIR) if name in st.query_params}


def show_conclusion(run: Chosen, view: InputsReading, drawn: RunView) -> None:
    """Draw what the page shows, in a sentence, and where to go next.

    Args:
        run: the run.
        view: its inputs.
        drawn: what the panels draw, with what the reader chose.
    """
    data = group_effects(drawn)
    unknown = "The effect of each module by input was not recorded."
    with conclusion(*((unknown, "Newer runs record it.") if data is None else (what_moves(data), evidence(data)))):
        if data is None:
            measure_now(run, view)
        if has_model(view.folder):
            link("pages/playground.py", "Try a text of your own", run=run.id)
        link("pages/run.py", "Worst examples", run=run.id, section="results")


def measure_now(run: Chosen, view: InputsReading) -> None:
    """Draw the button that measures how strongly each module acts on the probe set, of a run that did not record it."""
    if is_read_only() or not has_model(view.folder):
        read_only = "This dashboard is read-only. Measure on the machine of the dashboard."
        note(read_only if is_read_only() else why_not(cached_queries.ask(queries.recorded_by, view.folder)))
        return
    with guarded():
        file = effects_target(view.folder, is_own=run.is_own)
    pairs = zip(view.examples["text"], view.examples["text_pair"], strict=True)
    texts = [[first, second if isinstance(second, str) else None] for first, second in pairs]
    in_background("effects", "Measure now", "batches", view.folder, "effects", file=str(file), texts=texts)


def map_cards(name: str, run: Chosen, view: InputsReading, drawn: RunView, panels: Mapping[str, Panel[Any]]) -> None:
    """Draw what the reader chose to map by input group, a key of `MAPS`; the others as `_effect_cards` does."""
    if name not in PANELS_OF:
        _effect_cards(run, view, drawn, panels)
        return
    mapped = [panels[one] for one in PANELS_OF[name]]
    panel_cards(mapped, drawn)
    if not mapped[-1].applies(drawn):
        note(mapped[-1].missing)


def _effect_cards(run: Chosen, view: InputsReading, drawn: RunView, panels: Mapping[str, Panel[Any]]) -> None:
    """Draw the map of each group, what changes between two of them, and whether that matters.

    Args:
        run: the run.
        view: its inputs.
        drawn: what the panels draw, with what the reader chose.
        panels: by id.
    """
    data = group_effects(drawn)
    if data is None:
        return
    panel_card(panels["effects"], drawn)
    if data.moved is None:
        _matters(run, view, drawn)
        return
    left, right = st.columns([5, 4])
    groups, moved = data.means.index.tolist(), data.moved
    with left:
        with in_row("pair-of-groups", "bottom"):
            words = {group: one_line(group, 40) for group in groups}.__getitem__
            for name, label, usual in zip(PAIR, ("From", "To"), (moved.first, moved.second), strict=True):
                choose(name, label, groups, usual, words, width=220)
        panel_card(panels["effect_shift"], drawn)
    with right:
        _matters(run, view, drawn)


def _matters(run: Chosen, view: InputsReading, drawn: RunView) -> None:
    """Draw what each group loses without a module, where that was measured, and what measures it elsewhere."""
    panel: Any = registry()["train"].panel("knockouts_by_group")  # which has a figure
    table = panel.data(drawn)
    with card("Does it matter?", "matters"):
        note(figures.loss_by_group(view.groups))
        if table is None:
            note("Without each module: not measured.")
        else:
            chart(panel.figure(table, colours()), panel.caption(table), panel.table(table), "by-group")
            st.markdown(f"**{safe(figures.without_a_module(table, view.groups))}**")
        ablation_button(run)


def colour_choice(kinds: list[str], modules: Mapping[str, str]) -> tuple[str, str]:
    """Draw what colours the probe set, and return it with the module whose gate is meant ("" for another colour).

    Args:
        kinds: what can colour it.
        modules: short name of each module.
    """
    by = segmented("colour", "Colour", kinds, "group", "Colour by {}".format)
    if by != "gate":
        return by, ""
    return by, choose("module", "Module", modules)


def placed(view: InputsReading) -> tuple[pd.DataFrame, tuple[str, str]]:
    """Draw what places the probe set in the plane, and return the examples there with the titles of the axes.

    PCA was recorded; UMAP is asked of the model, and stays PCA when it cannot answer.
    """
    examples = view.examples
    if segmented("plane", "Projection", ["PCA", "UMAP"]) == "UMAP":
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
