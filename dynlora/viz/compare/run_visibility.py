"""Eyes: what Compare shows, each in its one colour, and a press that leaves it out of all charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from dynlora.analysis.seed_groups import Group, by_method
from dynlora.text import markdown_text
from dynlora.viz.compare.line_styles import LineStyle, eye_styles, line_styles, short_label
from dynlora.viz.compare.scatter_model import Row
from dynlora.viz.ui.cards import colours
from dynlora.viz.ui.hidden_runs import hidden_runs, hide
from dynlora.viz.ui.url_state import put

MOST_EYES = 24
"""Most groups that have an eye each."""


def eyes(groups: Sequence[Group], styles: Mapping[str, LineStyle]) -> None:
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
        ":material/visibility: Shown in the charts", keys, selection_mode="multi", key="eyes",
        format_func=eye_labels(by_key).__getitem__,
        on_change=lambda: hide(run for key in {*keys} - {*st.session_state["eyes"]} for run in _runs(by_key[key])),
    )  # fmt: skip


def method_eyes(rows: Sequence[Row], *, coloured: bool = True) -> tuple[list[Row], dict[str, LineStyle]]:
    """Draw an eye for each method of many runs; return the rows that are shown, and the style of each method.

    Args:
        rows: of all runs that are compared.
        coloured: give each eye the method's colour; not where the lines are those of configurations.
    """
    groups, hidden = by_method(rows), hidden_runs()
    shown = [row for row in rows if row["id"] not in hidden] or list(rows)
    by_label = {group.label: group for group in groups}
    styles = line_styles(list(by_label), colours(), list(by_label), by_label)
    ids = {row["id"] for row in shown}
    seen = {group.title: styles[group.label] for group in groups if not ids.isdisjoint(group.runs)}
    eyes(groups, seen if coloured else {})
    return shown, styles


def _runs(group: Group) -> tuple[str, ...]:
    return (*group.runs, *group.repeats)


def eye_labels(groups: Mapping[str, Group]) -> dict[str, str]:
    """Return what stands on each eye, no two alike: streamlit tells them apart by that."""
    words = {key: markdown_text(short_label(group.title), 40) for key, group in groups.items()}
    found = list(words.values())
    return {key: one if found.count(one) == 1 else f"{one} ({key[-4:]})" for key, one in words.items()}
