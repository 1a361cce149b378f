"""The adapters' state as plain values, and back: what checkpoints and adapter folders share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.engine.adapters import Adapters
from dynlora.engine.checkpoint import copy_into
from dynlora.engine.lora_linear import LoraLinear
from dynlora.engine.sketch import GradientSketch
from dynlora.errors import CorruptRunError


def adapter_state(adapters: Adapters) -> dict[str, Any]:
    """Return ranks, weights, scales, gates and per-component state."""
    modules = {}
    owners: dict[int, str] = {}
    for module in adapters:
        live = module.rank + module.probes  # the rest is zero
        tied = {name: owners.setdefault(id(tensor), module.info.name) for name, tensor in _sharable(module).items()}
        tied = {name: owner for name, owner in tied.items() if owner != module.info.name}
        modules[module.info.name] = {
            "rank": module.rank,
            "max_rank": module.max_rank,
            "probes": module.probes,
            "scaling": module.scaling,
            "lora_A": None if "lora_A" in tied else module.lora_A[:live],
            "lora_B": None if "lora_B" in tied else module.lora_B[:, :live],
            "tied": tied,
            "scale": None if module.scale is None else module.scale[:live],
            "sketch": None if module.sketch is None else module.sketch.state(),
            "own": module.own_tensors(),
        }
    gates = None if adapters.gates is None else dict(adapters.gates.state_dict())
    return {"modules": modules, "gates": gates, "components": dict(adapters.components)}


def load_adapter_state(adapters: Adapters, state: Mapping[str, Any]) -> None:
    """Set the adapters to a saved state; parameters keep their identity.

    Raises:
        CorruptRunError: when the modules or shapes are others.
    """
    for module in adapters:
        kept = state["modules"].get(module.info.name)
        if kept is None:
            raise CorruptRunError(f"the saved adapter has no module {module.info.name}; it belongs to another model")
        _tie(adapters, module, kept.get("tied", {}))
        _load_module(module, kept)
    if (adapters.gates is None) != (state["gates"] is None):
        raise CorruptRunError("the saved adapter and the run disagree about gates; it belongs to another config")
    if adapters.gates is not None:
        for name, tensor in adapters.gates.state_dict().items():
            copy_into(tensor, state["gates"][name])
    for name, tensor in state["components"].items():
        copy_into(adapters.track(name), tensor)


def _sharable(module: LoraLinear) -> dict[str, Tensor]:
    """Return the tensors that several modules may share, by name."""
    return {"lora_A": module.lora_A, "lora_B": module.lora_B}


def _tie(adapters: Adapters, module: LoraLinear, tied: Mapping[str, str]) -> None:
    """Let a module share the tensors that the saved one shared, with modules that come before it."""
    owners = {other.info.name: other for other in adapters}
    for name, owner in tied.items():
        if owner not in owners or name not in _sharable(module):
            raise CorruptRunError(f"{module.info.name}: shares {name} with {owner}, which is not there")
        setattr(module, name, getattr(owners[owner], name))


def saved_sizes(state: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (rank, max_rank) by module name of a saved state."""
    return {name: (kept["rank"], kept["max_rank"]) for name, kept in state["modules"].items()}


@torch.no_grad()
def _load_module(module: LoraLinear, kept: Mapping[str, Any]) -> None:
    """Set one module to its saved state."""
    live = kept["rank"] + kept["probes"]
    if not 0 <= live <= module.max_rank:
        raise CorruptRunError(
            f"{module.info.name}: the saved adapter has rank {live}, there is room for {module.max_rank}"
        )
    if kept["lora_A"] is not None:
        module.lora_A.zero_()
        copy_into(module.lora_A[:live], kept["lora_A"])
    if kept["lora_B"] is not None:
        module.lora_B.zero_()
        copy_into(module.lora_B[:, :live], kept["lora_B"])
    if kept["scale"] is not None:
        if module.scale is None:
            module.use_scale(1.0, trainable=False)
        if module.scale is not None:
            copy_into(module.scale[:live], kept["scale"])
    for name, tensor in module.own_tensors().items():
        copy_into(tensor, kept["own"][name])
    module.rank, module.probes, module.scaling = kept["rank"], kept["probes"], kept["scaling"]
    module.loaded()
    sketch = kept.get("sketch")
    module.sketch = None if sketch is None else GradientSketch(**_copied(sketch, module.lora_A.device))


def _copied(values: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return plain values with their tensors copied to a device: running sums are changed in place."""
    return {key: value.to(device, copy=True) if isinstance(value, Tensor) else value for key, value in values.items()}


def head_state(head: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the head's tensors by name."""
    return dict(head)


def load_head_state(head: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Set the head's tensors.

    Raises:
        CorruptRunError: when the names or shapes are others.
    """
    if set(head) != set(state):
        raise CorruptRunError("the saved head has other tensors than the model's; it belongs to another model")
    for name, tensor in head.items():
        copy_into(tensor, state[name])
