"""Which runs have ended since a tab was opened."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from dynlora.analysis.run_summary import ACTIVE
from dynlora.errors import DynloraError
from dynlora.store import queries, schema
from dynlora.store.active import active_ids
from dynlora.text import one_line
from dynlora.viz.kit.status import STATUS_WORDS
from dynlora.viz.ui.run_picker import runs_dir

WATCHED, ENDED = "watched-runs", "ended-runs"


def ended_runs() -> list[dict[str, str]]:
    """Return the own runs that were seen queued or running in this session and have ended: id, name and status."""
    watched: set[str] = st.session_state.setdefault(WATCHED, set())
    ended: dict[str, dict[str, str]] = st.session_state.setdefault(ENDED, {})
    for run_id in sorted(watched | set(active_ids(runs_dir()))):
        with suppress(DynloraError, OSError):
            summary = queries.run_summary(schema.run_folder(runs_dir(), run_id))
            if summary["status"] in ACTIVE:
                watched.add(run_id)
                ended.pop(run_id, None)
            elif run_id in watched:
                status = STATUS_WORDS.get(str(summary["status"]), str(summary["status"]))
                ended[run_id] = {"id": run_id, "name": one_line(summary["name"], 80), "status": status}
                watched.discard(run_id)
    return list(ended.values())
