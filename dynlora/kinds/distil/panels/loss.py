"""The loss of each model on the held-out examples of each teacher's data."""

from __future__ import annotations

from collections.abc import Sequence

from dynlora.kinds.distil import text
from dynlora.kinds.distil.compared_panel import ComparedPanel
from dynlora.kinds.distil.result import Distil, PerToken
from dynlora.viz.kit.panel import RunView


class HeldOutLoss(ComparedPanel):
    """Held-out loss with its interval, a line for each teacher."""

    id = "loss"
    order = 2
    title = "Held-out loss"
    about = "Held-out examples of each teacher's own data"
    axis = "Loss in nats per token"

    def rows(self, result: Distil) -> tuple[Sequence[PerToken], Sequence[PerToken]]:
        """Return the losses and their differences."""
        return result.loss, result.loss_against_base

    def reason_missing(self, view: RunView) -> str:
        """Return why there is no loss: the test is still to come, or had no data."""
        if view.result.kl:
            return "The data of no teacher could be read, so no held-out loss was measured."
        return self.missing

    def caption(self, data: text.Compared) -> str:
        """Return what is measured, and over what."""
        return (
            "Mean loss over the tokens of held-out examples of each teacher's data, nats. The student never saw this "
            "data. Bars: 95 % CI over examples."
        )
