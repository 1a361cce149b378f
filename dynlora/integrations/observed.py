"""What is looked at while others train: adapters that PEFT made, or every linear layer. The model is not touched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora import tasks
from dynlora.analysis.retention import effect_of
from dynlora.engine.loop.step_signals import UNITS, spectrum
from dynlora.engine.model.modules import ModuleInfo, describe_modules, linear_features
from dynlora.engine.randomness import stream
from dynlora.errors import ConfigError
from dynlora.store.measurements import Knockouts

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

    @property
    def is_off(self) -> bool:
        """Whether the adapters are disabled, or merged into the weight, so that they are not trained."""
        return bool(getattr(self.layer, "disable_adapters", False) or getattr(self.layer, "merged", False))

    @property
    def weight(self) -> Tensor:
        """The frozen weight, (d_out, d_in), or as a quantised module keeps it."""
        return self.layer.get_base_layer().weight

    def trained_tensors(self) -> list[nn.Parameter]:
        """Return A, B and AdaLoRA's factors."""
        tensors: list[Any] = [self.lora_A, self.lora_B, self.lora_E]
        return [tensor for tensor in tensors if tensor is not None]

    def importance(self) -> Tensor:
        """Return Σ_j |⟨b_j, ∂L/∂b_j⟩| of the gradients that are there, zero without any."""
        gradient = self.lora_B.grad
        if gradient is None:
            return self.lora_B.new_zeros(())
        each = torch.linalg.vecdot(self.lora_B.detach().float(), gradient.float(), dim=0)
        return each.abs().sum()

    def gradient_norm(self) -> Tensor:
        """Return the norm of the gradients of A and B."""
        norms = [tensor.grad.float().norm() for tensor in (self.lora_A, self.lora_B) if tensor.grad is not None]
        return torch.stack(norms).norm() if norms else self.lora_A.new_zeros(())


def observed(model: nn.Module) -> list[Observed]:
    """Return the adapted modules of a model, in order; LoRA and AdaLoRA of its active adapter."""
    modules = {name: module for name, module in model.named_modules() if _active(module) is not None}
    shapes = {name.removeprefix(PREFIX): _shape(module) for name, module in modules.items()}
    infos = {info.name: info for info in describe_modules(base_of(model), shapes)}
    return [_one(infos[name.removeprefix(PREFIX)], module) for name, module in modules.items()]


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


FRACTION = "fraction of the step"
"""Unit of the importance: the Trainer clips gradients, all of a step by one factor, which a fraction is free of."""

SAMPLED = 65_536
"""Entries of a layer's weight that its update is estimated from; a smaller weight is compared whole."""


class WatchedAdapters:
    """The adapters of PEFT's in a model, step by step.

    Attributes:
        modules: the adapted modules, in order.
    """

    units = {**{name: unit for name, unit in UNITS.items() if name not in ("gate", "scale")}, "importance": FRACTION}

    def __init__(self, model: nn.Module) -> None:
        """Find the adapters in use.

        Raises:
            ConfigError: when there are none.
        """
        self.modules = observed(model)
        self._before: dict[str, Tensor] = {}
        if not self.modules:
            raise ConfigError("the model has no LoRA or AdaLoRA modules of PEFT's that are in use")

    @property
    def infos(self) -> list[ModuleInfo]:
        """Name, place and shape of each module."""
        return [module.info for module in self.modules]

    def ranks(self) -> list[int]:
        """Return the components that each module was made with."""
        return [module.rank for module in self.modules]

    @torch.no_grad()
    def before_step(self) -> None:
        """Look at the gradients: complete, and the weights have not moved."""
        importance = torch.stack([module.importance() for module in self.modules])
        norm = torch.stack([module.gradient_norm() for module in self.modules])
        self._before = {"importance": importance / importance.sum().clamp_min(1e-30), "grad_norm": norm}

    def after_step(self, *, due: bool) -> dict[str, Tensor]:
        """Return the signals of the step, norms where they are due; empty where no gradients were looked at."""
        if not self._before:
            return {}
        before, self._before = self._before, {}
        ranks = torch.stack([module.active_rank_on_device() for module in self.modules])
        signals = {"importance": before["importance"], "rank": ranks}
        if due:
            norm, effective = torch.stack([torch.stack(spectrum(one)) for one in self.modules]).unbind(1)
            signals |= {"grad_norm": before["grad_norm"], "delta_norm": norm, "effective_rank": effective}
        return signals

    def parameters(self) -> dict[str, int]:
        """Return parameters: budget, active and allocated."""
        whole = sum(module.rank * module.info.cost for module in self.modules)
        active = sum(int(module.active_rank_on_device()) * module.info.cost for module in self.modules)
        return {"budget": whole, "active": active, "allocated": whole, "gate": 0, "head": 0}


class WatchedLayers:
    """Every linear layer of a model, whatever trains it: norms of gradients and of updates.

    The update of a layer is compared with where it began in `SAMPLED` entries, drawn once: ‖ΔW‖² ≈ Σ ΔW_i² · N / n. Its
    rank is all that can change: the smaller side of a layer that is trained, 0 of a frozen one.

    Attributes:
        modules: none; no adapter is looked at.
    """

    units = {name: UNITS[name] for name in ("rank", "grad_norm", "delta_norm")}

    def __init__(self, model: nn.Module) -> None:
        """Find the linear layers.

        Raises:
            ConfigError: when there are none.
        """
        self.modules: list[Observed] = []
        base = base_of(model)
        shapes = {name: shape for name, part in base.named_modules() if (shape := linear_features(part)) is not None}
        self.infos = describe_modules(base, shapes)
        if not self.infos:
            raise ConfigError("the model has no linear layers")
        self._weights: list[Tensor] = [base.get_submodule(info.name).weight for info in self.infos]  # pyright: ignore
        self._entries = [_entries(place, weight) for place, weight in enumerate(self._weights)]
        self._start = [self._sample(place) for place in range(len(self.infos))]
        self._norms: Tensor | None = None

    def ranks(self) -> list[int]:
        """Return the smaller side of each layer that is trained, 0 of the others."""
        trained = [weight.requires_grad for weight in self._weights]
        return [
            min(info.d_in, info.d_out) if is_trained else 0
            for info, is_trained in zip(self.infos, trained, strict=True)
        ]

    @torch.no_grad()
    def before_step(self) -> None:
        """Look at the gradients: complete, and the weights have not moved."""
        zero = self._weights[0].new_zeros(())
        gradients = [weight.grad for weight in self._weights]
        self._norms = torch.stack([zero if one is None else one.float().norm().to(zero) for one in gradients])

    @torch.no_grad()
    def after_step(self, *, due: bool) -> dict[str, Tensor]:
        """Return the signals of the step where they are due."""
        if self._norms is None or not due:
            return {}
        norms, self._norms = self._norms, None
        updates = torch.stack([self._update(place) for place in range(len(self.infos))]).to(norms)
        return {"rank": norms.new_tensor(self.ranks()), "grad_norm": norms, "delta_norm": updates}

    def parameters(self) -> dict[str, int]:
        """Return the parameters that are trained in the layers; there is no budget."""
        active = sum(weight.numel() for weight in self._weights if weight.requires_grad)
        return {"budget": 0, "active": active, "allocated": active, "gate": 0, "head": 0}

    def _sample(self, place: int) -> Tensor:
        """Return the compared entries of a weight; none of a frozen one."""
        weight, entries = self._weights[place].detach(), self._entries[place]
        if not self._weights[place].requires_grad:
            return weight.new_zeros(0)
        return (weight.flatten() if entries is None else weight.flatten()[entries]).float().clone()

    def _update(self, place: int) -> Tensor:
        """Return ‖W − W_start‖_F, estimated from the compared entries."""
        now, start = self._sample(place), self._start[place]
        if not len(now) or len(now) != len(start):
            return self._weights[place].new_zeros(())
        return (now - start).norm() * math.sqrt(self._weights[place].numel() / len(now))


def _entries(place: int, weight: Tensor) -> Tensor | None:
    """Return the places of the entries that are compared, drawn once; None for all."""
    if weight.numel() <= SAMPLED:
        return None
    draw = torch.randint(weight.numel(), (SAMPLED,), generator=stream(0, "watched layer", place))
    return draw.to(weight.device)


def scalings(modules: list[Observed]) -> Mapping[str, float]:
    """Return the scaling of each module by name."""
    return {module.info.name: module.scaling for module in modules}


Batch = Mapping[str, Tensor]
"""Inputs of the model and `labels`, as the Trainer's collator makes them."""


def ablated(
    model: nn.Module, modules: Sequence[Observed], batches: Iterable[Batch], *, rows: int, step: int, seed: int
) -> Knockouts:
    """Return what the first held-out examples lose without each module, δ_m = L(all but m) - L(all).

    Args:
        model: with PEFT's adapters.
        modules: its adapted modules.
        batches: held-out examples; as many batches as hold `rows` are read, the last one whole.
        rows: held-out examples, about.
        step: optimizer steps behind the adapter.
        seed: of the bootstrap.
    """
    device, was_training = next(model.parameters()).device, model.training
    batches_used = list(_first(batches, rows, device))
    model.eval()
    try:
        whole = _judged(model, batches_used)
        effects = []
        for index, module in enumerate(modules):
            with without(module):
                effects.append(effect_of([index], whole, _judged(model, batches_used), seed))
    finally:
        model.train(was_training)
    return Knockouts(
        which="last",
        step=step,
        rows=len(whole[0]),
        loss=float(whole[0].mean()),
        groups=(),
        n_modules=len(modules),
        effects=tuple(effects),
    )


@contextmanager
def without(module: Observed) -> Iterator[None]:
    """Switch one adapter off inside the block: PEFT multiplies its update by the scaling."""
    scaling: Any = module.layer.scaling
    before = scaling[module.adapter]
    try:
        scaling[module.adapter] = 0.0
        yield
    finally:
        scaling[module.adapter] = before


def _first(batches: Iterable[Batch], rows: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Yield batches until they hold so many examples."""
    left = rows
    for batch in batches:
        if left <= 0:
            return
        left -= len(batch["labels"])
        yield {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}


@torch.no_grad()
def _judged(model: nn.Module, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Return each example's loss, (n,), and prediction, (n,)."""
    base = base_of(model)
    task = tasks.of_model(base)
    losses, outputs = [], []
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        loss, output = task.judged(task.forward(base, inputs), batch["labels"])
        losses.append(loss.float().cpu().numpy())
        outputs.append(output.float().cpu().numpy())
    return np.concatenate(losses).astype(float), task.prediction(np.concatenate(outputs))
