"""Is anything wrong with a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.analysis import health
from dynlora.analysis.health import Outcome
from dynlora.analysis.health_checks import PROBLEM, Finding
from dynlora.analysis.run_reading import read_run
from dynlora.text import markdown_text
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, note
from dynlora.viz.ui.run_picker import link

STEPS_AT_ONCE = 50
"""A running run is checked again this many times, and after each of its events."""


def health_card(folder: Path, summary: Mapping[str, Any]) -> None:
    """Draw the findings of a run, or that there are none.

    Raises:
        DynloraError: when the run cannot be read.
    """
    outcome = _outcome(folder, dict(summary), _version(folder, summary))
    with card("Health checks", "health"):
        if not outcome.findings:
            with st.container(horizontal=True, vertical_alignment="center", key="health-good"):
                _good(outcome, has_failed=summary["status"] == "failed")
        for number, finding in enumerate(outcome.findings):
            _row(finding, number, folder.name)
        for sentence in ([outcome.conclusion] if outcome.findings else []) + outcome.details:
            note(sentence)


def _good(outcome: Outcome, *, has_failed: bool) -> None:
    """Say that nothing was found, and whether all checks were possible yet; of a failed run only what was checked."""
    if has_failed:
        pass
    elif outcome.waiting and not outcome.is_over:
        st.badge("No problems so far", color="blue", icon=":material/hourglass_top:")
    else:
        st.badge("No problems", color="green", icon=":material/check:")
    note(outcome.conclusion)


def _row(finding: Finding, number: int, run_id: str) -> None:
    is_problem = finding.level == PROBLEM
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"health-{number}"):
        st.badge(
            finding.level,
            color="red" if is_problem else "orange",
            icon=":material/error:" if is_problem else ":material/info:",
        )
        st.markdown(f"**{markdown_text(finding.title)}.** {markdown_text(finding.words, 800)}", width="stretch")
        link(f"pages/{finding.page}.py", "Show", run=run_id, **finding.address)


def _version(folder: Path, summary: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what changes only now and then while a run trains, so that a refresh does not check it each time."""
    event, step, state, opened = cached_queries.version(folder)
    return event, step * STEPS_AT_ONCE // max(1, summary["max_steps"]), min(step, 1), state, opened


@st.cache_data(max_entries=200, ttl=3600, show_spinner=False)
def _outcome(folder: Path, _summary: Mapping[str, Any], version: tuple[Any, ...]) -> Outcome:
    return health.outcome(read_run(folder).evidence)
