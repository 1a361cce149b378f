"""The optimizer's state beside the weights: per-component tensors with their moments, found and repaired together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear


def component_tensors(module: LoraLinear, optimizer: Optimizer | None) -> list[tuple[Tensor, int]]:
    """Return weights and moments with the dimension that counts components."""
    pairs = module.component_parts()
    moments = [
        (value, dim)
        for parameter, dim in pairs
        for value in state_of(optimizer, parameter).values()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    ]
    return pairs + moments


def state_of(optimizer: Optimizer | None, parameter: Tensor) -> Mapping[str, Any]:
    """Return the optimizer's state of a parameter, empty before its first step."""
    return {} if optimizer is None else optimizer.state.get(parameter, {})


def forget(optimizer: Optimizer | None, parameter: Tensor) -> None:
    """Begin a parameter's moments and step count from zero."""
    if optimizer is not None:
        optimizer.state.pop(parameter, None)


def merge_moments(optimizer: Optimizer | None, parameters: Sequence[Tensor]) -> None:
    """Give the first parameter the moments of the sum of all gradients, and take the others out of the optimizer.

    First moments add up, and so do the roots of the second ones, the most that the root of a sum's can be: the
    survivor's first step is then no larger than the largest of theirs, where moments of one alone would let it take
    steps as many times the rate as there are parameters.
    """
    if optimizer is None:
        return
    survivor, *others = parameters
    states = [state_of(optimizer, parameter) for parameter in parameters]
    if "exp_avg" in states[0]:
        states[0]["exp_avg"].copy_(torch.stack([moments["exp_avg"] for moments in states]).sum(0))
        root = torch.stack([moments["exp_avg_sq"] for moments in states]).sqrt().sum(0)
        states[0]["exp_avg_sq"].copy_(root.square())
    gone = {id(parameter) for parameter in others}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in gone]
    for parameter in others:
        forget(optimizer, parameter)


def weighted_mean(tensors: Sequence[Tensor], share: Sequence[float]) -> Tensor:
    """Return Σ share · tensor, the shares adding up to one."""
    return torch.stack([weight * tensor for weight, tensor in zip(share, tensors, strict=True)]).sum(0)


def component_gates(adapters: Adapters) -> list[nn.Parameter]:
    """Return the gates' parameters, (n_modules, widest max_rank, ...), where every component has a gate of its own."""
    gates = adapters.gates
    return [] if gates is None or gates.mode != "rank" else [gates.weight, gates.bias]


def begin_moments(
    optimizer: Optimizer | None, parameter: Tensor, dim: int, position: int, row: int | None = None
) -> None:
    """Give a new component its moments in a parameter: none in the first, the siblings' mean in the second.

    Args:
        optimizer: that keeps the moments; without one there is nothing to do.
        parameter: the tensor that the component is part of.
        dim: its dimension that counts components, of one row where `row` is given.
        position: of the component; those before it are its siblings.
        row: of the module, where the parameter holds all modules.
    """
    moments = state_of(optimizer, parameter)
    for name in ("exp_avg", "exp_avg_sq"):  # an optimizer may keep one of them alone
        if name in moments:
            moment = moments[name] if row is None else moments[name][row]
            siblings = name == "exp_avg_sq" and position > 0
            moment.select(dim, position).copy_(
                moment.narrow(dim, 0, position).mean(dim)
                if siblings
                else torch.zeros_like(moment.select(dim, position))
            )


def gate_rows(adapters: Adapters, index: int, optimizer: Optimizer | None) -> list[tuple[Tensor, int]]:
    """Return a module's rows of the component gates and of their moments; none where modules have one gate each.

    A dropped component's are zeroed with it, so that one grown in its place begins with a gate of one.
    """
    rows = []
    for parameter in component_gates(adapters):
        moments = (value for value in state_of(optimizer, parameter).values() if isinstance(value, Tensor))
        rows += [tensor[index] for tensor in (parameter, *moments) if tensor.shape == parameter.shape]
    return [(tensor, 0) for tensor in rows]


def state_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of everything the optimizer keeps beside the weights, the head's moments among it."""
    tensors = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class RestartMoments(Change):
    """Begin the moments and step counts of everything that is trained from zero, the head's among them."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Forget every parameter."""
        for group in [] if optimizer is None else optimizer.param_groups:
            for parameter in group["params"]:
                forget(optimizer, parameter)
