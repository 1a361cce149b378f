"""The cards of the Capacity page: what changes with every step, and what changes with the allocator's decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import capacity_frames, flows, signals
from dynlora.analysis.run_summary import ACTIVE
from dynlora.text import one_line
from dynlora.viz.capacity import (
    component_figures,
    components,
    decision_log,
    map_figure,
    module_figures,
    pictures,
    search_figure,
    searches,
)
from dynlora.viz.capacity import conclusion as conclusions
from dynlora.viz.capacity import text as capacity_text
from dynlora.viz.capacity.view_model import CapacityView
from dynlora.viz.kit.module_map import MapView
from dynlora.viz.ui.cards import Picks, card, chart, colours, note, number_columns, picture, under
from dynlora.viz.ui.panel_cards import conclusion
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_picker import link
from dynlora.viz.ui.url_state import segmented


def capacity_conclusion(view: CapacityView) -> None:
    """Draw what the page shows, in a sentence, and where to go next.

    Raises:
        DynloraError: when the run cannot be read.
    """
    state, run = replace(view, step=view.last).state(), str(view.summary["id"])
    steps = (view.first, view.last, len(view.events_shown))
    words = conclusions.conclusion(state, view.ranks(view.first), *view.traced(), *steps)
    with conclusion(words, conclusions.outlook(view.summary, len(view.events))):
        if view.summary["status"] not in ACTIVE:
            link("pages/run.py", "Did it help? Verdict on Run", run=run)
        if view.summary.get("planned_events") == 0:
            link("pages/launch.py", "Train it with a method that moves rank", **{"from": run})


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
    _search(view)
    decided = view.decisions()
    if len(decided):
        _decisions(decided)


def _picks(view: CapacityView) -> Picks:
    """Return what a click on a module's point chooses: the module that all pictures follow."""
    return Picks("module", view.modules.sort_values("position")["name"].tolist())


def _map(view: CapacityView, place: Any) -> None:
    """Draw the chosen signal over modules and steps."""
    with place, card(view.shown.title, "map", view.shown.question):
        shown = pictures.signal_map(view, colours())
        map_figure.invite_clicks(shown.figure)
        picture(shown, f"map-{view.signal}", _picks(view))


def _model(view: CapacityView, place: Any) -> None:
    """Draw the model as a picture that plays through the steps shown."""
    with place, card("Rank and importance in the model", "picture"):
        replay(pictures.replay_data(view, colours()))
        under(pictures.replay_words(view), capacity_frames.state_table(view.state()), "picture")


def _module(view: CapacityView, module: str) -> None:
    """Draw one module's row of the map as a line."""
    heat, title = view.heat(view.signal, 400), view.shown.word
    with card(f"{view.short[module]}: {one_line(title, 60)} over time", "module"):
        series = capacity_frames.one_module(heat.frame, view.modules, module)
        figure = module_figures.module_lines(series, title, heat.unit, view.step, colours())
        chart(figure, f"{view.short[module]} is the module {module}.", series, "module")


def _flow(view: CapacityView, place: Any) -> None:
    """Draw who gave to whom in the steps shown."""
    with place, card(f"Rank transfers, steps {view.first} to {view.last}", "flow"):
        by = segmented("flow", "Group transfers", list(flows.BY), "kind", flows.BY.__getitem__)
        picture(pictures.rank_flow(view, by, colours()), "flow")


def _components(view: CapacityView) -> None:
    """Draw each signal over components: of all modules at the chosen step, and of one module over the steps."""
    for place, (name, about) in enumerate(view.component_signals().items()):
        whole, now = view.heat_of(name), view.components_at(name)
        if whole.empty or now.empty:
            continue
        look = view.about_components(about, components.centre(whole, about, is_factor=name == components.FACTOR))
        with card(f"Components: {one_line(about.word, 60)}", f"components-{place}", about.question):
            left, right = st.columns(2)
            with left:
                rows = view.rows()
                figure = component_figures.all_components(now, rows, whole, look, colours())
                words = components.spread(now, view.modules, about, view.step, neutral=look.centre)
                chart(figure, words, components.table(now, rows), f"components-all-{place}")
            with right:
                _of_one_module(view, name, about, whole, look, f"components-{place}")


def _of_one_module(
    view: CapacityView, name: str, about: signals.About, whole: pd.DataFrame, look: MapView, key: str
) -> None:
    """Draw a signal over the components of the module that is followed, or of the first, and who became a copy."""
    module = view.module or view.modules["name"].iloc[0]
    short, is_factor = view.short[module], name == components.FACTOR
    rows, copied = components.of_module(whole, view.modules, module), view.copies()
    own = copied[(copied["module"] == module) & is_factor]
    words = components.sentence(rows, own, short) if is_factor else components.over_steps(rows, short, about)
    hint = "" if view.module else " Select a module above to see its components."
    figure = component_figures.component_map(rows, own, whole, look, colours())
    chart(figure, words + hint, rows.T.reset_index(names="step"), key)
    if len(own):
        under(
            "Lineage of the components: the slot each one was copied from.",
            components.lineage(own, len(rows)),
            "lineage",
        )


def _search(view: CapacityView) -> None:
    """Draw the candidates of the last search in the steps shown, where the method searched."""
    found = view.search()
    if found is None:
        return
    with card("Search candidates", "search"):
        words = capacity_text.search(found, len(searches.drawn(found.tried)))
        if found.tried.empty:
            note(words)
            return
        figure = search_figure.search_scatter(found, searches.loss_title(view.summary), colours())
        chart(figure, words, searches.table(found), "search")


def _decisions(decided: pd.DataFrame) -> None:
    """Draw what was decided beside moves of rank."""
    with card("Other decisions", "decisions"):
        seen = decided.tail(200)
        st.dataframe(
            seen, hide_index=True, width="stretch", height=min(260, 38 + 35 * len(decided)),
            column_config=number_columns(seen),
        )  # fmt: skip
        under(decision_log.summary(decided), decided, "decisions")


def _agreement(view: CapacityView, place: Any) -> None:
    """Draw rank against importance."""
    with place, card(f"Rank and importance at step {view.step}", "scatter"):
        picture(pictures.importance_scatter(view, colours()), "scatter", _picks(view))


def _steadiness(view: CapacityView) -> None:
    """Draw how well the order of importance agrees from one reallocation to the next."""
    with card("Importance stability between reallocations", "steady"):
        steady = capacity_frames.steadiness(view.heat_of("importance"), view.events)
        figure = module_figures.steadiness(steady, colours())
        chart(figure, capacity_text.steadiness(steady), steady, "steady")
