"""The form of an experiment: methods as chips, ranks and seeds, total time, one queue, one page of results."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dynlora.analysis.config_fields import launch_key
from dynlora.errors import DynloraError
from dynlora.jobs.sweep import enqueue_sweep
from dynlora.viz.launch import experiment_model, form_model, preflight_card
from dynlora.viz.launch.experiment_model import Experiment
from dynlora.viz.launch.form import in_the_queue, kept_text
from dynlora.viz.ui.cards import card, note
from dynlora.viz.ui.frame import say_read_only
from dynlora.viz.ui.guard import refusal
from dynlora.viz.ui.run_picker import is_read_only, list_all, runs_dir
from dynlora.viz.ui.url_state import put, to_address

SEEDS = "0..2"
"""Three seeds, the fewest on which a verdict is given."""


ADDRESS, NONE = "methods", "none"
"""Name in the address of the chosen methods, with commas, and what is there when none is chosen."""


def pick_experiment(strategies: Mapping[str, Mapping[str, Any]], start: Mapping[str, Any]) -> Experiment:
    """Draw the choice of methods, ranks and seeds and return it.

    Args:
        strategies: what the catalogue says of each strategy, by name.
        start: starting values by dotted key.

    Raises:
        ConfigError: when it names no runs, or too many.
    """
    known = experiment_model.methods(strategies, start)
    chosen = _methods(list(known), start.get("strategy.name"))
    left, right = st.columns(2)
    with left:
        rank = str(start.get("adapter.rank", form_model.config_field("adapter.rank").default))
        about = "Components per module before anything moves, such as 4, or a list such as 2, 4, 8. Key: adapter.rank."
        ranks = kept_text("Ranks", rank, "ranks", 60, about)
    with right:
        about = "A range such as 0..2, or a list such as 1, 5. A verdict needs three. Key: seed."
        seeds = kept_text("Seeds", SEEDS, "experiment-seeds", 60, about)
    experiment = Experiment([known[name] for name in chosen], experiment_model.ranks(ranks), form_model.seeds(seeds))
    return experiment_model.checked(experiment)


def _methods(options: Sequence[str], usual: Any) -> list[str]:
    """Draw the methods as chips and return those that are chosen, in the order shown."""
    start = [name for name in options if name in {*experiment_model.USUAL, usual}]
    addressed = set(st.query_params.get(ADDRESS, "").split(","))
    put("methods", [name for name in options if name in addressed] if addressed != {""} else start)
    about = "Every method gets the same rank, data, steps and seeds, and so the same adapter budget."
    chosen = st.pills(
        "Methods",
        options,
        selection_mode="multi",
        key="methods",
        help=about,
        on_change=lambda: _chosen([name for name in options if name in st.session_state["methods"]], start),
    )
    return [name for name in options if name in chosen]


def _chosen(methods: Sequence[str], start: Sequence[str]) -> None:
    """Write the chosen methods to the address; those that the form starts with need none."""
    to_address(**{ADDRESS: None if list(methods) == list(start) else ",".join(methods) or NONE})


def start_experiment(values: Mapping[str, Any], experiment: Experiment, missing: str = "") -> None:
    """Draw the button that queues all runs and leads to their comparison; a double click queues them once.

    Args:
        values: the values that all runs share, by dotted key.
        experiment: what varies.
        missing: what has to be given first, in a sentence; the button waits for it.
    """
    config, checks = experiment_model.base(values), plans(values, experiment)
    training, waiting = in_the_queue()
    if is_read_only():
        say_read_only()
    elif st.button(
        f"Start {experiment.n} run{'' if experiment.n == 1 else 's'}",
        type="primary",
        icon=":material/science:",
        key="start-experiment",
        disabled=bool(missing),
        help=missing or None,
    ):
        _queue(config, experiment)
    preflight_card.check_button(checks, missing, training)
    seconds = preflight_card.checked_seconds(checks)  # after the button: a check that was just made counts
    if seconds is None and (each := experiment_model.seconds_per_run(list_all(), config)) is not None:
        seconds = experiment.n * each
    note(missing or experiment_model.caption(experiment, seconds, training, waiting))


def _queue(config: Mapping[str, Any], experiment: Experiment) -> None:
    token = st.session_state.setdefault("launch_token", secrets.token_hex(8))
    key = launch_key(token, {"config": dict(config), "lists": experiment.lists})
    try:
        with st.spinner(f"Checking {experiment.n} runs; the first launch may download the model"):
            ids = enqueue_sweep(config, experiment.lists, runs_dir(), key=key)
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
        return
    st.session_state["launch_token"] = secrets.token_hex(8)
    st.switch_page("pages/compare.py", query_params={"runs": ",".join(ids)})


def example(values: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Return the configuration of the first run."""
    return experiment_model.configured(experiment_model.base(values), experiment, experiment.methods[0])


def plans(values: Mapping[str, Any], experiment: Experiment) -> list[preflight_card.Plan]:
    """Return what a check tries: one run of each method, at the first rank and seed."""
    config = experiment_model.base(values)
    return [
        preflight_card.Plan(
            experiment_model.label(method),
            experiment_model.configured(config, experiment, method),
            experiment.n_per_method,
        )
        for method in experiment.methods
    ]


def show_check(values: Mapping[str, Any], experiment: Experiment) -> None:
    """Draw what the check of each method said."""
    preflight_card.show_check(plans(values, experiment))


def show_command(values: Mapping[str, Any], experiment: Experiment) -> None:
    """Draw the file and the command that start the same experiment."""
    with card("Command line", "command"):
        left, right = st.columns([3, 2])
        left.code(f"dynlora sweep --config experiment.yaml --runs-dir {runs_dir()}", language="bash", wrap_lines=True)
        right.code(
            experiment_model.document(experiment_model.base(values), experiment), language="yaml", wrap_lines=True
        )
        note("Save the file as experiment.yaml. The results page is Compare with the runs that the command prints.")
