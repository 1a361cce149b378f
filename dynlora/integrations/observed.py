"""Adapters that PEFT made, as they are looked at: nothing of the model is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.engine.model.modules import ModuleInfo, describe_modules

PREFIX = "base_model.model."
"""What PEFT puts before every name."""


@dataclass(frozen=True)
class Observed:
    """One adapted module of PEFT's: h = W0 x + scaling · B diag(E) A x, E being one in plain LoRA.

    Attributes:
        info: name, place and shape.
        lora_A: (r, d_in).
        lora_B: (d_out, r).
        lora_E: AdaLoRA's factors, (r, 1), zero where a component is masked; None in plain LoRA.
        scaling: alpha / r.
        layer: PEFT's own module.
        adapter: name of the adapter in use.
    """

    info: ModuleInfo
    lora_A: Tensor
    lora_B: Tensor
    lora_E: Tensor | None
    scaling: float
    layer: Any
    adapter: str

    @property
    def rank(self) -> int:
        """Components that the module was made with."""
        return len(self.lora_A)

    def active_rank_on_device(self) -> Tensor:
        """Return the components that reach the output: those whose factor is not zero."""
        if self.lora_E is None:
            return torch.tensor(float(self.rank), device=self.lora_A.device)
        return (self.lora_E.detach() != 0).sum().float()

    def measured(self) -> tuple[Tensor, Tensor]:
        """Return A and B of the update, AdaLoRA's factors in B."""
        B = self.lora_B.detach()
        return self.lora_A.detach(), B if self.lora_E is None else B * self.lora_E.detach().t()

    def importance(self) -> Tensor:
        """Return Σ_j |⟨b_j, ∂L/∂b_j⟩| / (r · (d_in + d_out)) of the gradients that are there, zero without any."""
        gradient = self.lora_B.grad
        if gradient is None:
            return self.lora_B.new_zeros(())
        each = torch.linalg.vecdot(self.lora_B.detach().float(), gradient.float(), dim=0)
        return each.abs().sum() / (max(1, self.rank) * self.info.cost)

    def gradient_norm(self) -> Tensor:
        """Return the norm of the gradients of A and B."""
        found = [tensor.grad.float().norm() for tensor in (self.lora_A, self.lora_B) if tensor.grad is not None]
        return torch.stack(found).norm() if found else self.lora_A.new_zeros(())


def observed(model: nn.Module) -> list[Observed]:
    """Return the adapted modules of a model, in order; LoRA and AdaLoRA of its active adapter."""
    found = {name: module for name, module in model.named_modules() if _active(module) is not None}
    shapes = {name.removeprefix(PREFIX): _shape(module) for name, module in found.items()}
    infos = {info.name: info for info in describe_modules(base_of(model), shapes)}
    return [_one(infos[name.removeprefix(PREFIX)], module) for name, module in found.items()]


def base_of(model: nn.Module) -> nn.Module:
    """Return the model that PEFT wrapped; one that took `add_adapter` is its own."""
    get: Any = getattr(model, "get_base_model", None)
    return get() if get is not None else model


def _active(module: Any) -> str | None:
    """Return the name of the adapter that a module of PEFT's uses; None for any other module."""
    factors = getattr(module, "lora_A", None)
    names = getattr(module, "active_adapters", None)
    if not isinstance(factors, nn.ModuleDict | nn.ParameterDict) or not isinstance(names, list):
        return None
    return next((name for name in names if name in factors), None)


def _factors(module: Any) -> Iterator[Tensor]:
    """Yield A and B of a module's active adapter; LoRA keeps linear modules, AdaLoRA parameters."""
    name = _active(module)
    for factors in (module.lora_A, module.lora_B):
        one = factors[name]
        yield one if isinstance(one, Tensor) else one.weight


def _shape(module: Any) -> tuple[int, int]:
    A, B = _factors(module)
    return int(A.shape[1]), int(B.shape[0])


def _one(info: ModuleInfo, module: Any) -> Observed:
    A, B = _factors(module)
    name = _active(module) or ""
    if not hasattr(module, "lora_E"):
        return Observed(info, A, B, None, float(module.scaling[name]), module, name)
    scaling = float(module.scaling[name]) / float(module.ranknum[name])
    return Observed(info, A, B, module.lora_E[name], scaling, module, name)


def scalings(modules: list[Observed]) -> Mapping[str, float]:
    """Return the scaling of each module by name."""
    return {module.info.name: module.scaling for module in modules}
