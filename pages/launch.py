"""A form from the configuration's schema that starts a run, as `dynlora train` does, an experiment, or a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dynlora.jobs import launch
from dynlora.viz import advice
from dynlora.viz.launch import data_source, form_model, preflight_card, start_from, sweep_form
from dynlora.viz.launch import form as launch_form
from dynlora.viz.ui import cards, frame, live, model_client, run_picker, url_state

MODES = {"run": "Run", "experiment": "Experiment", "sweep": "Sweep"}
ABOUT = {
    "run": "Start a fine-tuning run in its own process. It continues when this page is closed.",
    "experiment": "Compare methods over ranks and seeds at the same budget: one queue, and one page with the verdict.",
    "sweep": "Start one run for each combination of values, or search for the best ones.",
}
ADDRESS = ("mode", "sweep", "preset", "from", "twin", "strategy", "data", "upload", "repair", "methods")
"""What the address keeps of the form."""

frame.enter()
model_client.keep()
url_state.restore_address(ADDRESS, "address-mode")
cards.titled("Launch", ABOUT[url_state.from_address("mode", list(MODES), "run")])
mode = url_state.segmented("mode", "What to launch", MODES)
with live.guarded(), st.spinner("Loading the strategies"):
    STRATEGIES = {row["name"]: row for row in launch.catalog()["strategies"]}


def starting_values() -> dict[str, Any]:
    """Draw the choice of starting settings and return them."""
    with cards.card("Starting settings", "start"):
        start = start_from.pick_start(STRATEGIES)
    url_state.start_from(start)
    return start


def pick_data(start: Mapping[str, Any]) -> tuple[data_source.Source, Any]:
    """Draw the choice of data and return it, with the place for what its check says."""
    with cards.card("Data", "data"):
        source = data_source.pick_source(start)
    return source, st.container(key="check-place")


def show_run() -> None:
    """Draw the form of one run, or of one for each seed."""
    start = starting_values()
    source, check_place = pick_data(start)
    with cards.card("Model and training", "what"), live.guarded():
        values, seeds = launch_form.what_and_how_long(start)
    with cards.card("Strategy", "how"):
        strategy = launch_form.how_capacity_is_spent(launch_form.pick_strategy(STRATEGIES, start), start)
    configs = [form_model.nested({**values, **source.values, **strategy, "seed": seed}) for seed in seeds]
    missing = source.missing or data_source.check_source(configs[0], source, check_place)
    preflight_card.show_tokens(configs[0], source, check_place)
    training, waiting = launch_form.in_the_queue()
    plans = [preflight_card.Plan("", configs[0], len(configs))]
    with cards.in_row("actions"):
        launch_form.start_button(configs, missing)
        preflight_card.check_button(plans, missing, training)
        advice.advise_buttons(configs[0], missing)
        cards.note(missing or form_model.queue_caption(training, waiting, len(configs)))
    launch_form.show_launched()
    advice.show_advice(configs[0], launch_form.field_key(form_model.config_field("train.lr"), start))
    preflight_card.show_check(plans)
    if not source.missing:
        launch_form.show_command(configs)


def show_experiment() -> None:
    """Draw the form of methods x ranks x seeds."""
    start = starting_values()
    source, check_place = pick_data(start)
    with cards.card("Methods, ranks and seeds", "experiment"), live.guarded():
        experiment = sweep_form.pick_experiment(STRATEGIES, start)
    with cards.card("Model and training", "what"), live.guarded():
        values = launch_form.what_is_shared(start) | source.values
    example = sweep_form.example(values, experiment)
    missing = source.missing or data_source.check_source(example, source, check_place)
    preflight_card.show_tokens(example, source, check_place)
    with cards.in_row("actions"):
        sweep_form.start_experiment(values, experiment, missing)
    sweep_form.show_check(values, experiment)
    if not source.missing:
        sweep_form.show_command(values, experiment)


if mode == "experiment":
    show_experiment()
elif mode == "sweep":
    with cards.card("Sweep", "sweep"):
        sweep_form.sweep_form(run_picker.list_all())
    sweep_form.show_searches()
else:
    show_run()
url_state.keep_form_address(ADDRESS)
