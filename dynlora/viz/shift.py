"""Robustness tests of the Inputs page: the trained adapter on other text, and runs without a group."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dynlora import assets
from dynlora.analysis import inputs
from dynlora.analysis.inputs import inputs_of, told_apart
from dynlora.analysis.module_effects import LEAST_EXAMPLES
from dynlora.analysis.run_reading import read_run
from dynlora.analysis.seed_groups import launch_key
from dynlora.errors import DataError, DynloraError, system_message
from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import listed, metric_words, one_line, percent, plural, score, source_name
from dynlora.viz.inputs.view import loss_cards
from dynlora.viz.launch import data_check
from dynlora.viz.playground import figures as playground_figures
from dynlora.viz.playground.cards import run_task, token_card
from dynlora.viz.playground.model import Task
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, rows, safe, under
from dynlora.viz.ui.model_client import ask_model, prepare_model
from dynlora.viz.ui.run_picker import is_read_only, link, list_all, runs_dir
from dynlora.viz.ui.url_state import choose, from_where_it_started, put, section, segmented, several, to_address

KINDS = {
    "cut": "Truncated",
    "typos": "Typing errors",
    "dropped": "Missing words",
    "upper": "Upper case",
    "negated": "Negated",
}
"""Perturbations the inference child knows, and what people call them."""

STRENGTHS = {"cut": "Fraction removed", "negated": "Fraction of texts"}
"""What the strength of a perturbation is a fraction of; of the others it is a fraction of the words."""

FILE_SHARE = 0.5
"""Fraction of the rows of a single file that count as held out; the rest counts as training examples."""


def metric_table(states: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return metrics as rows, states as columns, with the change where there are two."""
    names = list(dict.fromkeys(name for state in states.values() for name in state["metrics"]))
    frame = pd.DataFrame(
        {title: [state["metrics"].get(name) for name in names] for title, state in states.items()}, dtype=float
    )
    frame.insert(0, "metric", names)
    if len(states) == 2:
        first, second = states
        frame["change"] = frame[second] - frame[first]
    return frame


def gate_frame(before: Mapping[str, Any], after: Mapping[str, Any], modules: pd.DataFrame) -> pd.DataFrame:
    """Return each module's mean gate in two states, in the order of `modules`: columns short, before, after."""
    if before.get("gate") is None or after.get("gate") is None:
        return pd.DataFrame({"short": [], "before": [], "after": []})
    order = modules["position"].to_numpy(int)
    sides = (np.array([np.nan if v is None else v for v in state["gate"]], dtype=float) for state in (before, after))
    first, second = (side[order] for side in sides)
    return pd.DataFrame({"short": modules["short"].to_numpy(), "before": first, "after": second})


def group_table(answer: Mapping[str, Any], summary: RunSummary) -> pd.DataFrame:
    """Return metrics of each input group: columns group, rows and the metrics; groups not trained on are marked."""
    names = told_apart(list(answer["groups"]), summary)
    parts = [("all", answer["whole"]), *zip(names, answer["groups"].values(), strict=True)]
    return pd.DataFrame([{"group": name, "examples": part["rows"], **part["metrics"]} for name, part in parts])


def group_gates(answer: Mapping[str, Any], summary: RunSummary, modules: pd.DataFrame) -> pd.DataFrame:
    """Return the mean gate of each group (rows) and module as recorded (columns); no rows without gates."""
    names = modules.sort_values("position")["name"].tolist()
    gates = [part["gate"] for part in answer["groups"].values()]
    if not gates or any(gate is None for gate in gates):
        return pd.DataFrame(columns=names)
    values = np.array([[np.nan if value is None else value for value in gate] for gate in gates], dtype=float)
    return pd.DataFrame(values, index=told_apart(list(answer["groups"]), summary), columns=names)


def group_gates_caption(gates: pd.DataFrame, modules: pd.DataFrame) -> str:
    """Return the sentence under the gates of the groups: where they differ most."""
    values = gates.to_numpy(float)
    if len(gates) < 2 or not np.isfinite(values).all():
        return "The mean gate of each module; 1 is neutral."
    place = int(np.ptp(values, axis=0).argmax())
    column = pd.Series(values[:, place], index=gates.index)
    module = one_line(modules.set_index("position")["short"].get(place, place), 40)
    return (
        f"The mean gates of the groups differ most in {module}: {one_line(column.idxmax(), 40)} "
        f"{column.max():.4f}, {one_line(column.idxmin(), 40)} {column.min():.4f} (1 is neutral)."
    )


SCORED = {
    "half": " Only the first half of each text is perturbed; the loss is that of the second half after it.",
    "completion": " Only what comes before a completion or an answer is perturbed; the loss is that of what follows.",
}
"""What is scored of texts that are written."""


def shift_caption(answer: Mapping[str, Any], metric: str) -> str:
    """Return the sentence under a perturbation."""
    known = answer["before"]["metrics"]
    metric = next((name for name in (metric, "perplexity") if name in known), metric)  # texts are not generated here
    before, after = known.get(metric), answer["after"]["metrics"].get(metric)
    words = KINDS.get(str(answer["kind"]), str(answer["kind"]))
    gates = gate_distance(answer["before"], answer["after"])
    moved = "" if gates is None else f" Gates change by {gates:.4f} on average."
    changed = f"{percent(answer['changed'])} of {plural(answer['before']['rows'], 'prediction')} change"
    blind = " The loss does not change: the tokenizer may ignore upper case." if _only_case(answer) else ""
    return (
        f"{one_line(words.capitalize(), 40)} ({percent(answer['strength'], 0)}): {metric_words(metric)} changes from "
        f"{score(before)} to "
        f"{score(after)}; {changed}.{moved}{blind}{SCORED.get(str(answer.get('scored')), '')}"
    )


def _only_case(columns: Mapping[str, Any]) -> bool:
    """Say whether texts that differ in their case alone leave the model quite unmoved."""
    pairs = [(example["before"], example["after"]) for example in columns.get("examples", [])]
    case = any(a != b for a, b in pairs) and all(a.casefold() == b.casefold() for a, b in pairs)
    first, second = (columns[state]["metrics"].get("loss") for state in ("before", "after"))
    same = first is not None and second is not None and abs(first - second) <= 1e-6 * max(1.0, abs(first))
    return case and same and not columns["changed"]


def gate_distance(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Return how far the mean gates of two states are apart, the mean over the modules; None without gates."""
    if before.get("gate") is None or after.get("gate") is None:
        return None
    pairs = [(a, b) for a, b in zip(before["gate"], after["gate"], strict=False) if a is not None and b is not None]
    return float(np.mean([abs(a - b) for a, b in pairs])) if pairs else None


def elsewhere_caption(own: Mapping[str, Any], other: Mapping[str, Any], name: str, metric: str) -> str:
    """Return the sentence under other data."""
    first, second = own["metrics"].get(metric), other["metrics"].get(metric)
    gates = gate_distance(own, other)
    moved = "" if gates is None else f" Gates differ by {gates:.4f} on average."
    return (
        f"{metric} is {score(first)} on {own['rows']:,} held-out examples of its own data and {score(second)} on "
        f"{other['rows']:,} of {one_line(name, 40)}.{moved}"
    )


def embedded_data(task: Task, own: str | None) -> dict[str, dict[str, Any]]:
    """Return the section `data` of each built-in data set that a model could be tried on, by its name.

    Args:
        task: of the run; where its labels are known they have to be the same.
        own: the run's own data, which is left out.
    """
    return {
        name: {"name": name}
        for name, data in assets.DATASETS.items()
        if name != own and not task.paired and task.kind in (None, "classification")
        if data.label_names and (not task.labels or tuple(sorted(data.label_names)) == task.labels)
    }


def source_labels(sources: Sequence[str]) -> dict[str, str]:
    """Return what a list shows for each source of data: its short name, or the whole where two share one."""
    short = {source: one_line(source_name(source), 60) for source in sources}
    times = Counter(short.values())
    return {source: words if times[words] == 1 else one_line(source, 500) for source, words in short.items()}


def file_section(path: Path, task: Task, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `data` for a file or folder of this machine, its columns called as the run's or guessed.

    Args:
        path: of a table, or of a folder with a training file.
        task: of the run.
        own: section `data` of the run.

    Raises:
        DataError: when there is no table, or none of its columns can be what the model reads.
    """
    try:
        table = data_check.table_of(path)
        is_missing = table is None and not path.exists()
    except OSError as error:
        raise DataError(system_message(error, str(path))) from None
    except ValueError as error:  # a NUL
        raise DataError(f"{path}: cannot be read ({error}); give another path") from None
    if is_missing:
        raise DataError(f"{path}: does not exist; check the path")
    if table is None:
        raise DataError(
            f"{path}: is not a CSV, TSV, JSON, Parquet or Excel file or a folder with a train file; give one of these"
        )
    rows = data_check.first_rows(table)
    guess = data_check.guessed(rows)
    section = {key: own[key] if own.get(key) in rows.columns else guess[key] for key in ("text", "text_pair", "label")}
    section["text_pair"] = section["text_pair"] if task.paired else None
    missing = [key for key, name in section.items() if name is None and (key != "text_pair" or task.paired)]
    if missing:
        raise DataError(f"{path}: has no column for data.{missing[0]}; rename a column to {missing[0]}")
    return {
        "path": str(path),
        **section,
        "task": task.kind or "auto",
        "group_by": "none",
        "eval_fraction": FILE_SHARE,
    }


LABS = {
    "text": "Perturbed text",
    "group": "Input groups",
    "data": "Other data",
    "train": "Train without a group",
}
"""What can be tried, and what people call it."""

MOST_SOURCES = 20
"""Data sets of other runs that are offered."""

FILE, HERE = "file", "A file on this machine"
"""What stands for a file in the address, and in the list."""


def shift_lab(folder: Path, summary: RunSummary, modules: pd.DataFrame, groups: Sequence[str]) -> None:
    """Draw the lab.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        modules: as `capacity.described` returns them.
        groups: names of the input groups.
    """
    with card("Robustness and distribution shift", "shift"):
        lab = segmented("lab", "Test", LABS)
        if lab == "text":
            _perturbed(folder, summary, modules)
        elif lab == "group":
            _groups(folder, summary, modules)
        elif lab == "data":
            _elsewhere(folder, summary, modules)
        else:
            _train_without(folder, summary, groups)


PERTURBATION = "perturbation"
"""Name in the address of the perturbation of texts; it was `kind`, which is that of modules on all views of a run."""

TOKEN_CONTROLS = ("example", "order", "token-colour", "token-step", "token-order")
SHIFT_CONTROLS = ("lab", PERTURBATION, "strength", "tried", "apart", "source", "path", "left")
"""Names in the address of what is chosen in the two parts that ask the model."""


def model_sections(folder: Path) -> None:
    """Draw openers of what the Inputs page asks the trained model: one example word by word, and the lab.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary = cached_queries.ask(queries.run_summary, folder)
    if not summary.step:
        return
    if st.query_params.get("kind") in KINDS:
        to_address(**{PERTURBATION: st.query_params["kind"], "kind": None})
    task = run_task(folder)
    writes = task is not None and task.writes
    words = "Loss by example and token" if writes else "Effect of each token"
    view = inputs_of(read_run(folder, cached_queries.CACHED, summary))
    with section("tokens", words, TOKEN_CONTROLS) as is_open:
        if is_open:
            prepare_model()
            if writes:
                loss_cards(view, has_best=(folder / "adapter-best").is_dir())
            else:
                token_card(view)
    with section("shift", "Robustness and distribution shift", SHIFT_CONTROLS) as is_open:
        if is_open:
            prepare_model()
            shift_lab(folder, summary, view.modules, view.names)


def _perturbed(folder: Path, summary: RunSummary, modules: pd.DataFrame) -> None:
    """Draw a perturbation of the held-out texts and what it does."""
    with in_row("shift-controls", "bottom"):
        kind = choose(PERTURBATION, "Perturbation", KINDS, width=220)
        strength = choose(
            "strength",
            STRENGTHS.get(kind, "Fraction of words"),
            (0.1, 0.25, 0.5, 0.75, 1.0),
            0.5,
            lambda share: f"{100 * share:.0f} %",
            width=160,
        )
        if not _switch("tried", "Evaluate perturbed text"):
            note("Evaluates the trained adapter on up to 512 held-out examples, original and perturbed.")
            return
    answer = ask_model(folder, "shift", kind=kind, strength=strength)
    if answer is None:
        return
    frame = metric_table({"original": answer["before"], "perturbed": answer["after"]})
    left, right = st.columns([2, 3])
    with left:
        rows(frame.round(4))
        _example_texts(answer["examples"])
    with right:
        _gates(answer["before"], answer["after"], modules, "shift-gates")
    under(shift_caption(answer, summary.metric or ""), frame, "shift")


def _example_texts(examples: Sequence[Mapping[str, str]]) -> None:
    """List some texts and what was made of them."""
    for example in examples:
        st.caption(safe(f"{one_line(example['before'], 90)} → {one_line(example['after'], 90)}"))


def _gates(before: Mapping[str, Any], after: Mapping[str, Any], modules: pd.DataFrame, key: str) -> None:
    """Draw how the gates move, or say that there are none."""
    frame = gate_frame(before, after, modules)
    if frame.empty:
        note("This run has no gates.")
        return
    caption = "Mean gate of each module on the original and the changed inputs."
    chart(playground_figures.gate_shift(frame, colours()), caption, frame, key)


def _switch(name: str, label: str) -> bool:
    """Draw a switch whose state lives in the address, and return it."""
    key = f"address-{name}"
    put(key, st.query_params.get(name) == "on")
    st.toggle(label, key=key, on_change=lambda: to_address(**{name: "on" if st.session_state[key] else None}))
    return bool(st.session_state[key])


def _groups(folder: Path, summary: RunSummary, modules: pd.DataFrame) -> None:
    """List metrics by group on the last adapter, and draw the gates that each group opens."""
    if not _switch("apart", "Evaluate each group"):
        note("Evaluates the trained adapter on up to 512 held-out examples, separately for each input group.")
        return
    answer = ask_model(folder, "by_group")
    if answer is None:
        return
    rows(group_table(answer, summary).round(4))
    gates = group_gates(answer, summary, modules)
    if gates.empty:
        note("This run has no gates." if answer["groups"] else "This run has no input groups.")
        return
    figure = playground_figures.group_gates(gates, modules, colours())
    named = gates[[part["rows"] >= LEAST_EXAMPLES for part in answer["groups"].values()]]
    chart(figure, group_gates_caption(named, modules), inputs.gate_table(gates), "apart-gates")


def _elsewhere(folder: Path, summary: RunSummary, modules: pd.DataFrame) -> None:
    """Evaluate on the held-out examples of data that another run was trained on, that is built-in, or that is here."""
    task = run_task(folder)
    if task is None:
        return
    sources = other_data(summary, task, list_all())
    words = {"": "Choose data", **source_labels(list(sources)), **({} if is_read_only() else {FILE: HERE})}
    if len(words) == 1:
        note("No data of other runs has the same label names as this run.")
        return
    name = choose("source", "Held-out examples of", words)
    section = _of_file(task, summary) if name == FILE else sources.get(name)
    if section is None:
        note(f"Only data with the same label names can be used: {task.words}.")
        return
    answer, own = ask_model(folder, "elsewhere", data=section), ask_model(folder, "by_group")
    if answer is None or own is None:
        return
    title = one_line(source_name(section.get("path") or section.get("name")), 40)
    title = title if title != "own data" else "other data"
    frame = metric_table({"own data": own["whole"], title: answer})
    rows(frame.round(4))
    _gates(own["whole"], answer, modules, "elsewhere-gates")
    under(elsewhere_caption(own["whole"], answer, title, summary.metric or ""), frame, "elsewhere")


def _of_file(task: Task, summary: RunSummary) -> dict[str, Any] | None:
    """Draw the path of a file of this machine and return its section `data`, None while there is none that fits."""
    put("address-path", st.query_params.get("path", ""))
    text = st.text_input(
        "Path on this machine",
        key="address-path",
        max_chars=500,
        on_change=_path_changed,
        help="CSV, TSV, JSON, Parquet or Excel, or a folder with train.* and validation.* files. Of a single "
        "file, half of the examples are used, at most 512.",
    ).strip()
    if not text:
        return None
    if text.startswith(("//", "\\\\")):  # another machine's: looking there would tell it who we are
        st.error("The path is on another machine. Copy the file to this machine.")
        return None
    try:
        return file_section(from_where_it_started(text), task, summary.config.get("data") or {})
    except RuntimeError:
        st.error("The path starts with an unknown user. Write the full path.")
        return None
    except DynloraError as error:
        st.error(safe(str(error)))
        return None


def _path_changed() -> None:
    to_address(path=st.session_state["address-path"].strip() or None)


def other_data(summary: RunSummary, task: Task, runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return sections `data` by their source: of other runs with the same task, then built-in; the run's own left out.

    Args:
        summary: of the run, as `queries.run_summary` returns it.
        task: of the run.
        runs: as `queries.list_runs` lists them.
    """
    sections: dict[str, dict[str, Any]] = {}
    others = runs[runs["data"].notna() & (runs["data"] != summary.data) & (runs["status"] != "corrupt")]
    for source, part in others.groupby("data", sort=False):
        section = part["config"].iloc[0].get("data")
        if isinstance(section, dict) and run_task(Path(str(part["folder"].iloc[0]))) == task:
            sections[str(source)] = section
        if len(sections) == MOST_SOURCES:
            break
    return embedded_data(task, summary.data) | sections


def _train_without(folder: Path, summary: RunSummary, groups: Sequence[str]) -> None:
    """Queue the same run on some groups alone; the others stay held out and are reported apart."""
    config = summary.config
    if len(groups) < 2 or (config.get("data") or {}).get("group_by") == "clusters":
        note("This needs at least two input groups that are known before training, such as a column of the data.")
        return
    if is_read_only():
        note("This dashboard is read-only. Start runs on the machine of the dashboard.")
        return
    trained = (config.get("data") or {}).get("train_groups")
    if trained:
        note(
            f"This run was trained on {listed(list(map(str, trained)), 6)} only; it has not seen the other "
            "groups in training."
        )
    left_out = several("left", "Groups to leave out of training", groups, {}, width="stretch", none="Choose groups")
    remaining = [name for name in groups if name not in left_out]
    if st.button("Train on the other groups", icon=":material/rocket_launch:", disabled=not left_out or not remaining):
        values = {**config, "name": f"{summary.name} without {listed(list(left_out), 3)}"[:200]}
        values["data"] = {**(config.get("data") or {}), "train_groups": remaining}
        try:
            with st.spinner("Checking the configuration"):
                token = st.session_state.setdefault("shift-token", secrets.token_hex(8))
                run = launch.enqueue(values, runs_dir(), key=launch_key(token, values))
        except DynloraError as error:
            st.error(safe(str(error)))
            return
        st.success("The run is queued. Its Inputs page will show the results on the groups it was not trained on.")
        link("pages/run.py", "Open run", run=run.id)  # on the page one is on the picker keeps its run
