"""The cards of the Capacity page: what changes with every step, and what changes with the allocator's decisions."""

from __future__ import annotations

from dataclasses import replace

from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import ACTIVE
from dynlora.kinds.registry import registry
from dynlora.viz.capacity import conclusion as conclusions
from dynlora.viz.kit.panel import RunView
from dynlora.viz.ui.panel_cards import conclusion, panel_cards
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_picker import link


def capacity_conclusion(run: RunReading) -> None:
    """Draw what the page shows, in a sentence, and where to go next.

    Raises:
        DynloraError: when the run cannot be read.
    """
    state, run_id = replace(run, step=run.last).state, str(run.summary["id"])
    steps = (run.first, run.last, len(run.events_shown))
    words = conclusions.conclusion(state, run.ranks(run.first), *run.traced(), *steps)
    with conclusion(words, conclusions.outlook(run.summary, len(run.event_steps))):
        if run.summary["status"] not in ACTIVE:
            link("pages/run.py", "Did it help? Verdict on Run", run=run_id)
        if run.summary.get("planned_events") == 0:
            link("pages/launch.py", "Train it with a method that moves rank", **{"from": run_id})


def capacity_cards(run: RunReading, *, is_live: bool) -> None:
    """Draw the panels of a run's capacity.

    Args:
        run: with the choices of the reader.
        is_live: those that change with every step; else those that change with the allocator's decisions.

    Raises:
        DynloraError: when the run cannot be read.
    """
    panels = (one for one in registry()["train"].panels if one.part == "Capacity" and one.is_live == is_live)
    panel_cards(panels, RunView(run.folder, run, run.store), {"replay": replay})
