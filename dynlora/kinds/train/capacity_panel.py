"""What the figures of a training's capacity share: they need ranks, and some let a reader choose a module."""

from __future__ import annotations

from typing import ClassVar

from dynlora.analysis.run_reading import RunReading
from dynlora.viz.kit.panel import Data, Panel, Picks, RunView


class CapacityPanel(Panel[Data]):
    """A figure of where rank and importance are; `view.result` is a `RunReading`.

    Attributes:
        chooses_module: whether a click on a point follows its module.
    """

    part = "Capacity"
    chooses_module: ClassVar[bool] = False

    def applies(self, view: RunView) -> bool:
        """Say whether the run recorded ranks."""
        return view.result.has_ranks

    def picks(self, view: RunView) -> Picks | None:
        """Return that a click chooses a module, by its position."""
        run: RunReading = view.result
        return Picks("module", run.modules.sort_values("position")["name"].tolist()) if self.chooses_module else None
