"""The form that starts a sweep: a base, lists of values, and how many runs that makes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pandas as pd
import streamlit as st

from dynlora.config import DataConfig
from dynlora.errors import DynloraError
from dynlora.jobs import sweep
from dynlora.jobs.helper_job import HelperJob
from dynlora.jobs.sweep import arguments, count, listed, section_choices
from dynlora.store import queries
from dynlora.text import markdown_text
from dynlora.viz.launch import form_model, preflight_card
from dynlora.viz.launch.form import in_the_queue, kept_text
from dynlora.viz.launch.form_model import Experiment
from dynlora.viz.ui.cards import card, note
from dynlora.viz.ui.frame import say_read_only
from dynlora.viz.ui.live import announce, fragment, guarded
from dynlora.viz.ui.run_actions import sweep_once
from dynlora.viz.ui.run_picker import find_run, is_read_only, link, list_all, run_labels, runs_dir
from dynlora.viz.ui.url_state import put, segmented, to_address

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
    known = form_model.methods(strategies, start)
    chosen = _methods(list(known), start.get("strategy.name"))
    left, right = st.columns(2)
    with left:
        rank = str(start.get("adapter.rank", form_model.config_field("adapter.rank").default))
        about = "Components per module before anything moves, such as 4, or a list such as 2, 4, 8. Key: adapter.rank."
        ranks = kept_text("Ranks", rank, "ranks", 60, about)
    with right:
        about = "A range such as 0..2, or a list such as 1, 5. A verdict needs three. Key: seed."
        seeds = kept_text("Seeds", SEEDS, "experiment-seeds", 60, about)
    experiment = Experiment([known[name] for name in chosen], form_model.ranks(ranks), form_model.seeds(seeds))
    return form_model.checked(experiment)


def _methods(options: Sequence[str], usual: Any) -> list[str]:
    """Draw the methods as chips and return those that are chosen, in the order shown."""
    start = [name for name in options if name in {*form_model.USUAL, usual}]
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
    config, checks = form_model.base(values), plans(values, experiment)
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
        doing = f"Checking {experiment.n} runs; the first launch may download the model"
        _queue(config, experiment.lists, doing)
    preflight_card.check_button(checks, missing, training)
    seconds = preflight_card.checked_seconds(checks)  # after the button: a check that was just made counts
    if seconds is None and (each := form_model.seconds_per_run(list_all(), config)) is not None:
        seconds = experiment.n * each
    note(missing or form_model.caption(experiment, seconds, training, waiting))


def _queue(config: Mapping[str, Any], lists: Mapping[str, Any], doing: str) -> None:
    """Queue all runs of a sweep and lead to their comparison; a second press before that queues nothing more."""
    ids = sweep_once([(config, lists)], "sweep", doing)
    if ids is not None:
        st.switch_page("pages/compare.py", query_params={"runs": ",".join(ids)})


def example(values: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Return the configuration of the first run."""
    return form_model.configured(form_model.base(values), experiment, experiment.methods[0])


def plans(values: Mapping[str, Any], experiment: Experiment) -> list[preflight_card.Plan]:
    """Return what a check tries: one run of each method, at the first rank and seed."""
    config = form_model.base(values)
    return [
        preflight_card.Plan(
            form_model.label(method),
            form_model.configured(config, experiment, method),
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
        right.code(form_model.document(form_model.base(values), experiment), language="yaml", wrap_lines=True)
        note("Save the file as experiment.yaml. The results page is Compare with the runs that the command prints.")


SEARCH_EXAMPLE = "train.lr=5e-4..3e-2:log\nadapter.rank=2..16\nstrategy.name=lora,dynamic"
FAIR = "train.lr=5e-4..3e-2:log"
FAIR_EACH = "strategy.name=lora,dynamic"
OBJECTIVES = ("loss", *(name for name in get_args(DataConfig.model_fields["metric"].annotation) if name != "auto"))
PRESETS = {"any": "Any settings", "fair": "Tune learning rates fairly"}
POLL_S = 2.0
"""Seconds between two looks at a search that runs."""


def search_form(runs: pd.DataFrame) -> None:
    """Draw the form.

    Args:
        runs: the runs whose settings a search can start from, newest first.
    """
    preset = st.segmented_control(
        "Search",
        list(PRESETS),
        default="any",
        key="search-preset",
        format_func=PRESETS.__getitem__,
        required=True,
        help="Fairly: each method gets a study of its own with as many trials, over the same rates.",
    )
    left, right = st.columns(2)
    with left:
        base = _pick_base(runs, "search-base", "trials")
        lines = st.text_area(
            "Ranges and lists, one key per line",
            FAIR if preset == "fair" else SEARCH_EXAMPLE,
            key=f"search-lines-{preset}",
            height=122,
            max_chars=5000,
            help="A range 1e-4..1e-2:log, 0.0..0.3 or 1..16, or a list a,b,c. One value alone holds for all trials.",
        )
    with right:
        options = _options(preset)
    _start_search(base, lines, options)


def _pick_base(runs: pd.DataFrame, key: str, those: str) -> str:
    """Draw the choice of the settings that all runs share and return a run's id, empty for the defaults."""
    labels = run_labels(runs[~runs["status"].isin(["corrupt"])].head(200)) if len(runs) else {}
    return st.selectbox(
        "Settings of",
        ["", *labels],
        key=key,
        format_func=lambda run_id: labels.get(run_id, "Defaults"),
        help=f"Settings that all {those} share: those of a run, or the defaults.",
    )


def _options(preset: str) -> dict[str, Any]:
    """Draw the options of a search and return them by the command's names."""
    first, second = st.columns(2)
    with first:
        study = st.text_input(
            "Study",
            "rates" if preset == "fair" else "search",
            key=f"search-study-{preset}",
            max_chars=30,
            help="Its runs have this tag. A study of this name is continued: more trials are added to it.",
        )
        trials = st.number_input("Trials", 1, 1000, 20, key="search-trials", help="In all, earlier ones included.")
    with second:
        objective = st.selectbox("Objective", OBJECTIVES, key="search-objective")
        confirm = st.number_input(
            "Seeds to confirm",
            0,
            50,
            3,
            key="search-confirm",
            help="The best trial and the default are trained again with so many other seeds, and compared.",
        )
    each = st.text_input(
        "One study for each value of",
        FAIR_EACH if preset == "fair" else "",
        key=f"search-each-{preset}",
        max_chars=200,
        placeholder="strategy.name=lora,dynamic",
        help="Each value gets a study of its own with as many trials. Empty: one study.",
    )
    prunes = st.toggle("Stop trials that do worse than the median", True, key="search-prune")
    return {
        "study": study.strip(),
        "trials": int(trials),
        "objective": objective,
        "confirm": int(confirm),
        "each": each.strip(),
        "pruner": "median" if prunes else "none",
    }


def _start_search(base: str, lines: str, options: Mapping[str, Any]) -> None:
    """Show the command, and start the search when asked to."""
    try:
        lists = listed(lines)
        config = dict(queries.run_summary(find_run(base).folder).config) if base else {}
    except DynloraError as error:
        st.error(markdown_text(error, 2000))
        return
    config.pop("name", None)
    st.code(_command(base, lists, *arguments(options), "--search"), language="bash", wrap_lines=True)
    if not lists:
        st.caption("Write one key and its range, such as train.lr=5e-4..3e-2:log.")
        return
    st.caption(_size(options))
    if st.button("Start search", key="search-start", type="primary", icon=":material/search:"):
        with guarded():
            name = sweep.start(config, lists, options, runs_dir())
            announce(f"Search {name} has started", ":material/search:")
            st.rerun()


def _size(options: Mapping[str, Any]) -> str:
    """Say how many runs these are."""
    studies = len(options["each"].partition("=")[2].split(",")) if options["each"] else 1
    runs = studies * (options["trials"] + 1 + 2 * options["confirm"])
    each = f" in each of {studies} studies" if studies > 1 else ""
    return (
        f"{runs:,} runs, one after the other: {options['trials']} trials, the default values, and both again with "
        f"{options['confirm']} new seeds{each}."
    )


def _command(base: str, lists: Mapping[str, str], *options: str) -> str:
    """Return the same on the command line."""
    parts = ["dynlora", "sweep", *(["--config", str(find_run(base).folder / "config.yaml")] if base else [])]
    for key, values in lists.items():
        parts += ["--set", f"{key}={values}"]
    return shlex.join([*parts, *options, "--runs-dir", str(runs_dir())])


def show_searches() -> None:
    """Draw the state of the searches of this runs folder; nothing where none was started from a page."""
    jobs = sweep.searches(runs_dir())
    if not jobs:
        return
    with card("Searches", "searches"):
        for name, job in jobs.items():
            if job.status != "running":
                _ended(name, job)
        if any(job.status == "running" for job in jobs.values()):
            _running()


@fragment(run_every=POLL_S)
def _running() -> None:
    """Draw the searches that run, every two seconds; the page is drawn again when one ends."""
    now = {name: job for name, job in sweep.searches(runs_dir()).items() if job.status == "running"}
    if len(now) != st.session_state.get("searches-running", len(now)):
        st.session_state.pop("searches-running")
        st.rerun()
    st.session_state["searches-running"] = len(now)
    for name, job in now.items():
        phase = markdown_text(job.progress.phase, 200) or "loading"
        st.progress(job.progress.done / max(1, job.progress.of), f"**{markdown_text(name, 60)}**: {phase}")
        with st.container(horizontal=True, vertical_alignment="center", key=f"search-{name}"):
            _compare_link(name)
            if st.button(
                "Stop searching",
                icon=":material/stop:",
                key=f"search-stop-{name}",
                help="The run that trains continues. A search of this name continues.",
            ):
                sweep.cancel(runs_dir(), name)
                st.rerun()


def _ended(name: str, job: HelperJob) -> None:
    """Draw what a search came to, the conclusion first."""
    title = markdown_text(name, 60)
    if job.error is not None:
        st.error(f"**{title}**: {markdown_text(job.error.message, 2000)}")
        return
    lines = (job.message or f"stopped; {job.progress.phase or 'no trial has ended'}").splitlines()
    note(f"**{title}**: {markdown_text(lines[0], 400)}")
    if len(lines) > 1:
        with st.expander("Best values, and which settings mattered", key=f"search-said-{name}"):
            st.code("\n".join(lines[1:]).strip(), language="text", wrap_lines=True)
    _compare_link(name)


def _compare_link(name: str) -> None:
    """Draw the way to the runs of a search on Compare."""
    runs = list_all()
    if "tags" not in runs or not len(runs):
        return
    own = runs[[any(tag == name or tag.startswith(f"{name}-") for tag in tags or ()) for tags in runs["tags"]]]
    if len(own) > 1:
        ids = ",".join(own["id"].head(200))
        link("pages/compare.py", f"Compare its {len(own)} runs", runs=ids, section="sweeps")


WAYS = {"all": "All combinations", "search": "Search"}
EXAMPLE = "seed=0..2\nstrategy.name=lora,dynamic"


def sweep_form(runs: pd.DataFrame) -> None:
    """Draw the form; a sentence where the dashboard only looks.

    Args:
        runs: the runs whose settings a sweep can start from, newest first.
    """
    if is_read_only():
        say_read_only()
        return
    ways = segmented("sweep", "Values", WAYS)
    if ways == "search":
        search_form(runs)
        return
    left, right = st.columns(2)
    with left:
        base = _pick_base(runs, "sweep-base", "runs of the sweep")
        name = st.text_input(
            "Name", key="sweep-name", max_chars=120, help=("Prefix of the run names, before the values that vary.")
        )
    with right:
        lines = st.text_area(
            "Values, one key per line",
            EXAMPLE,
            key="sweep-lines",
            height=122,
            max_chars=5000,
            help="key=a,b,c or key=0..4. One run per combination. All are checked before the first is queued.",
        )
    _act(base, name.strip(), lines)


def _act(base: str, name: str, lines: str) -> None:
    """Say how many runs these are and queue them when asked to."""
    try:
        lists = listed(lines)
        n = count(section_choices(dict(lists)))
        config = dict(queries.run_summary(find_run(base).folder).config) if base else {}
    except DynloraError as error:
        st.error(markdown_text(error, 2000))
        return
    config["name"] = name or None
    st.code(_command(base, lists, *arguments({"name": name})), language="bash", wrap_lines=True)
    if not lists:
        st.caption("Write one key and its values, such as seed=0..2.")
    elif st.button(f"Queue {n} run{'' if n == 1 else 's'}", key="sweep-start", type="primary"):
        _queue(config, lists, "Checking every run of the sweep; the first may download the model")
