"""One adapter made of finished runs: a meta-LoRA of classifiers, a student of runs that write, or a merge."""

from __future__ import annotations

from dynlora.viz.kinds import KindPage, start_form
from dynlora.viz.ui import cached_queries, live

PAGE = KindPage("recycle")
run, IS_ACTIVE = PAGE.picked(start_form)


@live.following(3, active=IS_ACTIVE)
def show() -> None:
    """Draw what the kind of the run declares; again and again while it works."""
    with live.guarded(), cached_queries.one_refresh():
        PAGE.draw(run, was_active=IS_ACTIVE)


show()
start_form(PAGE, is_open=False)
