"""The part of a run's report about its ranks, rank transfers and gates."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from dynlora.analysis import capacity_frames, flows
from dynlora.analysis.gate_effect import gate_effect
from dynlora.analysis.run_reading import RunReading
from dynlora.store import queries
from dynlora.viz.capacity import decision_log, map_figure, module_figures, search_figure, searches
from dynlora.viz.capacity import text as capacity_text
from dynlora.viz.inputs import figures as inputs_figures
from dynlora.viz.inputs import model as inputs_model
from dynlora.viz.inputs import text as inputs_text
from dynlora.viz.kit.module_map import MapView
from dynlora.viz.report.document import Block, Chart, Part, Table

USUAL = ("rank", "importance", "gate")
"""Signals that a report draws of every run that has them."""

MOST_OWN = 3
"""Signals of a method's own that are drawn beside them."""


def capacity_part(run: RunReading) -> Part:
    """Return the maps of the signals, the flow and whether rank followed importance."""
    if "rank" not in run.signals or run.modules.empty:
        return Part("Capacity", [])
    own = [name for name in run.signals if name in (run.summary.get("own_signals") or {})][:MOST_OWN]
    maps = [_map(run, name) for name in [*USUAL, *own] if name in run.signals]
    blocks: list[Block] = [block for block in maps if block is not None]
    if run.event_steps:
        blocks += [_flow(run), *_followed(run)]
        importance = run.frame("importance")
        if len(run.event_steps) > 1 and len(importance):
            steady = capacity_frames.steadiness(importance, run.event_steps)
            drawn = partial(module_figures.steadiness, steady)
            title = "Importance stability between reallocations"
            blocks.append(Chart(title, drawn, capacity_text.steadiness(steady), steady))
    found = searches.last_search(run.reallocations, run.summary["config"])
    if found is not None and len(found.tried):
        words = capacity_text.search(found, len(searches.drawn(found.tried)))
        drawn = partial(search_figure.search_scatter, found, searches.loss_title(run.summary))
        title = "Search candidates"
        blocks.append(Chart(title, drawn, words, searches.table(found)))
    decided = decision_log.decisions(run.reallocations, run.modules)
    if len(decided):
        blocks.append(Table("Other decisions", decided.tail(200), decision_log.summary(decided), is_wide=True))
    return Part("Capacity", blocks)


def _map(run: RunReading, name: str) -> Chart | None:
    """Return the map of one signal over modules and steps."""
    heat, ends, about = run.heat(name), run.at_ends(name), run.signals[name]
    if heat is None or ends is None:
        return None
    first, last = ends
    step = run.summary["step"]
    ranks = run.at_ends("rank")
    rows = capacity_frames.ordered(run.modules, "kind", last if ranks is None else ranks[1])
    look = MapView(
        about.word,
        heat.unit,
        events=run.event_steps,
        centre=about.centre,
        choices=about.choices,
        grouping=about.grouping,
    )
    words = (
        capacity_text.rank_caption(run.modules, first, last, step, run.event_steps)
        if name == "rank"
        else capacity_text.sentence(about, run.modules, last, step)
    )
    drawn = partial(map_figure.capacity_map, heat.frame, heat.first_step, rows, run.budget, look)
    table = _ends_table(heat.frame, run.modules, first, last)
    return Chart(about.title, drawn, f"{words} {capacity_text.binned(heat)}".strip(), table, is_wide=True)


def _ends_table(values: pd.DataFrame, modules: pd.DataFrame, first: np.ndarray, last: np.ndarray) -> pd.DataFrame:
    """Return a signal's first, last, lowest and highest value of each module."""
    order = modules["position"].to_numpy()
    numbers = pd.DataFrame(values.to_numpy(float)[order])
    return pd.DataFrame(
        {
            "module": modules["short"].to_numpy(), "first": first[order], "last": last[order],
            "lowest": numbers.min(axis=1).to_numpy(), "highest": numbers.max(axis=1).to_numpy(),
            "name": modules["name"].to_numpy(),
        }
    )  # fmt: skip


def _flow(run: RunReading) -> Chart:
    """Return the rank transfers over the whole run, by kind."""
    traced, sides = run.traced()
    moves = queries.rank_moves(run.folder)
    band = flows.bands(run.modules, "kind", moves)
    found, ends = flows.flows(run.modules, traced, band), flows.band_order(run.modules, band, "kind")
    words = capacity_text.flow(traced, sides, len(run.event_steps), 0, run.summary["step"])
    return Chart("Rank transfers", partial(module_figures.rank_flow, found, ends), words, found)


def _followed(run: RunReading) -> list[Block]:
    """Return rank against importance at the last step, where importance was recorded."""
    importance, ranks = run.at_ends("importance"), run.at_ends("rank")
    if importance is None or ranks is None:
        return []
    state = capacity_frames.module_state(run.modules, ranks[1], importance[1])
    drawn = partial(module_figures.importance_scatter, state, None)
    return [Chart("Rank and importance", drawn, capacity_text.followed(state), capacity_frames.state_table(state))]


def inputs_part(run: RunReading) -> Part:
    """Return the gates by input group, for runs that have gates."""
    gates = queries.gates_by_group(run.folder)
    if gates.empty:
        return Part("Inputs", [])
    probe, examples = queries.probe_gates(run.folder), queries.examples_frame(run.folder)
    fits = not probe.empty and len(probe) == len(examples)
    effect = gate_effect(probe.to_numpy(float), examples["group"].tolist()) if fits else None
    drawn = partial(inputs_figures.gate_map, gates, run.modules, effect, hide=False)
    words = inputs_text.gates(gates, run.modules, effect, run.summary["step"])
    return Part("Inputs", [Chart("Gates by input group", drawn, words, inputs_model.gate_table(gates), is_wide=True)])
