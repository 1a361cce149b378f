"""Probe rows and sketches: what looks on while training, without changing the function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from dynlora.engine.edits.moments import component_tensors
from dynlora.engine.edits.room import make_room
from dynlora.engine.edits.values import Edit, SetProbe
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import GradientSketch
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.randomness import stream


def end_probes(adapters: Adapters, edits: Sequence[Edit], optimizer: Optimizer | None, touched: Sequence[int]) -> None:
    """Take probe rows off every module that changes, or all of them when the edits say where probes go next."""
    remake = any(isinstance(edit, SetProbe) for edit in edits)
    for index, module in enumerate(adapters):
        if module.probes and (remake or index in touched):
            _end_probe(module, optimizer)


def _end_probe(module: LoraLinear, optimizer: Optimizer | None) -> None:
    """Return a probe row to the zero tail, its moments too."""
    for tensor, dim in component_tensors(module, optimizer):
        tensor.select(dim, module.rank).zero_()
    module.probes = 0


def start_probes(adapters: Adapters, indices: Sequence[int], step: int, optimizer: Optimizer | None = None) -> None:
    """Draw a probe row, a ~ N(0, 1/d_in) and b = 0, on each module with room for one."""
    for index in indices:
        module = adapters[index]
        if module.rank >= module.max_rank:
            continue
        make_room(module, module.rank + 1, optimizer)
        generator = stream(adapters.seed, module.info.name, "probe", step)
        row = torch.randn(module.info.d_in, generator=generator) / module.info.d_in**0.5
        module.lora_A[module.rank] = row.to(module.lora_A.device)
        module.probes = 1


def listen(adapters: Adapters, indices: Sequence[int], step: int, *, whitened: bool = False) -> None:
    """Begin an empty sketch on each of these modules, and none on the others."""
    for index, module in enumerate(adapters):
        wanted = index in indices
        module.sketch = _empty_sketch(module, adapters.seed, step, whitened) if wanted else None


def _empty_sketch(module: LoraLinear, seed: int, step: int, whitened: bool) -> GradientSketch:
    """Return a sketch that can tell apart as many directions as the module has room for components."""
    info = module.info
    return GradientSketch.empty(
        info.d_in, info.d_out,
        seed=seed, key=f"{info.name}/{step}", device=module.lora_A.device, triplets=module.max_rank,
        whitened=whitened,
    )  # fmt: skip
