"""The card that says which ranks a run found, how sure that is, and hands them over as a LoraConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import ablations, ranks_to_use, ranks_to_use_text, seed_groups
from dynlora.analysis.measurement_files import knockout_file
from dynlora.analysis.pairing import same_task
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.store.knockouts import Knockouts
from dynlora.viz.knockout import figures as knockout_text
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, note, rows, safe, snippets, under
from dynlora.viz.ui.run_picker import Chosen, find_run, has_model, link, list_all

MOST_SEEDS = 10
"""Most other runs of the same configuration whose ranks are read."""


def ranks_card(run: Chosen, summary: Mapping[str, Any], here: str = "run") -> None:
    """Draw the ranks of a run that has ended; nothing before, or where it recorded none.

    Args:
        run: the run.
        summary: as `queries.run_summary` returns it.
        here: the page that it is drawn on: Capacity has the ablation itself.
    """
    modules = cached_queries.modules(run.folder)
    settings = ranks_to_use.lora_settings(summary, summary["ranks"])
    if summary["status"] not in ("finished", "stopped") or settings is None or modules.empty:
        return
    found = _evidence(run, summary, modules)
    can_be_ablated = has_model(run.folder)
    why_not = "" if can_be_ablated else knockout_text.why_not(cached_queries.ask(queries.recorded_by, run.folder))
    with card("Ranks to use", "ranks"):
        st.markdown(f"**{safe(ranks_to_use_text.headline(found))}**")
        is_far = here != "capacity"
        note(ranks_to_use_text.confidence(found, why_not, "on Capacity" if is_far else "above"))
        if not found.rows and can_be_ablated and is_far:
            link("pages/capacity.py", "Run the module ablation", run=run.id)
        kinds = ranks_to_use_text.kinds_table(found)
        rows(kinds)
        under(ranks_to_use_text.columns(kinds), ranks_to_use_text.modules_table(found), "ranks-by-module")
        snippets(ranks_to_use_text.snippets(settings), 250)


def _evidence(run: Chosen, summary: Mapping[str, Any], modules: pd.DataFrame) -> ranks_to_use.Evidence:
    knocked = Knockouts.read(knockout_file(run.folder))
    signals = ("delta_norm", "effective_rank")
    start = cached_queries.at_step(run.folder, "rank", None)
    norms = {name: cached_queries.at_step(run.folder, name, summary["step"]) for name in signals}
    return ranks_to_use.evidence(
        modules,
        summary["ranks"],
        start,
        ablations.effects(knocked, modules),
        0 if knocked is None else knocked.rows,
        norms,
        _other_seeds(run, summary),
    )


def _other_seeds(run: Chosen, summary: Mapping[str, Any]) -> list[Mapping[str, int]]:
    """Return the last ranks of the newest finished runs that differ in their seed alone, one for each seed."""
    alike = seed_groups.configuration(summary)
    found: dict[Any, Mapping[str, int]] = {}
    for row in plain_rows(same_task(list_all(), summary)):
        is_other = row["status"] == "finished" and row["seed"] != summary["seed"] and row["seed"] not in found
        if is_other and len(found) < MOST_SEEDS and seed_groups.configuration(row) == alike:
            ranks = _ranks(row["id"])
            if ranks:
                found[row["seed"]] = ranks
    return list(found.values())


def _ranks(run_id: str) -> Mapping[str, int]:
    """Return the last ranks of a run; none where it cannot be read, which is no reason to hide this one's."""
    try:
        return cached_queries.ask(queries.run_summary, find_run(run_id).folder)["ranks"]
    except DynloraError:
        return {}
