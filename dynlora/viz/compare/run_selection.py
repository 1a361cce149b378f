"""Which runs are compared: picked by hand, or all that a search fits; either way the address says it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import run_summary, seed_groups
from dynlora.analysis.pairing import same_task
from dynlora.analysis.seed_groups import Group, by_method
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import markdown_text, one_line, plural, source_name
from dynlora.viz.compare.scatter_model import Row
from dynlora.viz.kit.run_colours import LineStyle, eye_styles, line_styles, short_label
from dynlora.viz.runs import cards
from dynlora.viz.runs import table as runs_table
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import colours, in_row, note, safe
from dynlora.viz.ui.live import guarded
from dynlora.viz.ui.run_picker import MOST_TRIED, Chosen, empty_store, find_run, link, list_all, pick_runs
from dynlora.viz.ui.url_state import hidden_runs, hide, put

MOST_LIKE = 11
"""Most runs of the same task that are added to one that is alone."""

MOST_LOOKED_AT = 500
"""Most runs of the same task, the newest, that are looked through: with thousands of them the page would wait."""

SHOWN = ("finished", "running", "stopping")
"""Statuses of a run that a comparison can begin with: it has something to show."""

RunRow = Mapping[str, Any]


def default_runs(runs: pd.DataFrame) -> list[str]:
    """Return the ids of the runs to compare, the newest first; own ones where there is something to compare them with.

    First choice is the newest run, training or finished, that is no plain LoRA, beside plain LoRA on the same data, of
    the same length and with the same other settings; then the newest finished run beside another method on its task.
    Without either among one's own runs, the samples are looked through in the same way, methods with most seeds and the
    task with most runs first; last come the newest two.

    Args:
        runs: as `run_picker.list_all` returns them, those that can be read.
    """
    own, plain = runs[runs["is_own"]], _Plain()
    ids = next(_beside_plain(own, runs, plain), None) or _beside_another(own, runs)
    if ids:
        return ids
    repeated = runs.groupby(["model", "data", "max_steps", "strategy"])["id"].transform("size")
    repeated = runs.loc[repeated.sort_values(ascending=False, kind="stable").index]  # one seed decides nothing
    samples = list(_beside_plain(repeated, runs, plain))  # of several tasks: the one with most to see
    return max(samples, key=len) if samples else _beside_another(runs, runs) or runs["id"].head(2).tolist()


def left_alone(runs: pd.DataFrame, chosen: Sequence[str]) -> RunRow | None:
    """Return the newest own run that has something to show, where none of one's own is among the chosen runs."""
    own = runs[runs["is_own"] & runs["status"].isin(SHOWN)]
    if own.empty or own["id"].isin(chosen).any():
        return None
    return runs_table.plain_rows(own.head(1))[0]


def _beside_plain(among: pd.DataFrame, runs: pd.DataFrame, plain: _Plain) -> Iterator[list[str]]:
    """Yield, task by task, the newest run that is not plain LoRA with the runs like it, plain LoRA among them."""
    done, seen = runs[runs["status"] == "finished"], set[tuple[Any, ...]]()
    for run in runs_table.plain_rows(among[among["status"].isin(SHOWN)].head(MOST_TRIED)):
        task = (run["model"], run["data"], run["max_steps"])
        if task in seen or plain(run) is not False:
            continue
        alike = _like(done, run)
        baselines = [other for other in alike if plain(other)]
        if baselines:
            seen.add(task)
            yield [run["id"], *_most_in_common(run, alike, seed_groups.configuration(baselines[0]))]


def _beside_another(among: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """Return the newest finished run with those of its task, where one of them has another method."""
    done = runs[runs["status"] == "finished"]
    for run in runs_table.plain_rows(among[among["status"] == "finished"].head(MOST_TRIED)):
        alike = same_task(done, run)
        if (alike["strategy"] != run["strategy"]).any():
            return [run["id"], *alike["id"].head(MOST_LIKE)]
    return []


def _like(runs: pd.DataFrame, run: RunRow) -> list[RunRow]:
    """Return the newest runs on a run's task that differ from it in method and seed alone."""
    alike = runs_table.plain_rows(same_task(runs, run).head(MOST_LOOKED_AT))
    return [other for other in alike if not seed_groups.other_differences(run["config"], other["config"])]


def _most_in_common(run: RunRow, alike: Sequence[RunRow], baseline: str) -> list[str]:
    """Return the ids of the runs of the same configuration, of the baseline, and of those with as many common seeds.

    A method with fewer common seeds would make the comparison wider and no surer.
    """
    seeds: dict[str, set[Any]] = {}
    for other in (run, *alike):
        seeds.setdefault(seed_groups.configuration(other), set()).add(other["seed"])
    own = seeds[seed_groups.configuration(run)]
    common = {name: len(own & theirs) for name, theirs in seeds.items()}
    first = {baseline, seed_groups.configuration(run)}
    keys = first | {name for name in common if common[name] >= common[baseline]}
    similar = [other for other in alike if seed_groups.configuration(other) in keys]
    similar.sort(key=lambda other: seed_groups.configuration(other) not in first)  # the two sides are whole
    return [other["id"] for other in similar][:MOST_LIKE]


class _Plain:
    """Says whether a run is plain LoRA; None where it cannot be read or has no ranks yet. Each method is read once."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def __call__(self, run: RunRow) -> bool | None:
        method = json.dumps((run.get("config") or {}).get("strategy"), sort_keys=True, default=str)
        if method not in self._known:
            try:
                summary = cached_queries.ask(queries.run_summary, find_run(run["id"]).folder)
            except DynloraError:
                return None
            if not summary.ranks:
                return None
            self._known[method] = run_summary.is_uniform(summary)
        return self._known[method]


MOST_READ = 50
"""Most runs whose files are opened, for what the list does not say: curves, ranks, pairs."""

MOST_LISTED = 500
"""Most runs that are compared by what the list says of them."""


@dataclass(frozen=True)
class Selection:
    """The runs to compare.

    Attributes:
        rows: of the list, as plain values; all chosen runs.
        runs: the first of them, whose files are opened.
        summaries: of these, by id, as `queries.run_summary` returns them.
    """

    rows: Sequence[Mapping[str, Any]]
    runs: Sequence[Chosen]
    summaries: Mapping[str, RunSummary]


def select_runs() -> Selection:
    """Draw the search and the picker and return the chosen runs."""
    listed = list_all()
    if listed.empty:
        empty_store()
    readable = listed[listed["status"] != "corrupt"]
    with in_row("selection", "bottom"):
        text = cards.search_box("Search")
        ids = [] if text else _picked(readable)
    matches = cards.searched(readable, text)
    caption = _match_caption(len(matches), len(readable)) if text and matches is not None else ""
    cards.search_line(text, caption, is_sound=matches is not None)
    if matches is None:
        st.stop()
    if text:
        ids = matches["id"].tolist()[:MOST_LISTED]
    elif "runs" not in st.query_params:
        _say_own_is_alone(readable, ids)
    chosen = readable.set_index("id", drop=False).loc[ids]
    with guarded():
        return _without_damaged(runs_table.plain_rows(chosen), [find_run(run_id) for run_id in ids[:MOST_READ]])


def _without_damaged(rows: Sequence[Mapping[str, Any]], runs: Sequence[Chosen]) -> Selection:
    """Name the runs that cannot be read and return the others, for all sections of the page.

    Raises:
        DynloraError: when none of them can be read.
    """
    summaries, damaged = queries.readable(run.folder for run in runs)
    for sentence in damaged:
        st.warning(safe(sentence))
    left_out = {run.id for run in runs if run.folder not in summaries}
    return Selection(
        [row for row in rows if row["id"] not in left_out],
        [run for run in runs if run.id not in left_out],
        {run.id: summaries[run.folder] for run in runs if run.id not in left_out},
    )


def _say_own_is_alone(readable: pd.DataFrame, ids: Sequence[str]) -> None:
    """Say why samples are shown although there is a run of one's own, and lead to what it lacks."""
    alone = left_alone(readable, ids)
    if alone is None:
        return
    with in_row("own-alone"):
        note(f"Samples are shown: no other run is like yours, {one_line(alone['name'], 60)}.")
        link("pages/compare.py", "Give it a baseline", runs=alone["id"])


def _picked(readable: pd.DataFrame) -> list[str]:
    usual = [] if "runs" in st.query_params else default_runs(readable)  # it looks through many runs
    return pick_runs("Runs to compare", readable, MOST_READ, usual, _with_its_like(readable))


def _with_its_like(runs: pd.DataFrame) -> list[str]:
    """Return the run that is alone in the address with the runs of its task: alone it compares to nothing."""
    listed_ids = st.query_params.get("runs", "")
    alone = runs[runs["id"] == listed_ids]
    if alone.empty or "address-runs" in st.session_state:  # who took the others away wants it alone
        return []
    return [listed_ids, *_of_task(runs, alone)["id"].head(MOST_LIKE)]


def _of_task(runs: pd.DataFrame, alone: pd.DataFrame) -> pd.DataFrame:
    """Return the other runs of a run's task that have a result or will."""
    alike = same_task(runs, runs_table.plain_rows(alone)[0])
    return alike[alike["status"].isin(["finished", *run_summary.ACTIVE])]


def say_alone(selection: Selection) -> bool:
    """Say why nothing can be compared, link to what can, and return whether no other run is like the selected one.

    Args:
        selection: fewer than two runs.
    """
    if not selection.rows:
        note("Select two or more runs.")
        return False
    run, listed = selection.rows[0], list_all()
    alone = listed[listed["id"] == run["id"]]
    like, other = _of_task(listed, alone), _other_lengths(listed, run)
    name, task = one_line(run["name"], 60), f"{source_name(run['model'])} on {source_name(run['data'])}"
    if len(like):
        note(f"Only {name} is selected. {_others_are(len(like))} {task} for {run['max_steps']:,} steps, as it does.")
        _compare_with("Compare with the runs of its task", run, like)
        return False
    st.info(
        safe(f"There is nothing to compare {name} with: no other run trains {task} for {run['max_steps']:,} steps.")
    )
    if len(other):
        _compare_with(f"Compare with {plural(min(len(other), MOST_LIKE), 'run')} of other lengths", run, other)
    return True


def _others_are(n: int) -> str:
    return "One other run trains" if n == 1 else f"{n} other runs train"


def _other_lengths(runs: pd.DataFrame, run: Mapping[str, Any]) -> pd.DataFrame:
    """Return the finished runs on a run's model and data, whatever their length."""
    others = runs[(runs["id"] != run["id"]) & (runs["status"] == "finished")]
    return others[(others["model"] == run["model"]) & (others["data"] == run["data"])]


def _compare_with(label: str, run: Mapping[str, Any], others: pd.DataFrame) -> None:
    link("pages/compare.py", label, runs=",".join([run["id"], *others["id"].head(MOST_LIKE)]))


def _match_caption(matches: int, of: int) -> str:
    if matches > MOST_LISTED:
        return f"The newest {MOST_LISTED} of {matches:,} matching runs are compared; {of:,} runs in total."
    return f"{matches:,} of {plural(of, 'run')} match and are compared."


def say_how_many(selection: Selection) -> None:
    """Say that not all chosen runs are shown where files have to be opened."""
    if len(selection.rows) > len(selection.runs):
        note(
            f"The newest {len(selection.runs)} of {len(selection.rows)} runs are shown here, because each file has to "
            "be opened. Scatter plots, Sweeps and Results table show all."
        )


MOST_EYES = 24
"""Most groups that have an eye each."""


def visibility_toggles(groups: Sequence[Group], styles: Mapping[str, LineStyle]) -> None:
    """Draw an eye for each group, in its colour, that hides it from all charts; its runs stay chosen.

    Args:
        groups: all of them, those that are hidden too.
        styles: of those that are shown, by title.
    """
    hidden, keys = hidden_runs(), [group.oldest for group in groups]
    if not 1 < len(keys) <= MOST_EYES:
        return
    by_key = dict(zip(keys, groups, strict=True))
    open_keys = [key for key in keys if not hidden.issuperset(by_key[key].runs)] or keys
    put("eyes", open_keys)
    st.html(eye_styles([styles.get(group.title) for group in groups], colours()))
    st.pills(
        ":material/visibility: Shown in the charts",
        keys,
        selection_mode="multi",
        key="eyes",
        format_func=eye_labels(by_key).__getitem__,
        on_change=lambda: hide(run for key in {*keys} - {*st.session_state["eyes"]} for run in _runs(by_key[key])),
    )


def method_eyes(rows: Sequence[Row], *, coloured: bool = True) -> tuple[list[Row], dict[str, LineStyle]]:
    """Draw an eye for each method of many runs; return the rows that are shown, and the style of each method.

    Args:
        rows: of all runs that are compared.
        coloured: give each eye the method's colour; not where the lines are those of configurations.
    """
    groups, hidden = by_method(rows), hidden_runs()
    visible = [row for row in rows if row["id"] not in hidden] or list(rows)
    by_label = {group.label: group for group in groups}
    styles = line_styles(list(by_label), colours(), list(by_label), by_label)
    ids = {row["id"] for row in visible}
    seen = {group.title: styles[group.label] for group in groups if not ids.isdisjoint(group.runs)}
    visibility_toggles(groups, seen if coloured else {})
    return visible, styles


def _runs(group: Group) -> tuple[str, ...]:
    return (*group.runs, *group.repeats)


def eye_labels(groups: Mapping[str, Group]) -> dict[str, str]:
    """Return what is on each eye, no two alike: streamlit identifies them by that."""
    words = {key: markdown_text(short_label(group.title, 40), 60) for key, group in groups.items()}
    labels = list(words.values())
    return {key: one if labels.count(one) == 1 else f"{one} ({key[-4:]})" for key, one in words.items()}
