"""The cards of the Capacity page: what changes with every step, and what changes with the allocator's decisions."""

# pyright: reportArgumentType=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dynlora.viz import capacity, components, decisions, figures_capacity, figures_modules, flows, sentences, signals
from dynlora.viz.labels import markdown_text
from dynlora.viz.widgets.address import segmented
from dynlora.viz.widgets.capacity import CapacityView
from dynlora.viz.widgets.cards import card, chart, colours, under
from dynlora.viz.widgets.replay import replay


def capacity_now(view: CapacityView) -> None:
    """Draw the map and the model.

    Raises:
        DynloraError: when the run cannot be read.
    """
    left, right = st.columns([5, 3])
    _map(view, left)
    _model(view, right)
    if view.module:
        _module(view, view.module)


def capacity_decisions(view: CapacityView) -> None:
    """Draw who gave to whom, whether rank followed importance, and whether importance is steady.

    Raises:
        DynloraError: when the run cannot be read.
    """
    left, right = st.columns(2)
    _flow(view, left)
    _agreement(view, right)
    if len(view.events) > 1:
        _steadiness(view)
    _components(view)
    decided = view.decisions()
    if len(decided):
        _decisions(decided)


def _map(view: CapacityView, place: Any) -> None:
    """Draw the chosen signal over modules and steps."""
    heat, rows, budget = view.heat(view.signal, 400), view.rows(), view.budget()
    with place, card(markdown_text(view.shown.question, 100), "map"):
        look, table = view.about_map(heat.unit), capacity.wide(heat.frame, view.modules)
        figure = figures_capacity.capacity_map(heat.frame, heat.first_step, rows, budget, look, colours())
        chart(figure, f"{view.sentence()} {signals.binned(heat)}", table, f"map-{view.signal}")


def _model(view: CapacityView, place: Any) -> None:
    """Draw the model as a picture that plays through the steps shown."""
    state = view.state()
    words = sentences.picture(state, signals.uniform_rank(view.summary))
    with place, card("The model, step by step", "picture"):
        replay(view.pictures(words, colours()))
        under(words, capacity.state_table(state), "picture")


def _module(view: CapacityView, module: str) -> None:
    """Draw one module's row of the map as a line."""
    heat, title = view.heat(view.signal, 400), view.shown.word
    with card(f"{view.short[module]} over the steps", "module"):
        series = capacity.one_module(heat.frame, view.modules, module)
        figure = figures_modules.module_lines(series, title, heat.unit, view.step, colours())
        chart(figure, f"{view.short[module]} is {module}.", series, "module")


def _flow(view: CapacityView, place: Any) -> None:
    """Draw who gave to whom in the steps shown."""
    with place, card(f"Who gave to whom, steps {view.first} to {view.last}", "flow"):
        by = segmented("flow", "ends of the flow", list(flows.BY), "kind", flows.BY.__getitem__)
        traced, sides = view.traced()
        found, ends = view.flow(traced, by)
        words = sentences.flow(traced, sides, len(view.events_shown), view.first, view.last)
        chart(figures_modules.rank_flow(found, ends, colours()), words, found, "flow")


def _components(view: CapacityView) -> None:
    """Draw the components of the module that is followed, or of the first, where components have factors."""
    factors = view.heat_of(components.FACTOR)
    if factors.empty:
        return
    name = view.module or view.modules["name"].iloc[0]
    with card(f"Components of {view.short[name]}: their factors and lineage", "components"):
        rows = components.of_module(factors, view.modules, name)
        copied = view.copies()
        own = copied[copied["module"] == name]
        figure = figures_modules.component_map(rows, own, colours())
        words = components.sentence(rows, own, view.short[name])
        hint = "" if view.module else " Choose a module to follow above to see another."
        chart(figure, words + hint, rows.T.reset_index(names="step"), "components")
        if len(own):
            under("Who descends from whom.", components.lineage(own, len(rows)), "lineage")


def _decisions(decided: pd.DataFrame) -> None:
    """Draw what was decided beside moves of rank."""
    with card("What else was decided", "decisions"):
        st.dataframe(decided.tail(200), hide_index=True, width="stretch", height=min(260, 38 + 35 * len(decided)))
        under(decisions.summary(decided), decided, "decisions")


def _agreement(view: CapacityView, place: Any) -> None:
    """Draw rank against importance."""
    state = view.state()
    with place, card(f"Did rank follow importance, at step {view.step}?", "scatter"):
        figure = figures_modules.importance_scatter(state, view.module, colours())
        chart(figure, sentences.followed(state), capacity.state_table(state), "scatter")


def _steadiness(view: CapacityView) -> None:
    """Draw how well the order of importance agrees from one reallocation to the next."""
    with card("Is importance steady from one reallocation to the next?", "steady"):
        steady = capacity.steadiness(view.heat_of("importance"), view.events)
        figure = figures_modules.steadiness(steady, colours())
        chart(figure, sentences.steadiness(steady), steady, "steady")
