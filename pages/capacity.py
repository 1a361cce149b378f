"""Where does capacity sit, step by step, and who gave to whom?"""

from __future__ import annotations

import streamlit as st

from dynlora.store import queries
from dynlora.viz import capacity, figures_capacity, figures_modules, listing, sentences, signals, widgets
from dynlora.viz.widgets import ask

widgets.enter()
run = widgets.pick_run()
with widgets.guarded():
    summary = queries.run_summary(run.folder)
    names = widgets.signal_names(run.folder)
    modules = widgets.modules(run.folder)
    events = ask(queries.events_frame, run.folder, ("reallocate",))
    moves = ask(queries.rank_moves, run.folder)
    times = listing.step_times(ask(queries.scalars_frame, run.folder, None, "train", 2000))
widgets.titled(f"Capacity: {summary['name']}", listing.about(summary))
shown = [name for name in signals.WORDS if name in names]
if modules.empty or "rank" not in shown:
    widgets.status_line(summary)
    widgets.note("No ranks have been recorded yet. The map appears with the first steps.")
    widgets.links(run.id, here="capacity")
    st.stop()
widgets.figures(listing.headline(summary, capacity.reallocations(events), times))
left, middle, right = st.columns([10, 6, 5], vertical_alignment="bottom")
with left:
    signal = widgets.segmented("signal", "signal", shown, "rank", signals.WORDS.__getitem__)
with middle:
    step = widgets.step_slider(summary["step"])
short = dict(zip(modules["name"], modules["short"], strict=True))
with right:
    module = widgets.choose("module", "module to follow", ["", *short], "", lambda name: short.get(name, "none"))

colours, uniform = widgets.colours(), signals.uniform_rank(summary)
with widgets.guarded():
    heat = ask(queries.heatmap, run.folder, signal, 400)
    ranks, start = widgets.ranks(run.folder, step), widgets.ranks(run.folder, None)
    importance, values = widgets.at_step(run.folder, "importance", step), widgets.at_step(run.folder, signal, step)
    budget = widgets.budget(run.folder, summary)
state = capacity.module_state(modules, ranks, importance)
flows = capacity.flows(modules, moves[moves["step"] <= step], start, ranks)
view = figures_capacity.MapView(
    signals.WORDS[signal], heat.unit, step, module or None, capacity.event_steps(events), signals.centre(signal)
)
left, right = st.columns([5, 3])
with left, widgets.card(signals.QUESTIONS[signal], "map"):
    figure = figures_capacity.capacity_map(heat.frame, heat.first_step, modules, budget, view, colours)
    words = signals.sentence(signal, modules, start, values, step, view.events) + " " + signals.binned(heat)
    widgets.chart(figure, words, capacity.wide(heat.frame, modules), f"map-{signal}")
with right, widgets.card(f"The model at step {step}", "picture"):
    figure = figures_modules.model_picture(state, uniform, module or None, colours)
    widgets.chart(figure, sentences.picture(state, uniform), capacity.state_table(state), "picture")
if module:
    with widgets.card(f"{short[module]} over the steps", "module"):
        series = capacity.one_module(heat.frame, modules, module)
        figure = figures_modules.module_lines(series, signals.WORDS[signal], heat.unit, step, colours)
        widgets.chart(figure, f"{short[module]} is {module}.", series, "module")
left, right = st.columns(2)
with left, widgets.card(f"Who gave to whom, up to step {step}", "flow"):
    figure = figures_modules.rank_flow(flows, list(dict.fromkeys(modules["label"])), colours)
    widgets.chart(figure, sentences.flow(flows, capacity.reallocations(events, step)), flows, "flow")
with right, widgets.card("Did rank follow importance?", "scatter"):
    figure = figures_modules.importance_scatter(state, module or None, colours)
    widgets.chart(figure, sentences.followed(state), capacity.state_table(state), "scatter")
widgets.links(run.id, here="capacity")
