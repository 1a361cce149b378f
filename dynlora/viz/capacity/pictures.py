"""The pictures of one run's capacity, as the page Capacity, the tour and notebooks show them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dynlora.analysis import capacity_frames, signals
from dynlora.viz.capacity import map_figure, module_figures
from dynlora.viz.capacity import text as capacity_text
from dynlora.viz.capacity.view_model import CapacityView
from dynlora.viz.kit.picture import Picture
from dynlora.viz.kit.run_queries import COLUMNS
from dynlora.viz.kit.theme import Palette


def signal_map(view: CapacityView, colours: Palette, *, is_marked: bool = True) -> Picture:
    """Return the view's signal over modules and steps, with the use of the budget above it.

    Args:
        view: what is shown.
        colours: of the mode.
        is_marked: whether a line marks the chosen step.

    Raises:
        DynloraError: when the run cannot be read.
    """
    heat, rows, budget = view.heat(view.signal, COLUMNS), view.rows(), view.budget()
    look = view.about_map(heat.unit) if is_marked else replace(view.about_map(heat.unit), step=None)
    figure = map_figure.capacity_map(heat.frame, heat.first_step, rows, budget, look, colours)
    words = f"{view.sentence()} {capacity_text.binned(heat)}"
    return Picture(figure, words, capacity_frames.wide(heat.frame, view.modules))


def rank_flow(view: CapacityView, by: str, colours: Palette) -> Picture:
    """Return who gave rank to whom in the steps shown.

    Args:
        view: what is shown.
        by: how the ends are put together, a key of `flows.BY`.
        colours: of the mode.

    Raises:
        DynloraError: when the run cannot be read.
    """
    traced, sides = view.traced()
    found, ends = view.flow(traced, by)
    words = capacity_text.flow(traced, sides, len(view.events_shown), view.first, view.last)
    return Picture(module_figures.rank_flow(found, ends, colours), words, found)


def importance_scatter(view: CapacityView, colours: Palette) -> Picture:
    """Return the share of rank against the share of importance at the chosen step.

    Raises:
        DynloraError: when the run cannot be read.
    """
    state = view.state()
    figure = module_figures.importance_scatter(state, view.module, colours)
    return Picture(figure, capacity_text.followed(state), capacity_frames.state_table(state))


def replay_words(view: CapacityView) -> str:
    """Return the caption of the model as a picture that plays."""
    return capacity_text.picture(view.state(), signals.uniform_rank(view.summary))


def replay_data(view: CapacityView, colours: Palette) -> dict[str, Any]:
    """Return what the player of the model's picture draws, as `replay_frames.frames` does.

    Raises:
        DynloraError: when the run cannot be read.
    """
    return view.pictures(replay_words(view), colours)
