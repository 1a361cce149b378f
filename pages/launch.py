"""What should be trained next? A form from the configuration's schema; the same as `dynlora train`."""

from __future__ import annotations

import streamlit as st

from dynlora import launch
from dynlora.viz import launchform, widgets

widgets.enter()
COMMON = ("train.steps", "adapter.rank", "train.lr", "train.batch_size", "data.max_length", "data.max_eval")
MORE = (
    "data.max_train", "data.group_by", "data.text", "data.label", "adapter.alpha", "adapter.dropout", "train.warmup",
    "train.schedule", "train.precision", "log.eval_every", "log.checkpoint_every", "log.every",
)  # fmt: skip

widgets.titled("Launch", "Start a real fine-tune in a process of its own; it goes on when this page is closed.")
with widgets.guarded(), st.spinner("Asking for the strategies"):
    STRATEGIES = {row["name"]: row for row in launch.catalog()["strategies"]}

preset_name = widgets.segmented("preset", "preset", list(launchform.PRESETS), "Quick look")
preset = launchform.PRESETS[preset_name]
values: dict[str, object] = {}
with widgets.card("What is trained on what", "what"):
    left, middle, right, last = st.columns(4)
    with left:
        values["name"] = (
            st.text_input("name of the run", max_chars=120, help="Display name; any text. Key: name.").strip() or None
        )
    with middle:
        model = launchform.config_field("model.name")
        values["model.name"] = widgets.field_widget(model, preset)
    with right:
        source = st.text_input(
            "data", "sentiment4", max_chars=500, help="An embedded name, a file, a folder or a hub id."
        )
        values[launchform.data_key(source.strip())] = source.strip()
    values |= widgets.field_grid([launchform.config_field(key) for key in COMMON], preset)
    with last:
        seeds = st.text_input(
            "seeds", "0", max_chars=60, help="One number, a span such as 0-4, or a list. One run each."
        )

with widgets.card("How capacity is spent", "how"):
    usual = launchform.config_field("strategy.name").default
    strategy = STRATEGIES[widgets.choose("strategy", "strategy", list(STRATEGIES), usual)]
    values["strategy.name"] = strategy["name"]
    widgets.note(
        f"{strategy.get('summary', '')} Fidelity: {strategy.get('fidelity', '?')}. Cost: {strategy.get('cost', '?')}."
    )
    with st.expander(f"Fields of {strategy['name']}", icon=":material/tune:"):
        values |= widgets.field_grid(launchform.strategy_fields(strategy), preset)
    with st.expander("More settings", icon=":material/settings:"):
        values |= widgets.field_grid([launchform.config_field(key) for key in MORE], preset)

with widgets.guarded():
    numbers = launchform.seeds(seeds)
configs = [launchform.nested({**values, "seed": number}) for number in numbers]
widgets.start_button(configs)
for run_id in widgets.launched():
    with st.container(horizontal=True, key=f"launched-{run_id}"):
        st.success(f"Started as {run_id}.", width="stretch")
        widgets.link("pages/run.py", "Watch it", run=run_id)
if widgets.launched():
    st.button("Let the same form start another run", on_click=widgets.forget_launched, type="tertiary")
with widgets.card("The same on the command line", "command"):
    st.code(
        "\n".join(launchform.command(config, str(widgets.runs_dir())) for config in configs),
        language="bash",
        wrap_lines=True,
    )
    st.code(launchform.yaml_text(configs[0]), language="yaml")
