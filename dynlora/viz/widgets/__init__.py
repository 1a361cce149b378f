"""The streamlit pieces that pages are made of; no other part of dynlora knows streamlit."""

from dynlora.viz.widgets.actions import delete_button, run_buttons, runs_grid, trash, unreadable, wake
from dynlora.viz.widgets.address import (
    choose,
    follow_address,
    from_address,
    keep_address,
    remember_address,
    segmented,
    step_slider,
    to_address,
)
from dynlora.viz.widgets.answers import ask, at_step, budget, live_summary, modules, ranks, signal_names
from dynlora.viz.widgets.capacity import as_addressed, capacity_controls, capacity_view
from dynlora.viz.widgets.capacity_cards import capacity_decisions, capacity_now
from dynlora.viz.widgets.cards import (
    badge,
    card,
    chart,
    colours,
    documented,
    figures,
    note,
    rows,
    safe,
    status_line,
    table,
    texts,
    titled,
    under,
)
from dynlora.viz.widgets.checking import check_button, show_check
from dynlora.viz.widgets.facts import facts
from dynlora.viz.widgets.form import (
    how_capacity_is_spent,
    in_the_queue,
    show_launched,
    start_button,
    what_and_how_long,
)
from dynlora.viz.widgets.frame import enter, guarded, menu, prepare
from dynlora.viz.widgets.inputs import InputsView, chosen_examples, colour_choice, placed, selectable
from dynlora.viz.widgets.knockouts import knockout_card
from dynlora.viz.widgets.origin import pick_start
from dynlora.viz.widgets.pace import following
from dynlora.viz.widgets.picker import (
    Chosen,
    empty_store,
    is_active,
    link,
    links,
    list_all,
    pick_run,
    runs_dir,
    runs_roots,
)  # fmt: skip
from dynlora.viz.widgets.playground import answers_card, explained_cards, file_card, text_form
from dynlora.viz.widgets.replay import replay
from dynlora.viz.widgets.shifting import model_cards
from dynlora.viz.widgets.source import pick_source

__all__ = [
    "placed",
    "text_form",
    "model_cards",
    "knockout_card",
    "file_card",
    "explained_cards",
    "answers_card",
    "Chosen", "InputsView", "as_addressed", "ask", "at_step", "badge", "budget", "capacity_controls",
    "capacity_decisions", "capacity_now", "capacity_view", "card", "chart", "check_button", "choose",
    "chosen_examples", "colour_choice", "colours", "delete_button", "documented", "empty_store", "enter", "facts",
    "figures", "follow_address", "following", "from_address", "guarded", "how_capacity_is_spent", "in_the_queue",
    "is_active", "keep_address", "link", "links", "list_all", "live_summary", "menu", "modules", "note", "pick_run",
    "pick_source", "pick_start", "prepare", "ranks", "remember_address", "replay", "rows", "run_buttons", "runs_dir",
    "runs_grid", "runs_roots", "safe", "segmented", "selectable", "show_check", "show_launched", "signal_names",
    "start_button", "status_line", "step_slider", "table", "texts", "titled", "to_address", "trash", "under",
    "unreadable", "wake", "what_and_how_long",
]  # fmt: skip
