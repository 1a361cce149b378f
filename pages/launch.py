"""What should be trained next? A form from the configuration's schema; the same as `dynlora train`."""

from __future__ import annotations

import streamlit as st

from dynlora.config_files import yaml_text
from dynlora.jobs import launch
from dynlora.viz import ui as widgets
from dynlora.viz.launch import form_model as launchform

widgets.enter()
widgets.titled("Launch", "Start a real fine-tune in a process of its own; it goes on when this page is closed.")
with widgets.guarded(), st.spinner("Asking for the strategies"):
    STRATEGIES = {row["name"]: row for row in launch.catalog()["strategies"]}

with widgets.card("What does it start from?", "start"):
    start = widgets.pick_start(STRATEGIES)
with widgets.card("What is learned from?", "data"):
    source = widgets.pick_source(start)
with widgets.card("What is trained, and how long?", "what"), widgets.guarded():
    values, seeds = widgets.what_and_how_long(start)
with widgets.card("How is capacity spent?", "how"):
    usual = start.get("strategy.name", launchform.config_field("strategy.name").default)
    name = widgets.choose(
        "strategy", "strategy", list(STRATEGIES), usual if usual in STRATEGIES else next(iter(STRATEGIES))
    )
    strategy = widgets.how_capacity_is_spent(STRATEGIES[name], start)

configs = [launchform.nested({**values, **source.values, **strategy, "seed": seed}) for seed in seeds]
training, waiting = widgets.in_the_queue()
with st.container(horizontal=True, vertical_alignment="center", key="actions"):
    widgets.start_button(configs, source.missing)
    widgets.check_button(configs[0], source.missing, training)
    widgets.note(source.missing or launchform.queue_words(training, waiting, len(configs)))
widgets.show_launched()
widgets.show_check(configs[0])

if not source.missing:
    with widgets.card("The same on the command line", "command"):
        commands = [launchform.command(config, str(widgets.runs_dir())) for config in configs]
        left, right = st.columns([3, 2])
        left.code("\n".join(commands), language="bash", wrap_lines=True)
        right.code(yaml_text(configs[0]), language="yaml", wrap_lines=True)
        if len(configs) > 1:
            widgets.note(f"The file is that of the first of {len(configs)} runs; in the others only the seed differs.")
