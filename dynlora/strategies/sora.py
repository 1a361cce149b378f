"""SoRA: a learned gate on every component, shrunk towards zero at every step; what reaches it is taken off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Drop, Edit
from dynlora.engine.edits.components import ShrinkScales
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.randomness import stream
from dynlora.engine.strategy import Strategy, own_group, setting, state


@lru_cache(maxsize=64)
def thresholds(total: int, stages: int, dense_share: float) -> tuple[float, ...]:
    """Return the fraction of the largest threshold that each step takes, 0 to 1: a dense start, then a staircase.

    Args:
        total: optimizer steps of the run.
        stages: equal stages of the rest; the k-th takes k / stages.
        dense_share: fraction of the steps before the first stage.
    """
    dense = min(round(dense_share * total), total - 1)
    rest = total - dense
    return tuple(0.0 if i < dense else ((i - dense) * stages // rest + 1) / stages for i in range(total))


@lru_cache(maxsize=64)
def whole(total: int, stages: int, dense_share: float) -> float:
    """Return the sum of `thresholds`."""
    return sum(thresholds(total, stages, dense_share))


@dataclass
class Sora(Strategy):
    """h = W0 x + alpha / r · B(g ⊙ A x), with g ← sign(g) max(|g| - ξ, 0) after every step.

    The gates g, one number per component, start as N(0, 1) and have their own learning rate. The loss may get λ times
    their mean size. Gates at zero no longer reach the output, and may return while training; those that are zero after
    the last step are removed. There are never more parameters than uniform LoRA has. The gates are not counted, because
    they fold into B.

    Paper: Ding et al. 2023, SoRA: Sparse Low-rank Adaptation of Pre-trained Language Models, EMNLP, arXiv 2311.11696.
    Differs: `prox` is the proximal map itself; `official` is the published code, which also zeroes values below 2ξ. The
    published schedule from dense to sparse trains ξ = 0 for 50 epochs and then 7 stages of 15, with a checkpoint of
    each. Here the stages share one run, and ξ is chosen so that a run takes `shrinkage` off a gate in total, however
    long it is. `schedule: fixed` with `xi: 3e-4` and `sparsity: 10` are the published values without a schedule. The
    gates' optimizer is the run's AdamW without weight decay. Its rate is raised where a gate could not outrun the
    shrinkage, to the published proportion (8e-4, falling linearly, against 3e-4 per step: `travel` 4/3). λ is 0 where
    1e-3 is published with a schedule: while B is zero Adam makes full steps of it, which decide a short run.
    """

    title = "SoRA"
    summary = (
        "Every component has a learned gate that shrinks a little at every step. Components whose gate the loss does "
        "not support reach zero and are removed."
    )
    formula = r"h = W_0 x + \tfrac{\alpha}{r} B\,(g \odot A x), \quad g \leftarrow \mathrm{sign}(g)\max(|g| - \xi, 0)"
    paper = "Ding et al. 2023, arXiv 2311.11696"
    fidelity = "code"
    as_lora = {"gate_start": "ones", "gate_lr_ratio": 0.0, "shrinkage": 0.0, "sparsity": 0.0}
    cost = "one number per component; one shrinkage per step"
    step_cost = "more"

    prox: str = setting(
        "exact",
        "exact: the proximal map; official: as the published code, zero below 2ξ.",
        choices=("exact", "official"),
    )
    schedule: str = setting(
        "stages",
        "stages: ξ = 0 at first, then rising in equal stages; fixed: ξ from the first step on.",
        choices=("stages", "fixed"),
    )
    xi: float | None = setting(
        None, "Largest threshold ξ: how much a gate shrinks per step. Empty: from `shrinkage`.", unit="per step", ge=0
    )
    shrinkage: float = setting(
        0.5, "Total shrinkage of every gate in a run, where xi is empty; gates start with deviation 1.", ge=0
    )
    stages: int = setting(7, "Stages from dense to sparse.", ge=1, le=1000)
    dense_share: float = setting(0.3, "Fraction of the steps without shrinkage before the stages.", ge=0, lt=1)
    sparsity: float = setting(0.0, "Weight λ of the gates' mean size in the loss.", ge=0)
    gate_start: str = setting("normal", "Start of the gates: normal, N(0, 1); or ones.", choices=("normal", "ones"))
    gate_lr_ratio: float = setting(1.0, "Learning rate of the gates over that of A; 0 holds them.", ge=0, le=1024)
    travel: float = setting(
        4 / 3, "Least distance a gate can move in a run, relative to its total shrinkage; 0: no minimum.", ge=0
    )

    last_threshold: float = state(float)

    def events(self, total: int, rank: int) -> list[int]:
        """Return the last step: components whose gate is zero are taken off after it."""
        return [total] if self.threshold(total, total) > 0 else []

    def threshold(self, step: int, total: int) -> float:
        """Return ξ after a step, 1 to `total`."""
        return self.taken(total) / whole(*self._shape(total)) * thresholds(*self._shape(total))[step - 1]

    def taken(self, total: int) -> float:
        """Return what a run takes off every gate in all, Σ ξ."""
        return self.shrinkage if self.xi is None else self.xi * whole(*self._shape(total))

    def _shape(self, total: int) -> tuple[int, int, float]:
        """Return the arguments of `thresholds`."""
        staged = self.schedule == "stages"
        return total, self.stages if staged else 1, self.dense_share if staged else 0.0

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return an adapter with trained gates, its scale, from the module's own stream."""
        adapter = super().adapter(module, base, rank, max_rank, probe)
        adapter.use_scale(1.0, trainable=True)
        if self.gate_start == "normal" and adapter.scale is not None:
            with torch.no_grad():
                draw = torch.randn(max_rank, generator=stream(probe.seed, module.name, "gate"))
                adapter.scale.copy_(draw)
        return adapter

    def groups(self, adapters: Adapters) -> list[dict[str, Any]]:
        """Return the gates as a group of their own, without weight decay: the shrinkage is theirs."""
        gates = [module.scale for module in adapters if module.scale is not None]
        total = max(1, adapters.total)
        least = 2 * self.travel * self.taken(total) / total if self.gate_lr_ratio > 0 else 0.0
        how = {"lr_factor": self.gate_lr_ratio, "least_lr": least, "weight_decay": 0.0}
        return own_group(super().groups(adapters), gates, **how)

    def penalty(self, adapters: Adapters) -> dict[str, Tensor]:
        """Return λ · mean |g| over all gates."""
        gates = [module.scale[: module.rank] for module in adapters if module.scale is not None]
        if self.sparsity == 0 or not gates:
            return {}
        return {"sparsity": self.sparsity * torch.cat(gates).abs().mean()}

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Shrink every gate by this step's threshold."""
        xi = self.threshold(step.index, step.total)
        self.last_threshold = xi
        if xi == 0:
            return []
        return [ShrinkScales(xi, dead_zone=2 * xi if self.prox == "official" else None)]

    def finish(self, adapters: Adapters) -> list[Edit]:
        """Take the components off whose gate is zero; the function stays as it is."""
        return [Drop(m, j, 0.0) for m, module in enumerate(adapters) for j in module.idle()]

    def signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Record the gates that are not zero, by module, as its rank."""
        return {"rank": torch.stack([self._open(module) for module in adapters])}

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record the threshold and the fraction of uniform LoRA's parameters whose gate is not zero."""
        held = torch.stack([self._open(module) * module.info.cost for module in adapters]).sum()
        return {"threshold": self.last_threshold, "retained": held / adapters.budget}

    def _open(self, module: LoraLinear) -> Tensor:
        """Return how many of a module's gates are not zero, ()."""
        gates = module.lora_A.new_zeros(0) if module.scale is None else module.scale.detach()[: module.rank]
        return (gates != 0).sum()
