"""A form from the configuration's schema that starts a run, as `dynlora train` does."""

from __future__ import annotations

import streamlit as st

from dynlora.config_files import yaml_text
from dynlora.jobs import launch
from dynlora.viz.launch import data_source, form_model, preflight_card, start_from
from dynlora.viz.launch import form as launch_form
from dynlora.viz.ui import cards, frame, kept_form, run_picker, url_state

frame.enter()
cards.titled("Launch", "Start a fine-tuning run in its own process. It continues when this page is closed.")
with frame.guarded(), st.spinner("Loading the strategies"):
    STRATEGIES = {row["name"]: row for row in launch.catalog()["strategies"]}

ADDRESS = ("preset", "from", "twin", "strategy", "data", "upload")
kept_form.restore_address(ADDRESS, "address-from")
with cards.card("Starting settings", "start"):
    start = start_from.pick_start(STRATEGIES)
kept_form.start_from(start)
with cards.card("Data", "data"):
    source = data_source.pick_source(start)
with cards.card("Model and training", "what"), frame.guarded():
    values, seeds = launch_form.what_and_how_long(start)
with cards.card("Strategy", "how"):
    usual = start.get("strategy.name", form_model.config_field("strategy.name").default)
    name = url_state.choose(
        "strategy", "Strategy", list(STRATEGIES), usual if usual in STRATEGIES else next(iter(STRATEGIES))
    )
    strategy = launch_form.how_capacity_is_spent(STRATEGIES[name], start)

configs = [form_model.nested({**values, **source.values, **strategy, "seed": seed}) for seed in seeds]
training, waiting = launch_form.in_the_queue()
with st.container(horizontal=True, vertical_alignment="center", key="actions"):
    launch_form.start_button(configs, source.missing)
    preflight_card.check_button(configs[0], source.missing, training)
    cards.note(source.missing or form_model.queue_caption(training, waiting, len(configs)))
kept_form.keep_address(ADDRESS)
launch_form.show_launched()
preflight_card.show_check(configs[0])

if not source.missing:
    with cards.card("Command line", "command"):
        commands = [form_model.command(config, str(run_picker.runs_dir())) for config in configs]
        left, right = st.columns([3, 2])
        left.code("\n".join(commands), language="bash", wrap_lines=True)
        right.code(yaml_text(configs[0]), language="yaml", wrap_lines=True)
        if len(configs) > 1:
            cards.note(f"The file is for the first of {len(configs)} runs. The other runs differ only in the seed.")
