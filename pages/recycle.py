"""One adapter made of finished runs: a meta-LoRA of classifiers, a student of runs that write, or a merge."""

from __future__ import annotations

from dynlora.viz.recycle import form
from dynlora.viz.ui import cached_queries, guard, live

run, IS_ACTIVE = form.PAGE.picked(form.recycle_form)


@live.following(3, active=IS_ACTIVE)
def show() -> None:
    """Draw what the kind of the run declares; again and again while it works."""
    with guard.guarded(), cached_queries.one_refresh():
        form.PAGE.draw(run, was_active=IS_ACTIVE)


show()
form.recycle_form(is_open=False)
