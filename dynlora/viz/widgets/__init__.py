"""The streamlit pieces that pages are made of; no other part of dynlora knows streamlit."""

from dynlora.viz.widgets.actions import delete_button, run_buttons, runs_grid, trash, unreadable, wake
from dynlora.viz.widgets.address import choose, from_address, segmented, step_slider, to_address
from dynlora.viz.widgets.answers import ask, at_step, budget, modules, ranks, signal_names
from dynlora.viz.widgets.cards import badge, card, chart, colours, figures, note, rows, safe, status_line, table, titled
from dynlora.viz.widgets.form import field_grid, field_widget, forget_launched, launched, start_button
from dynlora.viz.widgets.frame import enter, guarded, menu, prepare
from dynlora.viz.widgets.picker import (
    Chosen,
    empty_store,
    is_active,
    link,
    links,
    list_all,
    pick_run,
    pick_runs,
    runs_dir,
    runs_roots,
)  # fmt: skip

__all__ = [
    "Chosen", "ask", "at_step", "badge", "budget", "card", "chart", "choose", "colours", "delete_button",
    "empty_store", "enter", "field_grid", "field_widget", "figures", "forget_launched", "from_address", "guarded",
    "is_active",
    "launched", "link", "links", "list_all", "menu", "modules", "note", "pick_run", "pick_runs", "prepare", "ranks",
    "rows", "run_buttons", "runs_dir", "runs_grid", "runs_roots", "safe", "segmented", "signal_names", "start_button",
    "status_line", "step_slider", "table", "titled", "to_address", "trash", "unreadable", "wake",
]  # fmt: skip
