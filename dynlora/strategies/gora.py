"""GoRA: the frozen weights' gradients set the ranks and the start of B, before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.allocation.solvers import proportional_ranks
from dynlora.engine.context import Probe
from dynlora.engine.edits import Edit
from dynlora.engine.edits.components import StartAt
from dynlora.engine.initializers import base_modules, gradient_step, mean_product, probe_batches, weight_gradients
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.strategy import OwnSignal, Strategy, setting, state
from dynlora.errors import ConfigError


@dataclass
class Gora(Strategy):
    """h = W0 x + alpha / √r_m · B A x with r_m by importance, and B such that B A is a step down the gradient.

    With G the mean gradient ∂L/∂W0 of a few batches, a module's importance is mean |W0 ⊙ G|, as a fraction of the
    total. Ranks are in proportion to importance / (d_in + d_out), between `smallest_rank` and `largest_rank`. A is
    drawn, and B = -ξ G Aᵀ (A Aᵀ)⁻¹, the least-squares fit of -ξ G, with ξ such that ‖s B A‖ = gora_lr · ‖G‖.

    Paper: He et al. 2025, GoRA: Gradient-driven Adaptive Low Rank Adaptation, NeurIPS, arXiv 2502.12171.
    Differs: the size of the first step is set from measured norms; the published code uses their expectation. Ranks
    between the limits are scaled so that the budget is spent and never exceeded; published clipping does either. Eight
    batches by default, 32 published. The model is in evaluation mode while gradients are taken. As published, s = alpha
    / √r_m depends on the module's own rank, where other methods here keep that of the uniform one. Ranks do not move
    afterwards, so nothing jumps. The published script trains B at 16 times the learning rate of A (`lr_ratio` 16, as in
    LoRA+); here both have one by default. The start is not the base model's function.
    """

    title = "GoRA"
    summary = (
        "Takes the gradient of every frozen weight before training. Modules whose weights matter to the loss get more "
        "rank. The adapters start one step down that gradient instead of at zero."
    )
    formula = r"B_0 = -\xi\, G A_0^\top (A_0 A_0^\top)^{-1}, \quad r_m \propto \overline{|W_0 \odot G|}_m"
    paper = "He et al. 2025, arXiv 2502.12171"
    fidelity = "description"
    cost = "none per step; gradients of all adapted weights for a few batches, and as much memory, before training"
    own_signals = {
        "gradient_importance": OwnSignal("fraction of importance", "Where the first gradients are largest", "fraction")
    }
    starts_as_base = False

    scaling: str = setting(
        "rank_stabilized",
        "rank_stabilized: alpha / √rank of the module itself, as published; standard: alpha / its rank.",
        choices=("standard", "rank_stabilized"),
    )
    init: str = setting(
        "kaiming", "Start of A: kaiming uniform, or gaussian with deviation 1 / rank.", choices=("kaiming", "gaussian")
    )
    gora_lr: float = setting(0.05, "Size of the step down the gradient that B starts with; 0: B = 0.", ge=0, le=100)
    batches: int = setting(8, "Training batches over which the gradient is averaged.", unit="batches", ge=1, le=4096)
    smallest_rank: int | None = setting(None, "Smallest rank. Empty: half the uniform one.", unit="components", ge=0)
    largest_rank: int | None = setting(None, "Largest rank. Empty: four uniform ones.", unit="components", ge=1)

    importance: list[float] = state(list)

    def check(self, total: int, rank: int) -> None:
        """Refuse limits that leave no room for the budget between them."""
        least, most = self.limits(rank)
        if least > rank:
            raise ConfigError(f"strategy.smallest_rank={least}: must not exceed adapter.rank={rank}; lower it")
        if most < rank:
            raise ConfigError(f"strategy.largest_rank={most}: must be at least adapter.rank={rank}; raise it")

    def limits(self, rank: int) -> tuple[int, int]:
        """Return the smallest and the largest rank beside a uniform one."""
        least = max(1, rank // 2) if self.smallest_rank is None else self.smallest_rank
        return least, 4 * rank if self.largest_rank is None else self.largest_rank

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Take the gradients, and return the ranks that the modules' importance earns."""
        frozen = base_modules(probe.model, [info.name for info in modules])
        self.gradients.clear()
        self.gradients.update(
            weight_gradients(probe.model, frozen, probe_batches(probe, self.batches, labels=True), probe.task)
        )
        worth = [mean_product(frozen[info.name], self.gradients[info.name]) for info in modules]
        importance = torch.stack(worth).double().cpu().numpy()
        self.importance = (importance / max(importance.sum(), 1e-300)).tolist()
        cost = np.array([info.cost for info in modules])
        least, most = self.limits(probe.rank)
        ceiling = np.array([min(most, info.d_in, info.d_out) for info in modules])
        floor = np.full(len(modules), least)
        return proportional_ranks(importance / cost, cost, budget=probe.budget, least=floor, most=ceiling)

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """The gradient of each frozen weight, (d_out, d_in), kept between the ranks and the start."""
        return {}

    def own_scaling(self, rank: int, probe: Probe) -> float:
        """Return alpha / √own rank, or alpha / own rank."""
        return self.module_scaling(replace(probe, rank=max(1, rank)))

    def begin(self, adapters: Adapters, probe: Probe) -> list[Edit]:
        """Set B so that each module starts a step down its gradient."""
        gradients = dict(self.gradients)
        self.gradients.clear()
        edits: list[Edit] = []
        for index, module in enumerate(adapters):
            A = module.lora_A.detach()[: module.rank]
            B = gradient_step(gradients[module.info.name], A, self.gora_lr, module.scaling)
            edits.append(StartAt(index, A, B))
        return edits

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record each module's fraction of the importance that set the ranks."""
        return {"gradient_importance": np.array(self.importance)} if self.importance else {}
