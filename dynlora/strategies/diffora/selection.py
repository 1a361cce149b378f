"""Selection: a weight a module, a softmax within its layer, that says how much its update counts; then which stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynlora.engine.model.modules import ModuleInfo


@dataclass(frozen=True)
class Choice:
    """Which modules vie with each other.

    Attributes:
        layer: the group of each module, (n_modules,), whole numbers from 0.
        size: modules in each module's group, (n_modules,).
    """

    layer: Tensor
    size: Tensor

    @classmethod
    def among(cls, modules: Sequence[ModuleInfo], device: torch.device) -> Choice:
        """Let the modules of each layer vie; those outside of layers are one group."""
        layers = sorted({-1 if info.layer is None else info.layer for info in modules})
        layer = torch.tensor([layers.index(-1 if info.layer is None else info.layer) for info in modules])
        return cls(layer.to(device), layer.bincount()[layer].to(device))

    def weights(self, logits: Tensor) -> Tensor:
        """Return ā = n · softmax(λ) within each layer of n modules, (n_modules,): one where all λ are equal."""
        top = torch.full_like(logits, -torch.inf).scatter_reduce(0, self.layer, logits, "amax")
        power = (logits - top[self.layer]).exp()
        return self.size * power / self._sum(power)

    def logit_gradient(self, pull: Tensor, weights: Tensor) -> Tensor:
        """Return ∂L/∂λ, (n_modules,), from `pull` = ā · ∂L/∂ā: `pull`_k - ā_k / n · Σ `pull` over k's layer.

        For an update ā s B A x, `pull` is ⟨B, ∂L/∂B⟩, so that no quotient by ā is ever taken.
        """
        return pull - weights / self.size * self._sum(pull)

    def entropy(self, weights: Tensor) -> Tensor:
        """Return the entropy of the softmax, mean over the layers, as a fraction of the largest, 0 to 1."""
        share = weights / self.size
        terms = -torch.special.xlogy(share, share) / self.size.log().clamp_min(1e-12)
        return torch.where(self.size > 1, terms, 0.0).sum() / torch.where(
            self.size > 1, 1 / self.size, 0
        ).sum().clamp_min(1)

    def chosen(self, weights: Tensor, share: float, *, overall: bool) -> Tensor:
        """Return which modules have the largest weights, (n_modules,) bool: ⌈share · n⌉ of each layer, or of them all.

        Of equal weights the earlier module's counts as larger.
        """
        order = torch.arange(len(weights), device=weights.device)
        equal = weights == weights.unsqueeze(1)
        ahead = (weights > weights.unsqueeze(1)) | (equal & (order < order.unsqueeze(1)))
        rivals = torch.full_like(self.size, len(weights)) if overall else self.size
        if not overall:
            ahead &= self.layer == self.layer.unsqueeze(1)
        return ahead.sum(1) < (share * rivals).sub(1e-9).ceil().clamp_min(1)

    def _sum(self, values: Tensor) -> Tensor:
        """Return each module's sum over its layer, (n_modules,)."""
        return torch.zeros_like(values).index_add(0, self.layer, values)[self.layer]


def adam_step(
    value: Tensor, gradient: Tensor, moments: Mapping[str, Tensor], step: int, lr: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a value after Adam's step number `step` (from 1), with its moments `first` and `second`; none at first.

    β1 = 0.5 and β2 = 0.999, as usual where an architecture is searched for: the loss the gradient is of keeps changing.
    """
    first = torch.lerp(gradient, moments.get("first", torch.zeros_like(value)), 0.5)
    second = torch.lerp(gradient.square(), moments.get("second", torch.zeros_like(value)), 0.999)
    change = first / (1 - 0.5**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return value - lr * change, {"first": first, "second": second}
