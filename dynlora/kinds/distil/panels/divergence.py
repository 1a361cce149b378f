"""How far each model is from each teacher, on texts that teachers wrote for the test alone."""

from __future__ import annotations

from collections.abc import Sequence

from dynlora.kinds.distil import text
from dynlora.kinds.distil.compared_panel import ComparedPanel
from dynlora.kinds.distil.result import Distil, PerToken


class Divergence(ComparedPanel):
    """KL(teacher || model) with its interval, a line for each teacher."""

    id = "divergence"
    order = 1
    title = "Divergence from the teachers"
    about = "Texts that teachers wrote for the test alone"
    axis = "KL in nats per token"

    def rows(self, result: Distil) -> tuple[Sequence[PerToken], Sequence[PerToken]]:
        """Return the divergences and their differences."""
        return result.kl, result.kl_against_base

    def caption(self, data: text.Compared) -> str:
        """Return what is measured, and over what."""
        return (
            "Mean KL(teacher || model) over the tokens of texts that a teacher wrote for the test alone, nats; 0 is "
            "the teacher itself. Bars: 95 % CI over texts."
        )
