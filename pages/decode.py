"""Reward-guided speculative decoding: who wrote each step, what the reward said, and what that saved."""

from __future__ import annotations

from dynlora.viz.kinds import KindPage, start_form
from dynlora.viz.ui import cached_queries, live

PAGE = KindPage("decode")
run, IS_ACTIVE = PAGE.picked(start_form)


@live.following(2, active=IS_ACTIVE)
def show() -> None:
    """Draw what the kind of the run declares; again and again while problems are solved."""
    with live.guarded(), cached_queries.one_refresh():
        PAGE.draw(run, was_active=IS_ACTIVE)


show()
start_form(PAGE, is_open=False)
