"""All methods: what they do, their papers, and how faithful they are to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dynlora.jobs import launch
from dynlora.viz import methods as methods_model
from dynlora.viz.launch import form_model
from dynlora.viz.ui import cards, frame, live, panel_cards, run_picker, url_state
from dynlora.viz.ui.panel_cards import conclusion

frame.enter()
cards.titled("Methods", "All strategies: what they do, their papers and their cost.")
with live.guarded(), st.spinner("Loading the strategies"):
    STRATEGIES = launch.catalog()["strategies"]


def pick_methods() -> list[Mapping[str, Any]]:
    """Draw the filters and return the methods that fit all of them."""
    with cards.in_row("filters", "bottom"):
        chosen = {
            name: url_state.several(name, words.label, list(words.options), words.options, width=160)
            for name, words in methods_model.FILTERS.items()
        }
    return methods_model.filtered(STRATEGIES, chosen)


def show_contents(methods: list[Mapping[str, Any]]) -> None:
    """Draw links to the sections of the page, and all methods as a table on demand."""
    count = f"{len(methods)} of {len(STRATEGIES)} methods"
    with cards.card("Contents", "contents", "" if len(methods) == len(STRATEGIES) else count):
        if not methods:
            cards.note("No method fits all filters.")
            return
        st.markdown(
            " · ".join(f"[{cards.safe(methods_model.title(one))}](#{methods_model.anchor(one)})" for one in methods)
        )
        cards.table(methods_model.overview(methods), "methods")


def show_leaderboard() -> None:
    """Draw what each method comes to where the need for rank is known."""
    board = methods_model.leaderboard()
    with cards.card("Who finds the planted ranks?", "planted", "A synthetic task whose need is known"):
        st.markdown(f"**{cards.safe(methods_model.leaders(board))}**")
        with st.expander("All methods on planted ranks"):
            cards.rows(board)
            frame.documentation("How it was measured", "METHODS", "results")


def show_method(strategy: Mapping[str, Any]) -> None:
    """Draw a method: what it does in a line, the rest folded."""
    name = strategy["name"]
    with st.container(border=True, key=f"card-method-{name}", gap="xsmall"):
        with cards.in_row(f"method-head-{name}"):
            st.subheader(cards.safe(methods_model.title(strategy)), anchor=methods_model.anchor(strategy))
            cards.note(methods_model.in_brief(strategy))
            run_picker.link("pages/launch.py", "Launch", strategy=name)
        st.markdown(cards.safe(strategy.get("summary") or ""))
        with st.expander("Formula, paper and hyperparameters"):
            show_details(strategy)


def show_details(strategy: Mapping[str, Any]) -> None:
    """Draw how a method works, where it differs from its source, its facts and its settings."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        if strategy.get("formula"):
            st.latex(strategy["formula"])
        for paragraph in methods_model.how(strategy):
            cards.documented(paragraph)
        if departs := methods_model.departs(strategy):
            cards.documented(f"Differences from the source: {departs}")
    with right:
        panel_cards.facts(methods_model.facts(strategy), methods_model.paper_link(strategy))
        frame.documentation("Full description", f"methods/{strategy['name']}")
    st.dataframe(form_model.field_table(strategy), hide_index=True, width="stretch")


def show_conclusion(methods: list[Mapping[str, Any]]) -> None:
    """Say how many methods there are and how faithful, and lead to an experiment with those that are shown."""
    chosen = [one["name"] for one in methods] if len(methods) < len(STRATEGIES) else []
    then = "Which one to use depends on the data: an experiment with three seeds each gives a verdict."
    with conclusion(methods_model.conclusion(methods, len(STRATEGIES)), then):
        address = {"methods": ",".join(chosen)} if chosen else {}
        run_picker.link("pages/launch.py", "Compare methods on your data", mode="experiment", **address)


CONCLUSION = st.container()
SHOWN = pick_methods()
with CONCLUSION:
    show_conclusion(SHOWN)
show_contents(SHOWN)
show_leaderboard()
for one in SHOWN:
    show_method(one)
