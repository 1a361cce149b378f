"""The optimizer's state beside the weights: per-component tensors with their moments, found and repaired together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.adapters import Adapters
from dynlora.engine.lora_linear import LoraLinear


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
    """Begin a parameter's moments and step count anew."""
    if optimizer is not None:
        optimizer.state.pop(parameter, None)


def merge_moments(optimizer: Optimizer | None, parameters: Sequence[Tensor], share: Sequence[float]) -> None:
    """Give the first parameter the weighted mean of all moments, and take the others out of the optimizer."""
    if optimizer is None:
        return
    survivor, *others = parameters
    kept = state_of(optimizer, survivor)
    for key, value in kept.items():
        if isinstance(value, Tensor) and value.shape == survivor.shape:
            value.copy_(weighted_mean([state_of(optimizer, parameter)[key] for parameter in parameters], share))
    gone = {id(parameter) for parameter in others}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in gone]
    for parameter in others:
        forget(optimizer, parameter)


def weighted_mean(tensors: Sequence[Tensor], share: Sequence[float]) -> Tensor:
    """Return Σ share · tensor, the shares adding up to one."""
    return torch.stack([weight * tensor for weight, tensor in zip(share, tensors, strict=True)]).sum(0)


def gate_rows(adapters: Adapters, index: int, optimizer: Optimizer | None) -> list[tuple[Tensor, int]]:
    """Return a module's rows of the component gates and of their moments; none where modules have one gate each.

    A dropped component's are zeroed with it, so that one grown in its place begins with a gate of one.
    """
    gates = adapters.gates
    if gates is None or gates.mode != "rank":
        return []
    found = []
    for parameter in (gates.weight, gates.bias):
        moments = (value for value in state_of(optimizer, parameter).values() if isinstance(value, Tensor))
        found += [tensor[index] for tensor in (parameter, *moments) if tensor.shape == parameter.shape]
    return [(tensor, 0) for tensor in found]
