"""A module whose frozen weight gives up what its adapter starts with, so that the function starts as the base's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.randomness import stream
from dynlora.errors import ConfigError

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
    """Return the sum of each module's triplet scores, (n_modules,), zero where it holds none."""
    return torch.stack([score.sum() for score in triplet_scores(adapters, mean, deviation)])


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


class OffsetLinear(LoraLinear):
    """h = (W0 - scaling · B0 A0) x + scaling · B A x, where A0 and B0 are what A and B started as.

    W0 itself stays as it is: the difference is taken in the copy that computes, which other precisions than that of the
    weights need anyway. So a step costs what plain LoRA's does, taking the adapter off gives the base model to the bit,
    and a weight in half precision does not round the offset away. The price is that copy, as large as the weight.

    Attributes:
        offset_A: A0, (max_rank, d_in), zero past the components it began with; fixed.
        offset_B: B0, (d_out, max_rank).
        offset_scaling: the factor on B0 A0, a number as a tensor: the adapter's own may be changed later.
        offsets: components of the offset.
    """

    offset_A: Tensor
    offset_B: Tensor
    offset_scaling: Tensor

    def __init__(self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, max_rank: int, scaling: float) -> None:
        """Wrap `base_layer` with an offset of zero."""
        super().__init__(base_layer, info, rank=rank, max_rank=max_rank, scaling=scaling)
        self.register_buffer("offset_A", torch.zeros_like(self.lora_A, requires_grad=False))
        self.register_buffer("offset_B", torch.zeros_like(self.lora_B, requires_grad=False))
        self.register_buffer("offset_scaling", self.offset_A.new_full((), scaling))
        self.offsets = 0

    @torch.no_grad()
    def hold(self) -> None:
        """Take what A and B, with the components' factors, add now off the frozen weight, in place of any before."""
        factors = self.factors(self.max_rank)
        self.offset_A.copy_(self.lora_A)
        self.offset_B.copy_(self.lora_B if factors is None else self.lora_B * factors)
        self.offset_scaling.fill_(self.scaling)
        self.offsets, self._cast = self.rank, None

    def share(self, name: str, parameter: nn.Parameter) -> None:
        """Refuse to share: the offset is that of the own A and B.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"strategy.init=lora_ga: starts every module at its own A and B, and this strategy lets modules share "
            f"{name}; use another init"
        )

    def component_parts(self) -> list[tuple[Tensor, int]]:
        """Return the tensors of each component, what it started as among them: one that goes takes its offset along."""
        return [*super().component_parts(), (self.offset_A, 0), (self.offset_B, 1)]

    def outer_tensors(self) -> list[Tensor]:
        """Return B and B0: the update is the difference of two products."""
        return [self.lora_B, self.offset_B]

    def rescaled(self, factor: float) -> None:
        """Let the copy that computes be rebuilt."""
        self._cast = None

    def packed(self) -> None:
        """Count the offset's components again, and let the copy that computes be rebuilt."""
        self.loaded()

    def loaded(self) -> None:
        """Count the offset's components, and let the copy that computes be rebuilt."""
        used = self.offset_A.abs().sum(1).nonzero()
        self.offsets, self._cast = int(used.max()) + 1 if len(used) else 0, None

    def frozen_weight(self) -> Tensor:
        """Return W0 - scaling · B0 A0, as the base's weight is, in fp32 at least: it is cast once, by the caller."""
        weight, offset = super().frozen_weight(), self._offset()
        return weight - (offset if isinstance(self.base_layer, nn.Linear) else offset.t())

    def low_rank(self) -> tuple[Tensor, Tensor]:
        """Return A over A0, and B beside -B0: one update of twice the components."""
        A, B = super().low_rank()
        n, factor = self.offsets, float(self.offset_scaling) / self.scaling
        return torch.cat([A, self.offset_A[:n]]), torch.cat([B, -factor * self.offset_B[:, :n]], 1)

    def _update(self, x: Tensor, *args, **kwargs) -> Tensor:
        """Return the update alone; the offset sees all of x, dropout or not."""
        n = self.offsets
        held = F.linear(F.linear(x, self.offset_A[:n]), self.offset_B[:, :n])
        return super()._update(x, *args, **kwargs) - self.offset_scaling * held

    def idle(self) -> list[int]:
        """Return nothing: the frozen weight gave up what a component began with, and gets it back when that goes."""
        return []

    def _offset(self) -> Tensor:
        """Return scaling · B0 A0, (d_out, d_in)."""
        return self.offset_scaling * (self.offset_B[:, : self.offsets] @ self.offset_A[: self.offsets])
