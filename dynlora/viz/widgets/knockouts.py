"""The card of the Capacity page that knocks modules out: start it, watch it, and read whether importance was right."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false, reportOperatorIssue=false
# (pandas comes without types)
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dynlora.errors import DynloraError
from dynlora.inference_child import knockout_file, shared
from dynlora.store import queries
from dynlora.store.knockouts import Knockouts, read_knockouts
from dynlora.store.scores import module_scores
from dynlora.viz import figures_knockouts, knockouts
from dynlora.viz.labels import number, plural
from dynlora.viz.widgets import answers
from dynlora.viz.widgets.address import choose
from dynlora.viz.widgets.cards import card, chart, colours, note, rows, safe
from dynlora.viz.widgets.picker import find_run, is_read_only, list_all, run_words

SIZES = (128, 512, 2048)
"""Held-out rows that can be looked at."""

MOST_TWINS = 24
"""Runs that are looked at for one that spreads the same budget evenly."""


def knockout_card(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Draw the knock-outs of a run; while some are under way, again and again.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        modules: as `capacity.described` returns them.
    """
    twins = uniform_twins(folder, summary, list_all())
    running = _progress(folder) if st.session_state.get(_key(folder)) else None

    @st.fragment(run_every=1.5 if running is not None else None)
    def live() -> None:
        with card("Was importance right? Each module knocked out in turn", "knockout"):
            _draw(folder, summary, modules, twins)

    live()


def _draw(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame, twins: pd.DataFrame) -> None:
    state = _progress(folder) if st.session_state.get(_key(folder)) else None
    found = read_knockouts(knockout_file(folder))
    if state is not None and (state["ended"] or state["error"]):
        st.session_state[_key(folder)] = False
        st.session_state[f"{_key(folder)}-said"] = state["error"]
        st.rerun()
    said = st.session_state.pop(f"{_key(folder)}-said", None)
    if said:
        st.error(safe(f"The knock-out ended early: {said}"))
    _controls(folder, summary, found, state)
    effect = knockouts.effects(found, modules)
    if found is None or effect.empty:
        note(
            "Switches the adapter of one module off at a time and measures what held-out rows lose: the truth that "
            "an allocator's score only guesses at. Takes about a forward pass over the rows for each module."
        )
        return
    words = knockouts.effect_sentence(effect, len(modules), found.rows)
    chart(figures_knockouts.effect_bars(effect, colours()), words, effect.drop(columns="position"), "effects")
    _against_scores(folder, effect, modules, twins)
    groups = knockouts.by_group(found, modules)
    if len(groups) > 1:
        st.markdown("**What each input group loses without each module**")
        told = "Blue helps the group, red harms it; the same adapter can do both."
        chart(figures_knockouts.group_effects(groups, colours()), told, groups.reset_index(names="group"), "by-group")
    _pairs(folder, found, modules)


def _controls(folder: Path, summary: Mapping[str, Any], found: Knockouts | None, state: dict[str, Any] | None) -> None:
    """Draw what starts and stops a knock-out, and how far the one under way has come."""
    if state is not None:
        done, of = state["done"], max(1, state["of"])
        st.progress(min(1.0, done / of), f"{done} of {plural(of, 'module')} knocked out")
        if st.button("Stop", icon=":material/stop:", key="knockout-stop"):
            _asked(folder, "stop")
            st.session_state[_key(folder)] = False
            st.rerun()
        return
    if is_read_only():
        note("This dashboard only shows; knock-outs are started where it runs, or with dynlora knockout.")
        return
    if not summary["step"]:
        note("Nothing has been trained yet.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="knockout-controls"):
        size = st.selectbox("held-out rows", SIZES, 1, key="knockout-rows", width=160)
        words = "Knock out every module" if found is None else "Knock out again"
        if st.button(words, icon=":material/science:", key="knockout-start"):
            if found is not None and found.rows == size and len(found.alone) == found.n_modules:
                knockout_file(folder).unlink(missing_ok=True)
            _start(folder, None, int(size))


def _against_scores(folder: Path, effect: pd.DataFrame, modules: pd.DataFrame, twins: pd.DataFrame) -> None:
    """Draw a recorded score against the effects, beside its agreement with those of a uniform twin."""
    scores = module_scores(folder)
    if not scores or len(effect) < knockouts.LEAST:
        return
    name = choose("score", "score", list(scores), next(iter(scores)))
    found = knockouts.agreement(scores[name], effect)
    title, uniform = _twin(twins, modules)
    other = None if uniform is None else knockouts.agreement(scores[name], uniform)
    left, right = st.columns([3, 2])
    with left:
        figure = figures_knockouts.score_against_effect(effect, scores[name], name, colours())
        words = knockouts.agreement_sentence(name, found, other)
        chart(figure, words, effect.assign(score=scores[name][effect["position"]]), "against")
    with right:
        st.markdown("**Every score against the effects**")
        rows(knockouts.agreements(scores, effect).round(3))
        if uniform is not None:
            st.markdown(f"**… and against those in {safe(title)}**")
            rows(knockouts.agreements(scores, uniform).round(3))
        elif title:
            note(f"{title} spreads the same budget evenly: knock it out too, and the scores can be tried on it.")
        st.markdown("**Misjudged most**")
        wrong = knockouts.misjudged(np.asarray(scores[name]), effect)
        rows(wrong.assign(score=[number(value) for value in wrong["score"]]).round(4))


def _twin(twins: pd.DataFrame, modules: pd.DataFrame) -> tuple[str, pd.DataFrame | None]:
    """Return the name of the uniform twin and its effects, None while they are not measured; no name without a twin."""
    words = run_words(twins) if len(twins) else {}
    for run in words:
        folder = find_run(run).folder
        effect = knockouts.effects(read_knockouts(knockout_file(folder)), modules)
        if len(effect) == len(modules):
            return words[run], effect
    return next(iter(words.values()), ""), None


def _pairs(folder: Path, found: Knockouts, modules: pd.DataFrame) -> None:
    """Draw the pairs measured so far and what measures another."""
    with st.expander("Pairs: do two modules stand in for each other?"):
        names = {int(p): short for p, short in zip(modules["position"], modules["short"], strict=True)}
        with st.container(horizontal=True, vertical_alignment="bottom", key="knockout-pairs"):
            chosen = st.multiselect(
                "two modules", list(names), format_func=names.__getitem__, max_selections=2, key="knockout-pair"
            )
            if st.button("Measure the pair", key="knockout-pair-start", disabled=len(chosen) != 2 or is_read_only()):
                _start(folder, [[int(one) for one in chosen]], found.rows)
        measured = knockouts.pairs(found, modules)
        if len(measured):
            rows(measured.round(5))
            note("Beyond zero: together they are worth more than apart, so each can stand in for the other.")


def _start(folder: Path, sets: list[list[int]] | None, size: int) -> None:
    """Ask the child for a knock-out, and say why it could not start."""
    if _asked(folder, "knockout", file=str(knockout_file(folder)), sets=sets, rows=size) is not None:
        st.session_state[_key(folder)] = True
        st.rerun()


def _progress(folder: Path) -> dict[str, Any] | None:
    """Return how far a knock-out has come, None when there is none, or no child that could know."""
    if shared().pid is None:
        st.session_state[_key(folder)] = False
        return None
    return _asked(folder, "progress")


def _asked(folder: Path, ask: str, **arguments: Any) -> Any:
    """Return the child's answer, None with a sentence on the page when it has none."""
    try:
        with st.spinner("The model is being loaded …") if ask == "knockout" else st.empty():
            return shared().ask(ask, folder=str(folder), which="last", **arguments)
    except DynloraError as error:
        st.error(safe(str(error)))
        return None


def _key(folder: Path) -> str:
    return f"knockout-{folder.name}"


def uniform_twins(folder: Path, summary: Mapping[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished runs that spread the same budget evenly over the same model and data, the nearest seed first.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        runs: as `queries.list_runs` lists them.
    """
    same = runs[(runs["status"] == "finished") & (runs["id"] != folder.name)]
    for column in ("model", "data"):
        same = same[same[column] == summary.get(column)]
    apart = (pd.to_numeric(same["seed"], errors="coerce") - (summary.get("seed") or 0)).abs()
    near = same.assign(apart=apart).sort_values("apart", kind="stable").head(MOST_TWINS)
    others = [answers.ask(queries.run_summary, Path(str(path))) for path in near["folder"]]
    return near[[is_uniform(other) and budget_of(other) == budget_of(summary) for other in others]]


def is_uniform(summary: Mapping[str, Any]) -> bool:
    """Say whether every module of a run has the same rank at its end, and nothing was ever moved."""
    ranks = list((summary.get("ranks") or {}).values())
    return bool(ranks) and len(set(ranks)) == 1


def budget_of(summary: Mapping[str, Any]) -> Any:
    """Return the parameters a run may spend."""
    return (summary.get("params") or {}).get("budget")
