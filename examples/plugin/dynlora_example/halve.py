"""Plain LoRA until half of the run; then every module gives up the less important half of its components."""

from __future__ import annotations

from dataclasses import dataclass

from dynlora.engine.allocation import scores
from dynlora.engine.edits import Drop, Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.strategy import Step, Strategy, setting


@dataclass
class Halve(Strategy):
    """Plain LoRA until a fraction of the steps; then the components with the smallest |⟨b_j, ∂L/∂b_j⟩| are dropped.

    Paper: none; an example of a plug-in.
    """

    title = "Halve"
    summary = "Every module gives up the half of its components whose removal changes the loss least."
    formula = r"I_j = |\langle b_j, \partial L / \partial b_j \rangle|"
    paper = "none"
    fidelity = "code"
    cost = "one dot product per component, once"

    after: float = setting(0.5, "Fraction of the steps after which components are dropped.", gt=0, lt=1)

    def events(self, total: int, rank: int) -> list[int]:
        """Return the one step after which capacity moves."""
        return [max(1, round(self.after * total))]

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Return the drops, the highest place first: what is dropped renumbers what is behind it."""
        if step.index not in self.events(step.total, adapters.reference_rank):
            return []
        drops: list[Edit] = []
        for place, module in enumerate(adapters):
            importance = scores.saliency(module).abs()
            least = importance.argsort()[: len(importance) // 2].tolist()
            drops += [Drop(place, index, float(importance[index])) for index in sorted(least, reverse=True)]
        return drops
