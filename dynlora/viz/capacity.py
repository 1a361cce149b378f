"""Where rank and importance sit, step by step, and the ranks to use next time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dynlora.analysis import capacity_frames, ranks_to_use, seed_groups
from dynlora.analysis.capacity_frames import Balance
from dynlora.analysis.pairing import same_task
from dynlora.analysis.planted_ranks import placement_sentence
from dynlora.analysis.run_reading import RunReading, read_run
from dynlora.analysis.run_summary import ACTIVE, last_planned_step
from dynlora.errors import DynloraError
from dynlora.kinds.run_kind import registry
from dynlora.kinds.train.panels import measured
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import listed, one_line, percent, plural, sentence_case
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, in_row, note, rows, safe, snippets, under
from dynlora.viz.ui.panel_cards import panel_cards
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_picker import Chosen, find_run, has_model, link, list_all
from dynlora.viz.ui.url_state import (
    addressed_range,
    brushed_steps,
    choose,
    chosen_step,
    from_address,
    section,
    segmented,
    step_range,
    to_address,
)

MOST_SEEDS = 10
"""Most other runs of the same configuration whose ranks are read."""


def ranks_of_run(run: Chosen, summary: RunSummary) -> ranks_to_use.Evidence | None:
    """Return the ranks that a run ended with; None before, or where it recorded none."""
    if not ranks_to_use.are_final(summary):
        return None
    reading = read_run(run.folder, cached_queries.CACHED, summary)
    return ranks_to_use.evidence_of(reading, _other_seeds(run, summary))


def ranks_card(run: Chosen, summary: RunSummary) -> None:
    """Draw the ranks of a run that has ended; nothing before, or where it recorded none.

    Args:
        run: the run.
        summary: as `queries.run_summary` returns it.
    """
    ranks, settings = ranks_of_run(run, summary), ranks_to_use.lora_settings(summary, summary.ranks)
    if ranks is None or settings is None:
        return
    why_not = "" if has_model(run.folder) else measured.why_not(cached_queries.ask(queries.recorded_by, run.folder))
    with card("Ranks to use", "ranks"):
        st.markdown(f"**{safe(ranks_to_use.headline(ranks))}**")
        note(ranks_to_use.confidence(ranks, why_not))
        kinds = ranks_to_use.kinds_table(ranks)
        rows(kinds)
        under(ranks_to_use.columns(kinds), ranks_to_use.modules_table(ranks), "ranks-by-module")
        snippets(ranks_to_use.snippets(settings), 250)


def _other_seeds(run: Chosen, summary: RunSummary) -> list[Mapping[str, int]]:
    """Return the last ranks of the newest finished runs that differ in their seed alone, one for each seed."""
    alike = seed_groups.configuration(dict(summary))
    ranks: dict[Any, Mapping[str, int]] = {}
    for row in plain_rows(same_task(list_all(), dict(summary))):
        is_other = row["status"] == "finished" and row["seed"] != summary.seed and row["seed"] not in ranks
        if is_other and len(ranks) < MOST_SEEDS and seed_groups.configuration(row) == alike:
            last = _ranks(row["id"])
            if last:
                ranks[row["seed"]] = last
    return list(ranks.values())


def _ranks(run_id: str) -> Mapping[str, int]:
    """Return the last ranks of a run; none where it cannot be read, which is no reason to hide this one's."""
    try:
        return cached_queries.ask(queries.run_summary, find_run(run_id).folder).ranks
    except DynloraError:
        return {}


def capacity_view(folder: Path, summary: RunSummary) -> RunReading | None:
    """Return a run with all its steps chosen; None before the first rank is recorded.

    Raises:
        DynloraError: when the run cannot be read.
    """
    run = read_run(folder, cached_queries.CACHED, summary)
    return run if run.has_ranks else None


def capacity_controls(view: RunReading) -> RunReading:
    """Draw the controls and return the view as they set it; their values are in the address."""
    with in_row("capacity-controls"):
        segmented("signal", "Signal", list(view.signals), view.opening_signal, _signal_name(view))
        orders = _orders_of(view)
        segmented("rows", "Order of the modules", orders, words=capacity_frames.ORDERS.__getitem__)
        words = ", ".join(_selection(as_addressed(view))) or "all modules"
        with st.popover(f"Filter: {safe(words)}", icon=":material/filter_alt:", key="filter"):
            step_range(view.summary.step, last_planned_step(view.summary))
            choose_modules(view, [st.container() for _ in range(3)])
            _show_all()
    return as_addressed(view)


def choose_modules(view: RunReading, places: Sequence[DeltaGenerator]) -> None:
    """Draw the lists of kinds, of layers and of modules; all cards of a run's views follow them.

    Args:
        view: of the run.
        places: where each list is drawn; the last ones are left out where there are fewer.
    """
    short = view.short
    lists = {
        "kind": ("Kind", _kinds_of(view), lambda label: one_line(label, 40) or "All kinds"),
        "depth": ("Layers", _depths_of(view), lambda band: sentence_case(band) or "All layers"),
        "module": ("Module", list(short), lambda name: short.get(name, "All modules")),
    }
    for place, (name, (label, options, words)) in zip(places, lists.items(), strict=False):
        with place:
            choose(name, label, ["", *options], "", words)


def selection_note(view: RunReading) -> None:
    """Say which modules and steps are chosen, beside the button that shows all again; nothing where all are."""
    words = _selection(view)
    if words:
        with in_row("selection"):
            st.caption(safe(f"Selected: {', '.join(words)}."), width="content")
            _show_all()


def _selection(view: RunReading) -> list[str]:
    """Return the chosen kind, layers, module and steps in words; empty where all are."""
    steps = brushed_steps()
    words = [one_line(part, 40) for part in (view.kind, view.depth, view.short.get(view.module or "")) if part]
    return words + (
        [] if steps is None else [f"steps {steps[0]:,} to {'the last' if steps[1] is None else f'{steps[1]:,}'}"]
    )


def _show_all() -> None:
    """Draw the button that shows all modules and steps again."""
    all_of = dict.fromkeys(("kind", "depth", "module", "steps"))
    st.button("Show all", key="show-all", type="tertiary", on_click=partial(to_address, **all_of))


def _orders_of(view: RunReading) -> list[str]:
    """Return the orders of a map's rows, the usual one first: few modules are not folded."""
    orders = [order for order in capacity_frames.ORDERS if order != "layer"]
    return ["layer", *orders] if capacity_frames.foldable(view.modules) else orders


def _kinds_of(view: RunReading) -> list[str]:
    return list(dict.fromkeys(view.modules["label"]))


def _depths_of(view: RunReading) -> list[str]:
    bands = capacity_frames.depth_bands(view.modules)
    return capacity_frames.band_order(view.modules, bands, "depth")


def _signal_name(view: RunReading) -> Callable[[str], str]:
    """Return what names the signals in the list of signals."""
    return lambda name: sentence_case(one_line(view.signals[name].word, 40))


def as_addressed(view: RunReading) -> RunReading:
    """Return the view that the address asks for."""
    first, last = addressed_range(view.summary.step)
    return replace(
        with_chosen_modules(view),
        first=first,
        last=last,
        step=chosen_step(first, last),
        signal=from_address("signal", list(view.signals), view.opening_signal),
        order=from_address("rows", _orders_of(view), _orders_of(view)[0]),
        opened=from_address("open", view.modules["layer"].dropna().astype(int).unique().tolist(), None),
    )


def with_chosen_modules(view: RunReading) -> RunReading:
    """Return the view with the module, the kind and the layers that the address asks for."""
    return replace(
        view,
        module=from_address("module", list(view.short), None),
        kind=from_address("kind", _kinds_of(view), None),
        depth=from_address("depth", _depths_of(view), None),
    )


def capacity_text(
    state: pd.DataFrame, start: np.ndarray, traced: pd.DataFrame, sides: Balance, first: int, last: int, events: int
) -> str:
    """Say what moved between two steps, first of all how much and between which kinds of modules.

    Args:
        state: of the modules at the last step, as `model.module_state` returns it.
        start: their ranks at the first step, as recorded.
        traced: what moved, as `capacity_frames.trace` returns it.
        sides: as `capacity_frames.balance` returns it.
        first: first step.
        last: last step.
        events: reallocations between them.
    """
    moved = float(traced.loc[(traced["origin"] != traced["holder"]) & (traced["holder"] >= 0), "parameters"].sum())
    if last <= first:
        return f"Step {last:,}, nothing has moved yet: {ranks_of(state)}."
    steps = f"In steps {first:,} to {last:,}" if first else f"By step {last:,}"
    counted = plural(events, "reallocation")
    changed = int((state["rank"] != start[state["position"]]).sum())
    if not moved and not sides.released and changed:  # of a run that was imported, without the sizes of its modules
        who = f"{changed} of {plural(len(state), 'module')}"
        return f"{steps}, {who} changed rank{_kinds(state, start)}."
    if not moved and not sides.released:
        during = f" in {counted}" if events else ""
        return f"{steps}, no rank moved{during}: {ranks_of(state)}."
    who = counted if events else "changes of rank"
    if not moved:  # cuts alone
        taken = f"{percent(_share(sides.released, sides.held_before))} of the adapter"
        return f"{_left(state)}. {steps}, {who} removed {taken}."
    share = percent(_share(moved, sides.held_after))
    return f"Rank moved{_kinds(state, start)}: {share} of the adapter in {who}, steps {first:,} to {last:,}."


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


UNEVEN = 0.2
"""Fraction by which the mean rank of a kind of module differs from that of all where it is named."""


def _left(state: pd.DataFrame) -> str:
    """Return which kinds of modules have the highest mean rank after cuts, and which the lowest."""
    excess = (state.groupby("label")["rank"].mean() / state["rank"].mean() - 1).sort_values(kind="stable")
    highest, lowest = excess[excess > UNEVEN][::-1], excess[excess < -UNEVEN]
    parts = [f"{end} in {_names(kinds)}" for end, kinds in (("highest", highest), ("lowest", lowest)) if len(kinds)]
    return f"Rank is {', '.join(parts) or 'alike in all kinds of modules'}"


def _kinds(state: pd.DataFrame, start: np.ndarray) -> str:
    """Return, after a space, which kinds of modules have less rank than before and which have more."""
    change = (state["rank"] - start[state["position"]]).groupby(state["label"]).sum()
    order = change.sort_values(kind="stable")
    won, lost = order[order > 0][::-1], order[order < 0]
    parts = [f" {way} {_names(kinds)}" for way, kinds in (("from", lost), ("to", won)) if len(kinds)]
    return "".join(parts) or " within each kind of module"


def _names(kinds: pd.Series) -> str:
    return listed([one_line(name, 24) for name in kinds.index], 3)


def ranks_of(state: pd.DataFrame) -> str:
    """Return which ranks the modules have, in words."""
    low, high, n = int(state["rank"].min()), int(state["rank"].max()), plural(len(state), "module")
    return f"{n} with rank {low}" if low == high else f"{n} with ranks from {low} to {high}"


def outlook(summary: RunSummary, events: int) -> str:
    """Say what comes next in a run that trains."""
    planned, step = summary.planned_events, summary.step
    if summary.status not in ACTIVE:
        return ""
    left = f" {plural(planned, 'reallocation')} planned, {events} done." if isinstance(planned, int) else ""
    return f"Step {step:,} of {summary.max_steps:,}.{left} This page follows the run."


def _may_have_helped(summary: RunSummary) -> bool:
    """Say whether a run has a verdict on what it moved: it ended as planned, and planned to move rank."""
    return summary.status == "finished" and summary.planned_events != 0


def capacity_conclusion(run: RunReading) -> None:
    """Draw what the page shows, in a sentence, and where to go next.

    Raises:
        DynloraError: when the run cannot be read.
    """
    state, run_id = replace(run, step=run.last, kind=None, depth=None).state, run.summary.id
    steps = (run.first, run.last, len(run.events_shown))
    ranks = dict(zip(state["name"], state["rank"].fillna(0).astype(int), strict=True))
    moved = capacity_text(state, run.ranks(run.first), *run.traced(), *steps)
    sentences = (placement_sentence(run.summary, ranks), moved, outlook(run.summary, len(run.event_steps)))
    first, *others = filter(None, sentences)
    with st.container(key="conclusion", gap=None):
        st.markdown(f"**{safe(first)}** {safe(' '.join(others))}")
        with in_row("conclusion-next", gap="medium"):
            if _may_have_helped(run.summary):
                link("pages/run.py", "Did it help?", run=run_id)
            if run.summary.planned_events == 0:
                link("pages/launch.py", "Train it with a method that moves rank", **{"from": run_id})


def live_cards(run: RunReading) -> None:
    """Draw the panels that change with every step; `run` has the choices of the reader.

    Raises:
        DynloraError: when the run cannot be read.
    """
    panel_cards((one for one in _panels() if one.is_live), _view(run), {"replay": replay})


TRANSFERS = ("flow", "importance_vs_rank", "stability")
"""Panels of what the allocator moved, and of whether it followed importance."""


def decision_sections(run: RunReading) -> None:
    """Draw the openers of the panels that change with the allocator's decisions; `run` has the choices of the reader.

    Raises:
        DynloraError: when the run cannot be read.
    """
    view, rest = _view(run), [one for one in _panels() if not one.is_live and one.id not in TRANSFERS]
    with section(
        "transfers", "Where rank came from and went, and whether it followed importance", ("flow",)
    ) as is_open:
        if is_open:
            panel_cards((one for one in _panels() if one.id in TRANSFERS), view)
    titles = [one.title for one in rest if one.applies(view)]
    if titles:
        with section("method", f"More of this method: {listed([title.lower() for title in titles])}") as is_open:
            if is_open:
                panel_cards(rest, view)


def _panels() -> list[Panel[Any]]:
    return [one for one in registry()["train"].panels if one.part == "Capacity"]


def _view(run: RunReading) -> RunView:
    return RunView(run.folder, run, run.store)
