"""The pictures of a run's inputs, as the page Inputs, the tour and notebooks show them."""

from __future__ import annotations

from dynlora.viz.inputs import figures as inputs_figures
from dynlora.viz.inputs import model as inputs_model
from dynlora.viz.inputs import text as inputs_text
from dynlora.viz.inputs.view_model import InputsView
from dynlora.viz.kit.picture import Picture
from dynlora.viz.kit.theme import Palette


def gates(view: InputsView, colours: Palette, *, hide: bool) -> Picture:
    """Return the mean gate of each input group and module.

    Args:
        view: of a run with gates.
        colours: of the mode.
        hide: leave out what is not beyond chance.

    Raises:
        DynloraError: when the run cannot be read.
    """
    figure = inputs_figures.gate_map(view.gates, view.modules, view.effect, colours, hide=hide)
    words = inputs_text.gates(view.gates, view.modules, view.effect, view.step)
    return Picture(figure, words, inputs_model.gate_table(view.gates))
