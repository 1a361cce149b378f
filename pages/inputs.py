"""Which inputs open which gates, and how does each group of inputs fare?"""

from __future__ import annotations

import streamlit as st

from dynlora.store import queries
from dynlora.viz import figures_inputs, inputs, listing, sentences, widgets
from dynlora.viz.widgets import ask

widgets.enter()
run = widgets.pick_run()
with widgets.guarded():
    summary = queries.run_summary(run.folder)
    names = widgets.signal_names(run.folder)
    modules = widgets.modules(run.folder)
widgets.titled(f"Inputs: {summary['name']}", listing.about(summary))
if "probe_loss" not in names and "group_loss" not in names:
    widgets.status_line(summary)
    widgets.note("The run has not been evaluated yet. Groups and examples appear with the first evaluation.")
    widgets.links(run.id, here="inputs")
    st.stop()
step = widgets.step_slider(summary["step"], "last evaluation up to step")
colours = widgets.colours()
with widgets.guarded():
    gates = ask(queries.gates_by_group, run.folder, step)
    groups = ask(queries.groups_frame, run.folder, step)
    found = listing.evaluation(ask(queries.events_frame, run.folder, ("evaluate",)))
    names_of_groups = groups["group"].tolist()
    labels = [str(label) for label in (found[1].get("labels") or [])] if found else []
    examples = inputs.named(ask(queries.examples_frame, run.folder, step), names_of_groups, labels)
    by_step = {
        kind: inputs.over_steps(ask(queries.signal_frame, run.folder, f"group_{kind}"), names_of_groups)
        for kind in ("metric", "loss") if f"group_{kind}" in names
    }  # fmt: skip

with widgets.card("Which inputs open which gates?", "gates"):
    if gates.empty:
        widgets.note(
            "This run has no gates: its adapters treat every input alike. Strategies with gates draw a map here."
        )
    else:
        figure = figures_inputs.gate_map(gates, modules, colours)
        widgets.chart(figure, sentences.gates(gates, modules, step), inputs.gate_table(gates), "gates")
places = st.columns(2)
for place, (kind, series) in zip(places, by_step.items(), strict=False):
    title = (listing.main_metric(summary)[0] or "metric") if kind == "metric" else "loss, nats"
    with place, widgets.card(f"How does each group fare, by {kind}?", f"group-{kind}"):
        words = sentences.groups(series, title.partition(",")[0], low_is_good=kind == "loss")
        widgets.chart(figures_inputs.group_lines(series, title, colours), words, series, f"group-{kind}")
if examples.empty:
    widgets.note("The run keeps no probe set.")
    st.stop()
with widgets.card("Where do the probe examples lie?", "probe"):
    by = widgets.segmented("colour", "colour", ["group", "loss"], "group", "colour by {}".format)
    left, right = st.columns([3, 2])
    with left:
        widgets.chart(
            figures_inputs.probe_scatter(examples, by, colours, names_of_groups),
            sentences.probe(examples),
            examples,
            "probe",
        )
    with right:
        st.dataframe(inputs.hardest(examples), hide_index=True, width="stretch", height=400)
widgets.links(run.id, here="inputs")
