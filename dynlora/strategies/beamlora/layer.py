"""Scored components: a softmax over scores shares one sum of factors among a module's components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.edits.components import state_of
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo


class BeamLinear(LoraLinear):
    """An adapted module whose component j has the factor rank · softmax(q / τ)_j: one at the start, rank in sum.

    Attributes:
        score: q, (max_rank,), trained.
        temperature: τ.
    """

    score: nn.Parameter

    def __init__(
        self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, scaling: float, temperature: float
    ) -> None:
        """Wrap `base_layer`, all scores zero; the rank never changes."""
        super().__init__(base_layer, info, rank=rank, max_rank=rank, scaling=scaling)
        self.temperature = temperature
        self.score = nn.Parameter(torch.zeros(rank, device=self.lora_A.device))

    def factors(self, live: int) -> Tensor | None:
        """Return the factor of each of the first `live` components, (live,)."""
        return factors_of(self.score[:live], self.temperature) if live else None


def factors_of(score: Tensor, temperature: float) -> Tensor:
    """Return rank · softmax(score / τ), (rank,)."""
    return len(score) * torch.softmax(score / temperature, 0)


def pruned(factors: Sequence[Tensor], keep: float) -> list[list[int]]:
    """Return the components that go, by module, least first: those past the top-p of all modules together.

    Sorted from the largest factor on, components are kept as long as their factors come to at most `keep` of the sum.
    """
    pool = torch.cat([factor.detach().double().cpu() for factor in factors])
    order = torch.argsort(pool, descending=True, stable=True)
    within = pool[order].cumsum(0)
    gone = torch.zeros(len(pool), dtype=torch.bool)
    gone[order] = within > keep * within[-1]
    split = zip(pool.split([len(f) for f in factors]), gone.split([len(f) for f in factors]), strict=True)
    return [[j for j in torch.argsort(part, stable=True).tolist() if out[j]] for part, out in split]


def pairing(factors: Tensor, going: Sequence[int], generator: torch.Generator) -> list[tuple[int, int]]:
    """Return (source, target) pairs: the strongest components in random order into the slots of those that go.

    No component is both; where more go than stay, the least of them go.
    """
    order = torch.argsort(factors.detach().cpu(), descending=True, stable=True).tolist()
    staying = [component for component in order if component not in set(going)]
    count = min(len(going), len(staying))
    shuffled = [staying[place] for place in torch.randperm(count, generator=generator).tolist()]
    return list(zip(shuffled, going[:count], strict=True))


@torch.no_grad()
def copy_component(
    A: Tensor, B: Tensor, score: Tensor, pair: tuple[int, int], past: Mapping[str, Tensor] | None, temperature: float
) -> None:
    """Put a copy of one component into the slot of another, in place.

    With `past`, the slot gets what the source was then, and both get their mean score: the function jumps. Without,
    the source is split: each half gets f_s / (f_s + f_t) of its B and a score that leaves the sum of exponentials, so
    that the two together are what the source was and no other factor moves.

    Args:
        A: (rank, d_in).
        B: (d_out, rank).
        score: q, (rank,).
        pair: source and target.
        past: A and B of the module at an earlier step by name, or None to split.
        temperature: τ.
    """
    source, target = pair
    if past is not None:
        A[target], B[:, target] = past["lora_A"][source], past["lora_B"][:, source]
        score[list(pair)] = score[list(pair)].mean()
        return
    scaled = score[list(pair)] / temperature
    B[:, source] *= torch.softmax(scaled, 0)[0]
    A[target], B[:, target] = A[source], B[:, source]
    score[list(pair)] = temperature * (torch.logsumexp(scaled, 0) - math.log(2))


@torch.no_grad()
def jump(
    modules: Sequence[BeamLinear], pairs: Mapping[int, Sequence[tuple[int, int]]], past: Sequence[Mapping] | None
) -> Tensor:
    """Return how far copying would move the updates, ‖ΔW' - ΔW‖ / (‖ΔW'‖ + ‖ΔW‖) over all modules, 0 to 1, ().

    The norm is Frobenius', its square summed over modules with their scaling.
    """
    before = after = moved = torch.zeros((), dtype=torch.float64)
    for index, module in enumerate(modules):
        A, B = module.low_rank()
        new_A, new_B, score = module.lora_A.clone(), module.lora_B.clone(), module.score.clone()
        for pair in pairs.get(index, ()):
            copy_component(new_A, new_B, score, pair, None if past is None else past[index], module.temperature)
        new_B = new_B * factors_of(score, module.temperature)
        square = module.scaling**2
        before = before + square * _energy(A, B)
        after = after + square * _energy(new_A, new_B)
        moved = moved + square * _energy(torch.cat([new_A, A]), torch.cat([new_B, -B], 1))
    total = before.sqrt() + after.sqrt()
    return torch.where(total > 0, moved.clamp_min(0).sqrt() / total.clamp_min(torch.finfo(total.dtype).tiny), 0.0)


def _energy(A: Tensor, B: Tensor) -> Tensor:
    """Return ‖B A‖_F², (), without forming the product: the sum of BᵀB ⊙ AAᵀ, whose terms cancel in a difference."""
    A, B = A.cpu().double(), B.cpu().double()
    return ((B.t() @ B) * (A @ A.t())).sum()


SIDES = (("lora_A", 0), ("lora_B", 1))
"""The tensors of a component, and the dimension that counts components."""

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TakeSnapshot(Change):
    """Keep A, B and their moments of every module as they are now, one dict a module, in the list `into`."""

    into: list[dict[str, Tensor]] = field(compare=False, repr=False)

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Copy the tensors; moments are named after theirs, as `lora_A.exp_avg`."""
        self.into.clear()
        for module in adapters:
            tensors: dict[str, Tensor] = {}
            for name, _ in SIDES:
                parameter = getattr(module, name)
                tensors[name] = parameter.detach().clone()
                moments = state_of(optimizer, parameter)
                tensors |= {f"{name}.{key}": moments[key].clone() for key in MOMENTS if key in moments}
            self.into.append(tensors)


@dataclass(frozen=True)
class CopyComponent(Change):
    """Put a copy of component `source` of a module into the slot of `target`, as `beam.copy_component` does.

    The slot takes the source's moments of the snapshot; those of both scores begin at zero.

    Attributes:
        module: index of the module, a `BeamLinear`.
        source, target: places of the components.
        source_factor, target_factor: their importance.
        past: of the module, as `TakeSnapshot` keeps it.
        split: the source is split in two instead of copied from the snapshot, so that the function stays.
    """

    module: int
    source: int
    target: int
    source_factor: float
    target_factor: float
    past: Mapping[str, Tensor] = field(compare=False, repr=False)
    split: bool = False

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Copy weights, scores and moments."""
        module = adapters[self.module]
        if not isinstance(module, BeamLinear):
            raise TypeError(f"{module.info.name}: a {type(module).__name__} has no scores")
        pair, past = (self.source, self.target), None if self.split else self.past
        copy_component(module.lora_A, module.lora_B, module.score, pair, past, module.temperature)
        for name, dim in SIDES:
            moments = state_of(optimizer, getattr(module, name))
            for key in MOMENTS:
                if key in moments and f"{name}.{key}" in self.past:
                    moment = self.past[f"{name}.{key}"].select(dim, self.source)
                    moments[key].select(dim, self.target).copy_(moment)
        for key, value in state_of(optimizer, module.score).items():
            if key in MOMENTS:
                value[list(pair)] = 0

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log: the lineage of the slot."""
        return {
            "edit": "copy",
            "donor": self.module,
            "donor_component": self.source,
            "donor_score": self.source_factor,
            "receiver": self.module,
            "receiver_component": self.target,
            "receiver_score": self.target_factor,
            "count": 1,
        }
