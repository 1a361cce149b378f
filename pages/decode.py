"""Reward-guided speculative decoding: who wrote each step, what the reward said, and what that saved."""

from __future__ import annotations

from dynlora.viz.decode import form
from dynlora.viz.ui import cached_queries, guard, live

run, IS_ACTIVE = form.PAGE.picked(form.decode_form)


@live.following(2, active=IS_ACTIVE)
def show() -> None:
    """Draw what the kind of the run declares; again and again while problems are solved."""
    with guard.guarded(), cached_queries.one_refresh():
        form.PAGE.draw(run, was_active=IS_ACTIVE)


show()
form.decode_form(is_open=False)
