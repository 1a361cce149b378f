"""Scores: what a component, and so a module, contributes to the loss; tensors in, tensors out.

All gradients are those of the mean loss, complete (accumulated, reduced over processes), unscaled and unclipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynlora.engine.model.lora_linear import LoraLinear


@torch.no_grad()
def saliency(module: LoraLinear) -> Tensor:
    """Return ⟨b_j, ∂L/∂b_j⟩ of the active components, (rank,): exactly ∂L/∂γ_j of a factor γ_j on component j.

    Its negative is the first-order change of the loss when the component goes. Zero without a gradient.
    """
    gradient = module.lora_B.grad
    if gradient is None or module.rank == 0:
        return module.lora_B.new_zeros(module.rank)
    return torch.linalg.vecdot(module.lora_B[:, : module.rank], gradient[:, : module.rank], dim=0)


def component_sensitivity(modules: Sequence[LoraLinear], out: Tensor) -> Tensor:
    """Write |⟨b_j, ∂L/∂b_j⟩| of every component into `out`, (n_modules, widest max_rank), zero where inactive.

    The absolute value is taken for each batch: the signed mean vanishes where training converges.
    """
    return signed_saliency(modules, out).abs_()


def signed_saliency(modules: Sequence[LoraLinear], out: Tensor) -> Tensor:
    """Write ⟨b_j, ∂L/∂b_j⟩ of every component into `out`, (n_modules, widest max_rank), zero where inactive."""
    out.zero_()
    live = [(row, module) for row, module in enumerate(modules) if module.rank and module.lora_B.grad is not None]
    if live:
        weights, gradients = [m.lora_B for _, m in live], [m.lora_B.grad for _, m in live]
        products = torch._foreach_mul(weights, gradients)  # pyright: ignore
        for (row, module), product in zip(live, products, strict=True):
            torch.sum(product[:, : module.rank], 0, out=out[row, : module.rank])
    return out


def component_magnitude(modules: Sequence[LoraLinear], out: Tensor) -> Tensor:
    """Write ‖b_j‖ · ‖a_j‖ = ‖b_j a_jᵀ‖_F of every component into `out`, (n_modules, widest max_rank)."""
    out.zero_()
    for row, module in enumerate(modules):
        r = module.rank
        out[row, :r] = module.lora_A.detach()[:r].norm(dim=1) * module.lora_B.detach()[:, :r].norm(dim=0)
    return out


def share(values: Tensor) -> Tensor:
    """Return values as fractions of their sum; equal ones when the sum is zero or not finite."""
    total = values.sum()
    if not torch.isfinite(total) or total <= 0:
        return torch.full_like(values, 1 / max(values.numel(), 1))
    return values / total
