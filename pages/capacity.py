"""Where does capacity sit, step by step, and who gave to whom?"""

from __future__ import annotations

from dynlora.store import queries
from dynlora.viz import ui as widgets
from dynlora.viz.adapter import cards as adapter_view
from dynlora.viz.kit import run_summary as listing

widgets.enter()
widgets.keep_address()
if adapter_view.adapter_in_address():
    adapter_view.adapter_view()
run = widgets.pick_run(without=adapter_view.adapter_link)
widgets.remember_address()
with widgets.guarded():
    IS_ACTIVE = queries.run_summary(run.folder)["status"] in listing.ACTIVE


@widgets.following(3, active=IS_ACTIVE)
def show_now() -> None:
    """Draw what changes with every step: the map and the model."""
    widgets.follow_address("signal", "rows", "flow")
    with widgets.guarded():
        summary = widgets.live_summary(run.folder, was_active=IS_ACTIVE)
        view = widgets.capacity_view(run.folder, summary)
    widgets.titled(f"Capacity: {summary['name']}", listing.about(summary))
    widgets.status_line(summary)
    if view is None:
        widgets.note("No ranks have been recorded yet. The map appears with the first steps.")
        return
    widgets.figures(listing.headline(summary, len(view.events)))
    with widgets.guarded():
        view = widgets.capacity_controls(view)
        widgets.capacity_now(view)


@widgets.following(15, active=IS_ACTIVE)
def show_decisions() -> None:
    """Draw what changes with the allocator's decisions, which come less often."""
    widgets.follow_address("signal", "rows", "flow")
    with widgets.guarded():
        view = widgets.capacity_view(run.folder, queries.run_summary(run.folder))
        if view is None:
            return
        widgets.capacity_decisions(widgets.as_addressed(view))


def show_knockouts() -> None:
    """Draw what knocking modules out says of the scores; needs the trained model."""
    with widgets.guarded():
        summary, modules = queries.run_summary(run.folder), widgets.modules(run.folder)
        if len(modules) and summary["step"]:
            widgets.knockout_card(run, summary, modules)


show_now()
show_decisions()
show_knockouts()
widgets.links(run.id, here="capacity")
adapter_view.adapter_link()
