"""Which inputs open which gates, and how does each group of inputs fare?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dynlora.store import queries
from dynlora.viz import sentences
from dynlora.viz import ui as widgets
from dynlora.viz.inputs import figures as figures_inputs
from dynlora.viz.inputs import model as inputs
from dynlora.viz.inputs.gate_effect import served
from dynlora.viz.kit import run_summary as listing

widgets.enter()
run = widgets.pick_run()
with widgets.guarded():
    IS_ACTIVE = queries.run_summary(run.folder)["status"] in listing.ACTIVE


@widgets.following(5, active=IS_ACTIVE)
def show_inputs() -> None:
    """Draw everything; again and again while the run trains."""
    with widgets.guarded():
        summary = widgets.live_summary(run.folder, was_active=IS_ACTIVE)
        names = widgets.signal_names(run.folder)
        widgets.titled(f"Inputs: {summary['name']}", listing.about(summary))
        widgets.status_line(summary)
        if "probe_loss" not in names and "group_loss" not in names:
            widgets.note("The run has not been evaluated yet. Groups and examples appear with the first evaluation.")
            return
        step = widgets.step_slider(summary["step"], "last evaluation up to step")
        view = widgets.InputsView(run.folder, summary, widgets.modules(run.folder), step)
        show_gates(view)
        kinds = [kind for kind in inputs.GROUP_NUMBERS if f"group_{kind}" in names]
        for place, kind in zip([place for _ in kinds[::2] for place in st.columns(2)], kinds, strict=False):
            show_group_lines(view, kind, place)
        show_served(view)
        show_probe(view)


def show_gates(view: Any) -> None:
    """Draw the mean gate by group and module, and whether that is more than chance."""
    with widgets.card("Which inputs open which gates?", "gates"):
        if view.gates.empty:
            widgets.note(
                "This run has no gates: its adapters treat every input alike. Strategies with gates draw a map here."
            )
            return
        words = {"beyond": "beyond chance", "all": "all gates"}
        shown = widgets.segmented("gates", "gates shown", list(words), "beyond", words.__getitem__)
        hide = shown == "beyond"
        figure = figures_inputs.gate_map(view.gates, view.modules, view.effect, widgets.colours(), hide=hide)
        table = inputs.gate_table(view.gates)
        widgets.chart(figure, sentences.gates(view.gates, view.modules, view.effect, view.step), table, "gates")


def show_group_lines(view: Any, kind: str, place: Any) -> None:
    """Draw how each group fares over the evaluations."""
    series = view.over_steps(kind)
    title, low_is_good = inputs.group_title(kind, view.summary["metric"])
    with place, widgets.card(f"How does each group fare, by {inputs.group_words(kind)}?", f"group-{kind}"):
        words = sentences.groups(series, title.partition(",")[0], low_is_good=low_is_good)
        widgets.chart(figures_inputs.group_lines(series, title, widgets.colours()), words, series, f"group-{kind}")


def show_served(view: Any) -> None:
    """List the groups with the modules that open and close for them."""
    if len(view.groups):
        with widgets.card("Which modules serve which group?", "served"):
            widgets.rows(served(view.gates, view.modules, view.effect, view.groups).round(4))
            widgets.note("Gate minus its mean over the groups; only what is beyond chance is named.")


def show_probe(view: Any) -> None:
    """Draw the probe set, and the examples that were selected in it."""
    if view.examples.empty:
        widgets.note("The run keeps no probe set.")
        return
    chosen = widgets.chosen_examples()
    with widgets.card("Where do the probe examples lie?", "probe"):
        kinds = inputs.colourings(view.examples, gated=len(view.probe_gates) > 0)
        by, module = widgets.colour_choice(kinds, view.short)
        points, axes = widgets.placed(view)
        points = points.assign(gate=view.gate_of(module)) if by == "gate" else points
        names, title = view.groups["group"].tolist(), f"gate of {view.short.get(module, '')}" if by == "gate" else by
        look = {"chosen": chosen, "title": title, "axes": axes}
        figure = figures_inputs.probe_scatter(points, by, widgets.colours(), names, **look)
        widgets.selectable(figure, sentences.probe(view.examples), "probe")
        widgets.under(sentences.probe(view.examples), points, "probe")
    with widgets.card(f"{len(chosen)} selected examples" if chosen else "The examples, the hardest first", "listed"):
        widgets.texts(inputs.listed(view.examples, chosen))
        depth = inputs.over_depth(view.probe_gates, view.modules, chosen)
        if len(depth):
            figure = figures_inputs.gates_over_depth(depth, widgets.colours())
            widgets.chart(figure, sentences.depth(depth), depth, "depth")


show_inputs()
with widgets.guarded():
    widgets.model_cards(run.folder)
widgets.links(run.id, here="inputs")
