"""The card that says which ranks a run found, how sure that is, and hands them over as a LoraConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dynlora.analysis import ranks_to_use, ranks_to_use_text, seed_groups
from dynlora.analysis.pairing import same_task
from dynlora.analysis.run_reading import read_run
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.viz.knockout import figures as knockout_text
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, note, rows, safe, snippets, under
from dynlora.viz.ui.run_picker import Chosen, find_run, has_model, list_all

MOST_SEEDS = 10
"""Most other runs of the same configuration whose ranks are read."""


def ranks_of_run(run: Chosen, summary: RunSummary) -> ranks_to_use.Evidence | None:
    """Return the ranks that a run ended with; None before, or where it recorded none."""
    if not ranks_to_use.are_final(summary):
        return None
    reading = read_run(run.folder, cached_queries.CACHED, summary)
    return ranks_to_use.evidence_of(reading, _other_seeds(run, summary))


def ranks_card(run: Chosen, summary: RunSummary) -> None:
    """Draw the ranks of a run that has ended; nothing before, or where it recorded none.

    Args:
        run: the run.
        summary: as `queries.run_summary` returns it.
    """
    ranks, settings = ranks_of_run(run, summary), ranks_to_use.lora_settings(summary, summary["ranks"])
    if ranks is None or settings is None:
        return
    why_not = (
        "" if has_model(run.folder) else knockout_text.why_not(cached_queries.ask(queries.recorded_by, run.folder))
    )
    with card("Ranks to use", "ranks"):
        st.markdown(f"**{safe(ranks_to_use_text.headline(ranks))}**")
        note(ranks_to_use_text.confidence(ranks, why_not))
        kinds = ranks_to_use_text.kinds_table(ranks)
        rows(kinds)
        under(ranks_to_use_text.columns(kinds), ranks_to_use_text.modules_table(ranks), "ranks-by-module")
        snippets(ranks_to_use_text.snippets(settings), 250)


def _other_seeds(run: Chosen, summary: Mapping[str, Any]) -> list[Mapping[str, int]]:
    """Return the last ranks of the newest finished runs that differ in their seed alone, one for each seed."""
    alike = seed_groups.configuration(summary)
    ranks: dict[Any, Mapping[str, int]] = {}
    for row in plain_rows(same_task(list_all(), summary)):
        is_other = row["status"] == "finished" and row["seed"] != summary["seed"] and row["seed"] not in ranks
        if is_other and len(ranks) < MOST_SEEDS and seed_groups.configuration(row) == alike:
            last = _ranks(row["id"])
            if last:
                ranks[row["seed"]] = last
    return list(ranks.values())


def _ranks(run_id: str) -> Mapping[str, int]:
    """Return the last ranks of a run; none where it cannot be read, which is no reason to hide this one's."""
    try:
        return cached_queries.ask(queries.run_summary, find_run(run_id).folder)["ranks"]
    except DynloraError:
        return {}
