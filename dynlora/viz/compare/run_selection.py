"""Which runs are compared: picked by hand, or all that a search fits; either way the address says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.viz.kit.text import plural
from dynlora.viz.runs import search_box
from dynlora.viz.runs import table as runs_table
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.frame import guarded
from dynlora.viz.ui.run_picker import MOST_TRIED, Chosen, empty_store, find_run, list_all, pick_runs

MOST_READ = 50
"""Most runs whose files are opened, for what the list does not say: curves, ranks, pairs."""

MOST_LIKE = 11
"""Most runs of the same task that are added to one that is alone."""

MOST_LISTED = 500
"""Most runs that are compared by what the list says of them."""


@dataclass(frozen=True)
class Selection:
    """The runs to compare.

    Attributes:
        rows: of the list, as plain values; all chosen runs.
        runs: the first of them, whose files may be opened.
    """

    rows: Sequence[Mapping[str, Any]]
    runs: Sequence[Chosen]


def select_runs() -> Selection:
    """Draw the search and the picker and return the chosen runs."""
    listed = list_all()
    if listed.empty:
        empty_store()
    readable = listed[listed["status"] != "corrupt"]
    with st.container(horizontal=True, gap="small", key="selection", vertical_alignment="bottom"):
        text = search_box.search_box("Search")
        ids = [] if text else _picked(readable)
    found = search_box.searched(readable, text)
    said = _match_caption(len(found), len(readable)) if text and found is not None else ""
    search_box.search_line(text, said, is_sound=found is not None)
    if found is None:
        st.stop()
    if text:
        ids = found["id"].tolist()[:MOST_LISTED]
    chosen = readable.set_index("id", drop=False).loc[ids]
    with guarded():
        return Selection(runs_table.plain_rows(chosen), [find_run(run_id) for run_id in ids[:MOST_READ]])


def _picked(readable: pd.DataFrame) -> list[str]:
    return pick_runs("Runs to compare", readable, MOST_READ, _usual(readable), _with_its_like(readable))


def _usual(runs: pd.DataFrame) -> list[str]:
    """Return the newest finished run of whose task another strategy has finished one, with all of them.

    Without such a run, the newest two.
    """
    done = runs[runs["status"] == "finished"]
    for run in runs_table.plain_rows(done.head(MOST_TRIED)):
        alike = runs_table.same_task(done, run)
        if (alike["strategy"] != run["strategy"]).any():
            return [run["id"], *alike["id"].head(MOST_LIKE)]
    return runs["id"].head(2).tolist()


def _with_its_like(runs: pd.DataFrame) -> list[str]:
    """Return the run that is alone in the address with the finished runs of its task: alone it compares to nothing."""
    wanted = st.query_params.get("runs", "")
    alone = runs[runs["id"] == wanted]
    if alone.empty or "address-runs" in st.session_state:  # who took the others away wants it alone
        return []
    alike = runs_table.same_task(runs, runs_table.plain_rows(alone)[0])
    return [wanted, *alike.loc[alike["status"] == "finished", "id"].head(MOST_LIKE)]


def _match_caption(found: int, of: int) -> str:
    if found > MOST_LISTED:
        return f"The newest {MOST_LISTED} of {found:,} matching runs are compared; {of:,} runs in total."
    return f"{found:,} of {plural(of, 'run')} match and are compared."


def say_how_many(selection: Selection) -> None:
    """Say that not all chosen runs are shown where files have to be opened."""
    if len(selection.rows) > len(selection.runs):
        note(
            f"The newest {len(selection.runs)} of {len(selection.rows)} runs are shown here, because each file has to "
            "be opened. Scatter plots, Sweeps and Results table show all."
        )
