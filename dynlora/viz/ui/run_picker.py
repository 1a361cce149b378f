"""Which runs there are, which one a page shows, and questions to the store that are answered once per change."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitAPIException

from dynlora.analysis.frames import records
from dynlora.analysis.run_summary import ACTIVE, STATUS_WORDS, about, format_strategy, state_words
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RunNotFoundError
from dynlora.jobs.environment import MIRROR_VARIABLE
from dynlora.jobs.launch import in_queue
from dynlora.kinds.run_kind import registry
from dynlora.server.host_check import is_local
from dynlora.server.serve import sample_runs_dir
from dynlora.store import queries, schema
from dynlora.store.meta import TRAIN
from dynlora.store.summary import RunSummary
from dynlora.text import markdown_text, one_line
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import in_row, titled
from dynlora.viz.ui.url_state import put, to_address

RUNS_DIR_VARIABLE = "DYNLORA_RUNS_DIR"
READ_ONLY_VARIABLE = "DYNLORA_READ_ONLY"
MOST_TRIED = 30
"""Newest runs of one's own that are looked at for one that suits a page."""

VIEWS = {
    "run": "Result",
    "capacity": "Capacity",
    "inputs": "Inputs",
    "playground": "Playground",
    "shrink": "Shrink",
}
"""Pages that show one run, in the order of their links, and what the links say."""

SELECTION = ("module", "kind", "depth", "step", "steps", "points", "example")
"""Names in the address of what was selected in a run: links between its views carry them."""

UNLOCKED = "unlocked"
"""Key of the session that has given the token."""


@dataclass(frozen=True)
class Chosen:
    """The run a page shows.

    Attributes:
        id: its id.
        folder: its folder, checked to be in one of the runs folders.
        is_own: it is in the runs folder, not among the read-only samples.
    """

    id: str
    folder: Path
    is_own: bool


def runs_dir() -> Path:
    """Return the runs folder: what `dynlora ui --runs-dir` said, else `runs`."""
    return Path(os.path.realpath(os.environ.get(RUNS_DIR_VARIABLE) or "runs"))


def serves_others() -> bool:
    """Say whether other machines reach the dashboard: `dynlora ui` says so, else the address that streamlit binds.

    Without an address it binds all of the machine's.
    """
    return bool(os.environ.get(READ_ONLY_VARIABLE)) or not is_local(str(st.get_option("server.address") or ""))


def mirror_of() -> str:
    """Return the address of the runs that the dashboard shows a copy of; empty where it shows runs of this machine."""
    return os.environ.get(MIRROR_VARIABLE, "")


def is_read_only() -> bool:
    """Say whether the page may only look: where other machines reach it, until a token is given."""
    return serves_others() and not st.session_state.get(UNLOCKED)


def runs_roots() -> list[Path]:
    """Return the folders that are looked into: the runs folder, then the samples."""
    try:
        samples = Path(os.path.realpath(sample_runs_dir()))
    except FileNotFoundError:
        return [runs_dir()]
    return [runs_dir()] if samples == runs_dir() else [runs_dir(), samples]


Others = Mapping[str, Callable[[Path], bool]]
"""Kinds that a page shows beside its own, and what says of a run's folder whether it does."""


def list_all(kinds: Collection[str] | None = (TRAIN,), others: Others = MappingProxyType({})) -> pd.DataFrame:
    """Return all runs, newest first, own ones before samples; column `is_own` is added.

    Args:
        kinds: of the runs to return, names of kinds; None for all.
        others: further kinds, as far as their folders fit.
    """
    runs = queries.list_runs(runs_roots(), kinds if kinds is None else (*kinds, *others))
    both = zip(runs["kind"], runs["folder"], strict=True)
    fits = [kind not in others or others[kind](Path(folder)) for kind, folder in both]
    runs = runs[np.array(fits, dtype=bool)].copy()
    root = str(runs_dir())
    runs["is_own"] = [os.path.dirname(folder) == root for folder in runs["folder"]]
    return runs.sort_values("is_own", ascending=False, kind="stable").drop_duplicates("id").reset_index(drop=True)


def askable() -> Others:
    """Return the kinds beside trainings whose model answers on the Playground, and what says that it is there."""
    return {
        name: kind.has_model
        for name, kind in registry().items()
        if not kind.allocates and kind.trial is not None and not kind.trial.tab
    }


def has_model(folder: Path) -> bool:
    """Say whether a run kept an adapter that could be loaded."""
    return any((folder / name).is_dir() for name in ("adapter", "checkpoint"))


def active_among(runs: pd.DataFrame) -> int:
    """Return how many of the listed runs can change by themselves."""
    return int(runs["status"].isin(ACTIVE).sum())


def count_active() -> int:
    """Return how many own runs train or wait; 0 where the runs folder cannot be read."""
    with suppress(DynloraError, OSError):
        return sum(in_queue(runs_dir()))
    return 0


def find_run(run_id: str) -> Chosen:
    """Return the run of an id that came from an address.

    Raises:
        ConfigError: when it cannot be the id of a run.
        RunNotFoundError: when no folder holds it.
    """
    for root in runs_roots():
        try:
            return Chosen(run_id, schema.run_folder(root, run_id), root == runs_dir())
        except RunNotFoundError:
            continue
    raise RunNotFoundError(f"there is no run {run_id!r}: select another run")


def runs_root_of(run_id: str) -> Path:
    """Return the runs folder that holds a run whose id came from the list."""
    return find_run(run_id).folder.parent


def is_known(run_id: str) -> bool:
    """Say whether one of the runs folders holds a run of this id."""
    with suppress(DynloraError):
        return find_run(run_id).folder.is_dir()
    return False


def run_labels(runs: pd.DataFrame) -> dict[str, str]:
    """Return what a list shows for each run id: its name, and its strategy where the name does not say it.

    No status, which would grow old. Of equal words each has its model, and if that is the same too the end of the id:
    streamlit tells the options of a list apart by what it shows.
    """
    labels, with_model = {}, {}
    for row in records(runs[["id", "name", "strategy", "status", "model", "is_own"]]):
        is_named = isinstance(row["strategy"], str)
        about = one_line(format_strategy(row) if is_named else STATUS_WORDS.get(row["status"], row["status"]), 40)
        name = one_line(row["name"], 60)
        parts = [name] if is_named and about in name.replace(",", " ").split() else [name, about]
        labels[row["id"]] = " · ".join(parts if row["is_own"] else [*parts, "sample"])
        with_model[row["id"]] = " · ".join(
            [*parts, one_line(row["model"] if isinstance(row["model"], str) else "no model", 40)]
        )
    labels = _told_apart(labels, with_model)
    return _told_apart(labels, {run: f"{words} · {run[-8:]}" for run, words in labels.items()})


def _told_apart(labels: Mapping[str, str], longer: Mapping[str, str]) -> dict[str, str]:
    """Return labels by run id, the longer ones of those that are equal."""
    times = Counter(labels.values())
    return {run: words if times[words] == 1 else longer[run] for run, words in labels.items()}


def pick_run(
    label: str = "Run",
    without: Callable[[], None] | None = None,
    suits: Callable[[Path], int] | None = None,
    page: str = "run",
    others: Others = MappingProxyType({}),
) -> Chosen:
    """Draw the picker and return the chosen run; without any run, or one that opens, say so and end the page.

    Args:
        label: of the picker, for screen readers.
        without: draws what the page can do without any run.
        suits: says how much the page has to show of the run in a folder, 0 for nothing. Where neither the address nor
            this session names a run, the newest of one's own with something to show comes first, then the sample with
            the most.
        page: whose kinds of run are offered; a link to a run of another kind leads to the page of that kind.
        others: further kinds that the page shows, as far as their folders fit.
    """
    _lead_to_its_page(page, others)
    runs = list_all(kinds_of_page(page), others)
    if runs.empty:
        empty_store(without)
    words = run_labels(runs)
    remembered = st.session_state.get(f"last_{page}")
    is_default = remembered is None and "run" not in st.query_params
    run_id = st.query_params.get("run") or (remembered if remembered in words else _first(runs, suits))
    chosen, problem = _opened(run_id)
    if chosen is not None and chosen.id not in words:
        words = {chosen.id: chosen.id, **words}
    put("address-run", chosen.id if chosen else None)
    with in_row(f"head-of-{page}"):
        if page in VIEWS and chosen is not None and problem is None:
            titled(dict(zip(runs["id"], runs["name"], strict=True)).get(chosen.id, chosen.id))
        st.selectbox(
            label,
            list(words),
            key="address-run",
            format_func=words.__getitem__,
            label_visibility="collapsed",
            on_change=_other_run,
            placeholder="Select another run",
        )
    if chosen is None or problem is not None:
        cannot_open(problem)
    if chosen.id not in set(runs["id"][runs["kind"].isin(list(others))]):
        st.session_state[f"last_{page}"] = chosen.id
        if is_default and page in VIEWS and st.session_state.get(IN_MENU, chosen.id) != chosen.id:
            st.rerun()  # the menu, which is drawn before, has another name
    return chosen


IN_MENU = "run-in-menu"
"""Key of the session: id of the run that the menu leads to."""


def run_in_menu(page: str) -> tuple[str, str]:
    """Return id and name of the run that the menu leads to: the one that is looked at, was looked at last, or is first.

    Without any run the id is empty.

    Args:
        page: the current one; only those of `VIEWS` have a run of theirs in the address.
    """
    kinds = kinds_of_page("run")
    for run_id in (st.query_params.get("run") if page in VIEWS else None, st.session_state.get("last_run")):
        name = _name_of(run_id, kinds) if run_id else None
        if name is not None:
            break
    else:
        runs = list_all(kinds)
        run_id = "" if runs.empty else _first(runs, None)
        name = _name_of(run_id, kinds) or "Run"
    st.session_state[IN_MENU] = run_id
    return str(run_id), name


def _name_of(run_id: str, kinds: Collection[str]) -> str | None:
    """Return the name of a run; None where there is none, it cannot be read, or it is of another kind."""
    with suppress(DynloraError, OSError):
        summary = cached_queries.ask(queries.run_summary, find_run(run_id).folder)
        return one_line(summary.name, 120) if summary.kind in kinds else None
    return None


def page_of(kind: str) -> str | None:
    """Return the file of the page that shows a kind of run; None for a kind that this version does not know."""
    known = registry().get(kind)
    return None if known is None else f"pages/{known.page}.py"


def kinds_of_page(page: str) -> tuple[str, ...]:
    """Return the kinds of run that a page shows."""
    return tuple(name for name, kind in registry().items() if kind.page == page)


def _lead_to_its_page(page: str, others: Others) -> None:
    """Open the page of the kind that the run in the address is of, where it is none that this page shows."""
    chosen, problem = _opened(st.query_params.get("run") or "")
    if chosen is None or problem is not None:
        return
    try:
        kind = queries.run_kind(chosen.folder)
    except (DynloraError, OSError):  # the page itself says what is wrong with it
        return
    if kind in kinds_of_page(page) or (kind in others and others[kind](chosen.folder)):
        return
    own_page = page_of(kind)
    if own_page is None:
        cannot_open(CorruptRunError(f"run {chosen.id}: this version does not know its kind; open it with a newer one"))
    st.switch_page(own_page, query_params={"run": chosen.id})


def has_moved(folder: Path) -> int:
    """Say whether rank moved between the modules of a run: 0 where none did, or the run cannot be read.

    It is 2 where the adapter is there, so that its modules can be ablated.
    """
    try:
        ranks = list(cached_queries.ask(queries.run_summary, folder).ranks.values())
        start = cached_queries.at_step(folder, "rank", None)
    except DynloraError:
        return 0
    if start is None or len(set(ranks)) == 1 or np.array_equal(start, ranks):
        return 0
    return 1 + has_model(folder)


def _first(runs: pd.DataFrame, suits: Callable[[Path], int] | None) -> str:
    """Return the run that a page begins with, as `pick_run` describes; the newest that can be read where none suits.

    A page that shows every run begins with the newest of one's own, and with a sample in which rank moved without any.
    """
    readable = runs[runs["status"] != "corrupt"]
    newest = (readable["id"].tolist() or runs["id"].tolist())[0]
    if suits is None and readable["is_own"].any():
        return newest
    suits = suits or has_moved
    own, samples = readable[readable["is_own"]].head(MOST_TRIED), readable[~readable["is_own"]]
    for run_id, folder in zip(own["id"], own["folder"], strict=True):
        if suits(Path(folder)):
            return run_id
    suitability = [
        (suits(Path(folder)), run_id) for run_id, folder in zip(samples["id"], samples["folder"], strict=True)
    ]
    most, run_id = max(suitability, key=lambda item: item[0], default=(0, newest))
    return run_id if most else newest


def _opened(run_id: str) -> tuple[Chosen | None, DynloraError | None]:
    """Return the run of an id from an address, and what is wrong with it."""
    chosen = None
    try:
        chosen = find_run(run_id)
        queries.version_key(chosen.folder)
    except DynloraError as error:
        return chosen, error
    return chosen, None


def cannot_open(problem: DynloraError | None) -> NoReturn:
    """Say why a run cannot be opened and where to go from here, then end the page."""
    missing = isinstance(problem, RunNotFoundError | ConfigError)
    if missing:
        titled("Run not found", "The link may be out of date. Select another run above.")
    else:
        titled("This run cannot be opened", "It is not changed. Select another run above.")
    st.error(markdown_text(problem, 2000), icon=":material/search_off:" if missing else ":material/broken_image:")
    link("pages/runs.py", "All runs")
    st.stop()


def _other_run() -> None:
    """Write the chosen run to the address; module and step stay, where the other run has them."""
    to_address(run=st.session_state["address-run"])


def pick_runs(
    label: str, runs: pd.DataFrame, at_most: int, usual: Sequence[str], instead: Sequence[str] = ()
) -> list[str]:
    """Draw a picker of several runs and return the ids of those chosen; the address holds them.

    Args:
        label: of the picker.
        runs: to pick from.
        at_most: runs that can be picked.
        usual: ids that are picked when the address says nothing.
        instead: ids that take the place of those in the address, if any.
    """
    words = run_labels(runs)
    if len(instead) > 1:
        to_address(runs=",".join(instead))
    listed_ids = st.query_params.get("runs")
    ids = listed_ids.split(",") if listed_ids is not None else usual
    put("address-runs", [run_id for run_id in ids if run_id in words][:at_most])
    st.multiselect(
        label,
        list(words),
        key="address-runs",
        format_func=words.__getitem__,
        max_selections=at_most,
        on_change=lambda: to_address(runs=",".join(st.session_state["address-runs"])),
    )
    return list(st.session_state["address-runs"])


def empty_store(without: Callable[[], None] | None = None) -> NoReturn:
    """Say that there are no runs yet and what to do, then end the page; `without` as in `pick_run`."""
    no_runs()
    if without is not None:
        without()
    st.stop()


def no_runs() -> None:
    """Say that there are no runs yet and what to do."""
    start = schema.command_text("train", runs_dir=runs_dir())
    st.info(f"There are no runs yet. Launch a run here, or run `{start}` in a terminal.")
    link("pages/launch.py", "Launch a run")


def link(page: str, label: str, **params: str) -> None:
    """Draw a link to a page with values in its address; left out where the pages are not registered."""
    try:
        st.page_link(page, label=label, query_params=params or None)
    except (KeyError, StreamlitAPIException):
        st.caption(label)


def links(run_id: str) -> None:
    """Draw the links from a list of runs to the views of one, and to its comparison."""
    with in_row("links-of-run", "top"):
        for page, label in VIEWS.items():
            link(f"pages/{page}.py", label, run=run_id)
        link("pages/compare.py", "Compare", runs=run_id)


def run_views(run_id: str, summary: RunSummary, here: str) -> None:
    """Draw what follows the name of a run: a line about it, and the row of its views.

    Args:
        run_id: of the run.
        summary: as `queries.run_summary` returns it.
        here: the view that is drawn; empty for a run of another kind, which has no such views.
    """
    parts = [part for part in about(summary).split(" · ") if part not in summary.name]
    words = markdown_text(" · ".join([*parts, state_words(summary)]), 400)
    if not here:
        st.caption(words)
        return
    selection = {name: st.query_params[name] for name in SELECTION if name in st.query_params}
    with in_row("line-of-run"):
        st.caption(words, width="stretch")
        views = in_row("views-of-run", "top", gap="medium", width="content")
    with views:
        for page, label in VIEWS.items():
            with st.container(width="content", key=f"view-here-{page}" if page == here else f"view-{page}"):
                link(f"pages/{page}.py", label, run=run_id, **selection)
