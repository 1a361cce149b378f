"""Cards of the list of runs: the search box and saved views, groups side by side, and the queue."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import run_summary as kit_status
from dynlora.analysis.frames import csv_text, records
from dynlora.analysis.run_summary import STATUS_WORDS, format_strategy, main_metric
from dynlora.analysis.seed_groups import set_values
from dynlora.errors import DynloraError, SearchError
from dynlora.store.notes import (
    MAX_NAME_LENGTH,
    MAX_NOTE_LENGTH,
    MAX_QUERY_LENGTH,
    MAX_TAGS,
    View,
    annotate_notes,
    delete_view,
    read_views,
    save_view,
)
from dynlora.store.schema import command_text
from dynlora.store.search import unset_names
from dynlora.text import (
    listed,
    markdown_text,
    one_line,
    plotly_lines,
    plotly_text,
    plural,
    score,
    sentence_case,
    source_name,
)
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import axis_within
from dynlora.viz.kit.theme import Palette
from dynlora.viz.runs import table as runs_table
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, rows
from dynlora.viz.ui.panel_cards import conclusion
from dynlora.viz.ui.run_actions import delete_button, move_buttons, waiting_runs
from dynlora.viz.ui.run_picker import find_run, is_read_only, link, runs_dir, runs_root_of
from dynlora.viz.ui.url_state import choose, hidden_runs, hide, put, several, to_address

KEY = "address-q"
EXAMPLE = "strategy=dynamic and accuracy>0.85"
HELP = (
    "Words in the name, tags or note of a run, and comparisons of its settings and results: `train.lr>=1e-3`, "
    "`params.active<50000`, `data~sst`, `tag:paper`. Combine them with `and`, `or`, `not` and brackets."
)


def addressed_search() -> str:
    """Return the search that is in the address; empty when there is none."""
    return one_line(st.query_params.get("q", ""), MAX_QUERY_LENGTH)


def search_box(label: str = "Search") -> str:
    """Draw the box and return what is in it."""
    put(KEY, addressed_search())
    return st.text_input(
        label,
        key=KEY,
        placeholder=EXAMPLE,
        max_chars=MAX_QUERY_LENGTH,
        width=330,
        icon=":material/search:",
        help=HELP,
        on_change=lambda: to_address(q=st.session_state[KEY].strip() or None),
    ).strip()


def searched(runs: pd.DataFrame, text: str) -> pd.DataFrame | None:
    """Return the runs that a search fits; None when it cannot be read, after saying where and why.

    Args:
        runs: as `queries.list_runs` returns them.
        text: the search.
    """
    try:
        matches = runs_table.searched(runs, text)
    except SearchError as error:
        st.error(markdown_text(error, 800), icon=":material/search_off:")
        st.code(error.picture, language=None)
        return None
    unset = unset_names(text, records(runs[["config"]]))
    if unset:
        note(f"None of these runs has {listed([one_line(name, 60) for name in unset])}; check the spelling.")
    return matches


def compare_link(text: str, matches: int) -> None:
    """Draw the link that compares all runs that a search fits."""
    if text and matches > 1:
        link("pages/compare.py", f"Compare all {matches:,} matching runs", q=text)


def search_line(text: str, caption: str, *, is_sound: bool) -> None:
    """Draw the line under the search: what it found, the saved views as choices, what saves or forgets one.

    Args:
        text: the search that is shown.
        caption: what it found, in words; empty for nothing.
        is_sound: whether it can be read.
    """
    views = read_views(runs_dir())
    saved = next((view for view in views if view.query == text), None)
    can_save = bool(text) and is_sound and saved is None and not is_read_only()
    if not (caption or views or can_save):
        return
    with in_row("views"):
        if caption:
            st.caption(markdown_text(caption), width="content")
        if views:
            _choices(views, saved)
        if can_save:
            _save_view(text)
        if saved is not None and not is_read_only():
            _forget(saved)


def _choices(views: Sequence[View], saved: View | None) -> None:
    key = "address-view"
    queries = {view.name: view.query for view in views}
    put(key, None if saved is None else saved.name)
    st.pills(
        "Saved views",
        list(queries),
        key=key,
        format_func=lambda name: markdown_text(name, MAX_NAME_LENGTH),
        label_visibility="collapsed",
        on_change=lambda: to_address(q=queries.get(st.session_state[key] or "")),
    )


def _save_view(text: str) -> None:
    with st.popover("Save view", icon=":material/bookmark_add:", type="tertiary", key="save-view"):
        name = st.text_input("View name", key="view-name", max_chars=MAX_NAME_LENGTH)
        st.caption("Saved in the runs folder, for everyone who opens it.")
        if st.button("Save", key="view-save", type="primary"):
            _changed(lambda: save_view(runs_dir(), name, text))


def _forget(view: View) -> None:
    with st.popover("Delete view", icon=":material/bookmark_remove:", type="tertiary", key="forget-view"):
        st.caption("Deletes only the name and its search, not the runs.")
        if st.button("Delete", key="view-forget", type="primary"):
            _changed(lambda: delete_view(runs_dir(), view.name))


def _changed(change: Callable[[], object]) -> None:
    """Change views or notes and redraw the page; a refusal is shown as its sentence."""
    try:
        change()
    except (DynloraError, OSError) as error:
        st.error(markdown_text(error, 2000))
    else:
        st.rerun()


@dataclass(frozen=True)
class ListView:
    """What the address says of the list.

    Attributes:
        query: a search.
        statuses: statuses to show; empty is all.
        strategies: strategies to show; empty is all.
        sort: a key of `runlist.SORTS`.
        group: a key of `runlist.GROUPS`.
    """

    query: str
    statuses: tuple[str, ...]
    strategies: tuple[str, ...]
    sort: str
    group: str


def list_controls(runs: pd.DataFrame) -> ListView:
    """Draw the controls in a row that wraps and return what they say."""
    statuses = sorted(runs["status"].unique())
    strategies = sorted(name for name in runs["strategy"].unique() if isinstance(name, str))
    with in_row("filters", "bottom"):
        query = search_box()
        chosen = several("status", "Status", statuses, kit_status.STATUS_WORDS)
        methods = several("strategy", "Strategy", strategies, {})
        sort = choose("sort", "Sort", runs_table.SORTS, width=170)
        group = choose("group", "Group", runs_table.GROUPS, width=160)
    return ListView(query, chosen, methods, sort, group)


MAX_COMMANDS = 20
MAX_COMPARED = 50


def export_button(runs: pd.DataFrame) -> None:
    """Offer the rows of runs as files, and the command that writes each one's adapter."""
    with st.popover("Export", icon=":material/download:"):
        st.caption("Table of the selected runs:")
        with st.container(horizontal=True):
            st.download_button(
                "CSV",
                lambda: csv_text(runs_table.export_frame(runs)),
                "runs.csv",
                "text/csv",
                key="export-csv",
                on_click="ignore",
            )
            st.download_button(
                "JSON",
                lambda: runs_table.export_json(runs),
                "runs.json",
                "application/json",
                key="export-json",
                on_click="ignore",
            )
        st.caption("Commands that export the adapters for `peft.PeftModel.from_pretrained`:")
        chosen = runs["id"].tolist()[:MAX_COMMANDS]
        commands = [runs_table.export_command(run_id, str(runs_root_of(run_id))) for run_id in chosen]
        st.code("\n".join(commands), language="bash", wrap_lines=True)
        if len(runs) > MAX_COMMANDS:
            st.caption(f"The first {MAX_COMMANDS} of {len(runs):,} are listed.")


def tags_button(ticked: pd.DataFrame, known: Sequence[str]) -> None:
    """Offer to change the tags of the ticked runs, and the note of a single one.

    Args:
        ticked: rows of own runs.
        known: tags that any run has, as suggestions.
    """
    if is_read_only():
        return
    one = len(ticked) == 1
    with st.popover("Tags and note" if one else "Add tags", icon=":material/sell:"):
        before = list(ticked["tags"].iloc[0]) if one else []
        key = ticked["id"].iloc[0] if one else "many"
        tags = st.multiselect(
            "Tags",
            list(dict.fromkeys([*before, *known])),
            before,
            key=f"tags-{key}",
            accept_new_options=True,
            max_selections=MAX_TAGS,
            placeholder="Type a tag and press Enter",
        )
        note = None
        if one:
            note = st.text_area("Note", ticked["note"].iloc[0], key=f"note-{key}", max_chars=MAX_NOTE_LENGTH)
        if st.button("Save", key="save-notes", type="primary"):
            gone = [tag for tag in before if tag not in tags]
            folders = [find_run(run_id).folder for run_id in ticked["id"]]
            _changed(lambda: [annotate_notes(folder, add=tags, remove=gone, note=note) for folder in folders])


def show_note(runs: pd.DataFrame) -> None:
    """Show the note of the one ticked run, as it was typed."""
    note = runs["note"].iloc[0]
    if note:
        st.text(note)


def hidden_line(hidden: int) -> None:
    """Say how many runs are hidden, with the button that shows them again; nothing when none is."""
    if not hidden:
        return
    with in_row("hidden-line"):
        st.caption(f"{hidden:,} hidden.", width="content")
        if st.button("Show all", icon=":material/visibility:", key="show-hidden", type="tertiary"):
            hide(())
            st.rerun()


def ticked_runs(runs: pd.DataFrame, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Draw what can be done with the ticked runs: compare, export, tag, delete; the panel of a single one has the rest.

    Args:
        runs: the runs that are shown.
        chosen: ids of the ticked ones.
        known: tags that any run has.
    """
    rows = runs[runs["id"].isin(chosen)]
    own = rows[rows["is_own"]]
    with in_row("ticked"):
        if len(chosen) > 1:
            link("pages/compare.py", f"Compare {len(chosen)} runs", runs=",".join(chosen[:MAX_COMPARED]))
        if st.button("Hide", icon=":material/visibility_off:", key="hide", help="Leave out of the list and of charts."):
            hide({*hidden_runs(), *chosen})
            st.rerun()
        export_button(rows)
        if len(own):
            readable = own[own["status"] != "corrupt"]
            if len(readable):
                tags_button(readable, known)
            if len(chosen) > 1 or readable.empty:
                delete_button(own["id"].tolist())
    if len(chosen) == 1:
        show_note(rows)


LINE = 17
"""Pixels of a line of a group's name."""

MAX_GROUPS = 30
"""Most groups that are drawn; the table holds all."""


def group_strip(members: pd.DataFrame, summary: pd.DataFrame, metric: str, colours: Palette) -> go.Figure:
    """Draw each run of a group as a dot, the group's mean and the span of its runs beside them.

    Args:
        members: one row per run and group, as `runlist.grouped` returns them.
        summary: one row per group, as `runlist.group_summary` returns it.
        metric: name of the metric that is drawn.
        colours: the mode's colours.
    """
    groups = summary[summary["metric"] == metric].head(MAX_GROUPS)
    order = groups["group"].tolist()[::-1]
    labels = [plotly_lines(group, 22) for group in order]
    places = {group: place for place, group in enumerate(order)}
    lines = max((label.count("<br>") + 1 for label in labels), default=1)
    drawn = theme.figure(colours, 96 + max(34, 10 + LINE * lines) * len(order), left=150)
    dots = members[(members["metric"] == metric) & members["group"].isin(order)]
    drawn.add_scatter(
        x=dots["value"],
        y=[places[group] for group in dots["group"]],
        mode="markers",
        name="Single run",
        marker={"color": theme.faded(colours.accent, 0.45), "size": 9, "line": {"width": 0}},
        customdata=[plotly_text(name, 80) for name in dots["name"]],
        hovertemplate="%{customdata}<br>%{x:.3f}<extra></extra>",
    )
    drawn.add_scatter(
        x=groups["mean"],
        y=[places[group] for group in groups["group"]],
        mode="markers",
        name="Mean and range",
        marker={"color": colours.second, "size": 11, "symbol": "diamond"},
        error_x=theme.interval(groups["mean"], groups, colours.second, "lowest", "highest", thickness=1.6),
        customdata=[f"{score(mean)}, {n} run{'' if n == 1 else 's'}" for mean, n in _pairs(groups)],
        hovertemplate="Mean %{customdata}<extra></extra>",
    )
    drawn.update_yaxes(
        tickvals=list(range(len(order))), ticktext=labels, range=[-0.6, len(order) - 0.4], showgrid=False
    )
    drawn.update_xaxes(
        title_text=f"{plotly_text(sentence_case(metric), 40)} (held-out)", nticks=6, **axis_within(metric)
    )
    drawn.update_layout(showlegend=True)
    return drawn


def _pairs(groups: pd.DataFrame) -> list[tuple[float, int]]:
    return list(zip(groups["mean"].tolist(), groups["runs"].tolist(), strict=True))


def group_card(runs: pd.DataFrame, by: str) -> None:
    """Draw how the finished runs of each group did; nothing when runs are not grouped.

    Args:
        runs: the runs that are shown.
        by: a key of `runlist.GROUPS`.
    """
    if by == "none":
        return
    members = runs_table.grouped(runs, by)
    summary = runs_table.group_summary(members)
    words = runs_table.groups_caption(summary, len(runs) - members["id"].nunique())
    with card(f"Results {runs_table.GROUPS[by].lower()}", "groups"):
        if summary.empty:
            note(words)
            return
        metrics = summary["metric"].unique()
        figure = group_strip(members, summary, metrics[0], colours())
        chart(figure, words, summary, "groups")
        if len(metrics) > 1:
            rows(summary)


MOST_NAMES = 12
"""Most runs that are listed; the table above has all."""


def names_below(table: pd.DataFrame) -> None:
    """Draw the whole names as links, each with its dot, status and result; wide windows, whose table has them, do not.

    Args:
        table: as `table.runs_table` returns it, in the order shown.
    """
    with st.container(key="names"):
        st.html(f'<div class="dl-names">{"".join(map(line, records(table.head(MOST_NAMES))))}</div>')


def line(row: Mapping[str, Any]) -> str:
    """Return a run as a paragraph: markup, in which all text of the run is escaped."""
    result = "" if pd.isna(row["result"]) else f" · {row['metric']} {score(row['result'])}"
    about = f"{row['strategy'] or 'no strategy'} · {row['status']}{result}"
    return (
        f'<p><i style="background: {row["colour"]}"></i><a href="run?run={quote(row["id"], safe="")}" target="_self">'
        f"{escape(row['name'] or row['id'])}</a><small>{escape(about)}</small></p>"
    )


MOST_LISTED = 12
"""Most waiting runs that are listed; the list of runs has all."""


def queue_card(runs: pd.DataFrame) -> None:
    """Draw the queue; nothing while fewer than two runs wait.

    Args:
        runs: all runs, as `run_picker.list_all` returns them.
    """
    if (runs["status"] == "queued").sum() < 2:
        return
    names = dict(zip(runs["id"], runs["name"], strict=True))
    line = [run_id for run_id in waiting_runs() if run_id in names]
    if len(line) < 2:
        return
    with card(f"Queue: {plural(len(line), 'run')} waiting", "queue"):
        for place, run_id in enumerate(line[:MOST_LISTED], 1):
            with in_row(f"queue-line-{place}"):
                st.markdown(f"{place}. {markdown_text(names[run_id], 80)}", width="stretch")
                move_buttons(run_id, f"queue-{place}", line)
        if len(line) > MOST_LISTED:
            listing = command_text("queue", runs_dir=runs_dir())
            note(f"The next {MOST_LISTED} are listed. `{listing}` lists all, and moves any of them.")


MOST_COMPARED = 50
"""Most runs that the link to Compare holds."""


@dataclass(frozen=True)
class TaskResults:
    """What the finished runs of one task reached; which configuration to use is the verdict's to say.

    Attributes:
        name: of the strategy, where there is one configuration.
        means: mean result of each configuration.
        metric: that decides.
        task: model, data and length, in words.
        runs: ids of the finished runs of the task, newest first.
    """

    name: str
    means: Sequence[float]
    metric: str
    task: str
    runs: Sequence[str]


def runs_conclusion(runs: pd.DataFrame) -> None:
    """Draw the conclusion on the runs that are shown, with the link to their verdict."""
    finished = runs[runs["status"] == "finished"]
    own = finished[finished["is_own"]]
    results = task_results(plain_rows(own if len(own) else finished))
    words = standing(runs["status"].tolist())
    if results is None:
        with conclusion(words, "No run has finished with a result yet."):
            pass
        return
    then = "Compare says which to use: the verdict has the difference with its interval."
    with conclusion(f"{words} {sentence(results)}", then if len(results.means) > 1 else ""):
        if len(results.runs) > 1:
            label = f"Verdict on {plural(min(len(results.runs), MOST_COMPARED), 'run')}"
            link("pages/compare.py", label, runs=",".join(results.runs[:MOST_COMPARED]))


def standing(statuses: Sequence[str]) -> str:
    """Say how many runs there are in each status."""
    counts = Counter(statuses)
    parts = [f"{n} {STATUS_WORDS.get(status, status)}" for status, n in counts.most_common()]
    return f"{plural(len(statuses), 'run')}: {listed(parts, len(parts))}."


def sentence(results: TaskResults) -> str:
    """Say what the configurations reached, with the number of runs."""
    n, metric = len(results.runs), one_line(results.metric, 40)
    low, high = score(min(results.means)), score(max(results.means))
    if len(results.means) == 1:
        return f"On {results.task}, {results.name} reaches {metric} {low} (n = {n})."
    reach = f"all have mean {metric} {low}" if low == high else f"have mean {metric} from {low} to {high}"
    return f"On {results.task}, {len(results.means)} configurations {reach} ({plural(n, 'run')})."


def task_results(rows: Sequence[Mapping[str, Any]]) -> TaskResults | None:
    """Return the results on the task of most finished runs, of the newest where several have as many; None without.

    Args:
        rows: finished runs of the list as plain values, newest first.
    """
    tasks: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], float]]] = {}
    for row in rows:
        metric, value = main_metric(row)
        if metric and value is not None:
            tasks.setdefault((row["model"], row["data"], row["max_steps"], metric), []).append((row, float(value)))
    if not tasks:
        return None
    (model, data, steps, metric), members = max(tasks.items(), key=lambda item: len(item[1]))
    groups: dict[str, list[float]] = {}
    for row, value in members:
        groups.setdefault(_configuration(row), []).append(value)
    means = [sum(values) / len(values) for values in groups.values()]
    task = f"{one_line(source_name(data), 40)} with {one_line(source_name(model), 40)}, {steps:,} steps"
    name = one_line(format_strategy(members[0][0]), 60)
    return TaskResults(name, means, metric, task, [row["id"] for row, _ in members])


def _configuration(row: Mapping[str, Any]) -> str:
    """Return a text that runs share which differ in nothing but seed, name and log."""
    settings = {
        key: value
        for key, value in set_values(row.get("config") or {}).items()
        if key not in ("seed", "name") and not key.startswith("log.")
    }
    return json.dumps([row.get("strategy"), settings], sort_keys=True, default=str)
