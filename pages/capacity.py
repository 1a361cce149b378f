"""Rank by module over time, and the rank transfers between modules."""

from __future__ import annotations

from pathlib import Path

from dynlora.analysis import ranks_to_use, retention, run_summary
from dynlora.store import queries
from dynlora.viz import adapter as adapter_cards
from dynlora.viz import capacity, knockout
from dynlora.viz.capacity import capacity_conclusion, ranks_card
from dynlora.viz.ui import cached_queries, cards, frame, live, run_picker, url_state


def shows(folder: Path) -> int:
    """Say how much there is to show of a run: nothing where no rank moved, more where its modules were ablated."""
    moved = run_picker.has_moved(folder)
    return moved and moved + (retention.kept(folder) is not None)


frame.enter()
url_state.keep_address()
if adapter_cards.adapter_in_address():
    adapter_cards.adapter_view()
run = run_picker.pick_run(without=adapter_cards.adapter_link, suits=shows)
url_state.remember_address()
with live.guarded():
    IS_ACTIVE = queries.run_summary(run.folder).status in run_summary.ACTIVE


@live.following(3, active=IS_ACTIVE)
def show_now() -> None:
    """Draw what changes with every step: the map and the model."""
    url_state.follow_address()
    with cached_queries.one_refresh():
        show_summary_and_map()


def show_summary_and_map() -> None:
    """Draw what the page shows, in a sentence, then the map and the model."""
    with live.guarded():
        summary = cached_queries.live_summary(run.folder, was_active=IS_ACTIVE)
        view = capacity.capacity_view(run.folder, summary)
    run_picker.run_views(run.id, summary, "capacity")
    cards.status_line(summary)
    if view is None:
        cards.note(run_summary.nothing_recorded(summary, "step", "The map appears after the first steps."))
        return
    with live.guarded():
        capacity_conclusion(capacity.as_addressed(view))
        capacity.live_cards(capacity.capacity_controls(view))


@live.following(15, active=IS_ACTIVE)
def show_decisions() -> None:
    """Draw what changes with the allocator's decisions, which come less often."""
    url_state.follow_address()
    with live.guarded(), cached_queries.one_refresh():
        view = capacity.capacity_view(run.folder, queries.run_summary(run.folder))
        if view is None:
            return
        capacity.decision_sections(capacity.as_addressed(view))


@live.fragment(run_every=None)
def show_knockouts() -> None:
    """Draw what ablations say of the scores, and the ranks to use; an ablation needs the trained model."""
    url_state.follow_address()
    with cached_queries.one_refresh():
        summary, modules = queries.run_summary(run.folder), cached_queries.modules(run.folder)
        if not len(modules) or not summary.step:
            return
        words = "Importance of each module: the loss without it, against the scores"
        with url_state.section("ablation", words, ("heldout", "score")) as is_open:
            if is_open:
                knockout.knockout_card(run, summary, modules)
        if ranks_to_use.are_final(summary):
            with url_state.section("ranks", "Ranks to use: by module kind, and as a LoraConfig") as is_open:
                if is_open:
                    ranks_card(run, summary)


show_now()
show_decisions()
show_knockouts()
adapter_cards.adapter_link()
