"""Triplets (b, E, a) of an update in the form of a singular value decomposition: their start, penalty and scores.

The scores are AdaLoRA's (Zhang et al. 2023, arXiv 2303.10512, equations 8 to 11): the sensitivity of every entry,
smoothed, times its smoothed deviation.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.randomness import stream

PARTS = {"lora_A": 0, "lora_B": 1, "scale": 0}
"""The tensors of triplets, and the dimension that counts them."""


def triplet_adapter(
    module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, *, scaling: float, seed: int
) -> LoraLinear:
    """Return an adapter with A, B ~ N(0, 0.02²) and a trained E = 0, its scale."""
    adapter = LoraLinear(base, module, rank=rank, max_rank=max_rank, scaling=scaling)
    adapter.reset_parameters(seed, gaussian=0.02)
    with torch.no_grad():
        adapter.lora_B[:, :rank].normal_(0, 0.02, generator=stream(seed, module.name, "lora_B"))
    adapter.use_scale(0.0, trainable=True)
    return adapter


def orthogonality(adapters: Adapters) -> Tensor:
    """Return the mean over all A and B of ‖AAᵀ - I‖_F and ‖BᵀB - I‖_F, ()."""
    terms = []
    for module in adapters:
        A, B = module.lora_A[: module.rank], module.lora_B[:, : module.rank]
        for gram in (A @ A.t(), B.t() @ B):
            terms.append((gram - torch.eye(len(gram), device=gram.device)).norm())
    return torch.stack(terms).mean()


@torch.no_grad()
def take_sensitivity(
    adapters: Adapters, mean: dict[str, Tensor], deviation: dict[str, Tensor], beta1: float, beta2: float
) -> None:
    """Take |w ⊙ ∂L/∂w| of every entry into its averages, which are kept by module and tensor name.

    Args:
        adapters: the adapted modules, gradients in place.
        mean: smoothed sensitivity, changed in place.
        deviation: smoothed |sensitivity - mean|, changed in place.
        beta1: fraction of the old mean that stays.
        beta2: fraction of the old deviation that stays.
    """
    sensitivities = {
        f"{module.info.name}.{name}": elementwise_sensitivity(tensor, tensor.grad)
        for module in adapters
        for name, tensor in module.adapter_parameters().items()
        if tensor.grad is not None
    }
    if not sensitivities:
        return
    now = list(sensitivities.values())
    smooth = [mean.setdefault(key, torch.zeros_like(value)) for key, value in sensitivities.items()]
    spread = [deviation.setdefault(key, torch.zeros_like(value)) for key, value in sensitivities.items()]
    torch._foreach_mul_(smooth, beta1)  # pyright: ignore
    torch._foreach_add_(smooth, now, alpha=1 - beta1)  # pyright: ignore
    gap = torch._foreach_abs(torch._foreach_sub(now, smooth))  # pyright: ignore
    torch._foreach_mul_(spread, beta2)  # pyright: ignore
    torch._foreach_add_(spread, gap, alpha=1 - beta2)  # pyright: ignore


def triplet_scores(adapters: Adapters, mean: dict[str, Tensor], deviation: dict[str, Tensor]) -> list[Tensor]:
    """Return each module's triplet scores, (rank,): that of E plus the means over the row of A and the column of B."""
    scores = []
    for module in adapters:
        keys = {name: f"{module.info.name}.{name}" for name in PARTS}
        entry = {name: mean[key] * deviation[key] for name, key in keys.items()}
        A, B = entry["lora_A"][: module.rank], entry["lora_B"][:, : module.rank]
        scores.append(entry["scale"][: module.rank] + torch.stack([A.mean(1), B.mean(0)], 1).sum(1))
    return scores


def triplet_importance(adapters: Adapters, mean: dict[str, Tensor], deviation: dict[str, Tensor]) -> Tensor:
    """Return each module's mean triplet score, (n_modules,), zero where it holds none."""
    scores = triplet_scores(adapters, mean, deviation)
    return torch.stack([score.sum() / max(1, len(score)) for score in scores])


def forget_triplets(module: LoraLinear, averages: dict[str, Tensor], going: Iterable[int]) -> None:
    """Take triplets out of the averages in place, as dropping them packs the rest; the tail is zero."""
    gone = set(going)
    keep = torch.tensor([j for j in range(module.rank) if j not in gone], dtype=torch.long)
    for name, dim in PARTS.items():
        average = averages.get(f"{module.info.name}.{name}")
        if average is not None:
            packed = average.index_select(dim, keep.to(average.device))
            average.zero_()
            average.narrow(dim, 0, len(keep)).copy_(packed)


def elementwise_sensitivity(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return |w ⊙ ∂L/∂w|, the shape of the parameter (AdaLoRA, eq. 8)."""
    return (parameter * gradient).abs_()
