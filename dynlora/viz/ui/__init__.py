"""The streamlit pieces that pages are made of; no other part of dynlora knows streamlit."""

from dynlora.viz.capacity.cards import capacity_decisions, capacity_now
from dynlora.viz.capacity.view import as_addressed, capacity_controls, capacity_view
from dynlora.viz.inputs.view import InputsView, chosen_examples, colour_choice, placed, selectable
from dynlora.viz.knockout.card import knockout_card
from dynlora.viz.launch.data_source import pick_source
from dynlora.viz.launch.form import how_capacity_is_spent, in_the_queue, show_launched, start_button, what_and_how_long
from dynlora.viz.launch.preflight_card import check_button, show_check
from dynlora.viz.launch.start_from import pick_start
from dynlora.viz.playground.cards import answers_card, explained_cards, file_card, text_form
from dynlora.viz.shift.cards import model_cards
from dynlora.viz.ui.cached_queries import ask, at_step, budget, live_summary, modules, ranks, signal_names
from dynlora.viz.ui.cards import (
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
from dynlora.viz.ui.facts import facts
from dynlora.viz.ui.live import following
from dynlora.viz.ui.page import enter, guarded, menu, prepare
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_actions import delete_button, run_buttons, runs_grid, trash, unreadable, wake
from dynlora.viz.ui.run_picker import (
    Chosen,
    empty_store,
    is_active,
    link,
    links,
    list_all,
    pick_run,
    runs_dir,
    runs_roots,
)
from dynlora.viz.ui.url_state import (
    choose,
    follow_address,
    from_address,
    keep_address,
    remember_address,
    segmented,
    step_slider,
    to_address,
)

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
