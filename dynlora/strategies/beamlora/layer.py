"""Scored components: a softmax over scores shares one sum of factors among a module's components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

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
