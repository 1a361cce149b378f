"""Components go and come: survivors keep their order, moments and tracked state follow, growth keeps the function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.moments import begin_moments, component_gates, component_tensors, gate_rows, state_of
from dynlora.engine.edits.values import Grow
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear, resized
from dynlora.engine.randomness import stream


def drop(adapters: Adapters, index: int, positions: set[int], optimizer: Optimizer | None) -> None:
    """Take components off a module: survivors keep their order, the tail is zero in weights and moments."""
    module = adapters[index]
    if not all(0 <= position < module.rank for position in positions):
        raise ValueError(f"drop {sorted(positions)} of {module.info.name}: only 0 to {module.rank - 1} are active")
    keep = [position for position in range(module.rank) if position not in positions]
    for tensor, dim in [*component_tensors(module, optimizer), *gate_rows(adapters, index, optimizer)]:
        _pack(tensor, dim, keep)
    if module.scale is not None and not module.scale.requires_grad:
        module.scale[len(keep) :] = 1  # as in a module that was never full
    for name, state in adapters.components.items():
        row = state[index]
        remaining = row[keep].clone()
        row.fill_(adapters.grown_value[name])
        row[: len(keep)] = remaining
    module.rank = len(keep)
    module.packed()


def _pack(tensor: Tensor, dim: int, keep: Sequence[int]) -> None:
    """Move the kept components to the front along `dim` and zero the rest, in place."""
    remaining = tensor.index_select(dim, torch.tensor(keep, dtype=torch.long, device=tensor.device))
    tensor.zero_()
    tensor.narrow(dim, 0, len(keep)).copy_(remaining)


def grow_component(adapters: Adapters, grow: Grow, optimizer: Optimizer | None, step: int) -> None:
    """Activate the next row: a, b and e where the edit says or drawn, second moment at the siblings' mean."""
    index, module = grow.module, adapters[grow.module]
    if module.rank >= module.max_rank:
        raise ValueError(f"grow {module.info.name}: already at max_rank={module.max_rank}")
    position = module.rank
    make_room(module, position + 1, optimizer)
    module.lora_A[position] = new_row(module, adapters.seed, step, grow.direction, grow.length)
    module.lora_B[:, position] = 0 if grow.column is None else grow.column
    if module.scale is not None:
        usual = 1 if position == 0 else module.scale[:position].abs().mean()
        module.scale[position] = usual if grow.scale is None else grow.scale
    for parameter, dim in module.component_parts():
        begin_moments(optimizer, parameter, dim, position)
    for parameter in component_gates(adapters):
        begin_moments(optimizer, parameter, 0, position, row=index)
    for name, state in adapters.components.items():
        state[index, position] = adapters.grown_value[name]
    module.rank = position + 1


def new_row(
    module: LoraLinear, seed: int, step: int, direction: Tensor | None = None, length: float | None = None
) -> Tensor:
    """Return a fresh row of A, (d_in,), of norm `length`: that of its siblings' mean, or of a row of uniform LoRA.

    It points along `direction`, or is drawn and made orthogonal to the active rows where there is room.
    """
    rows = module.lora_A[: module.rank]
    row = direction
    if row is None:
        generator = stream(seed, module.info.name, "grow", step, module.rank)
        row = orthogonal_draw(rows, generator)
    usual = rows.norm(dim=1).mean() if module.rank else torch.tensor((1 / 3) ** 0.5, device=row.device)
    return row / row.norm().clamp_min(1e-12) * (usual if length is None else length)


def orthogonal_draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return a normal draw, (d,), less its projection on `rows`, (n, d), where there is room beside them."""
    draw = torch.randn(rows.shape[1], generator=generator).to(rows.device)
    if not 0 < len(rows) < rows.shape[1]:
        return draw
    basis = torch.linalg.qr(rows.t().float()).Q
    return draw - basis @ (basis.t() @ draw)


def make_room(module: LoraLinear, rows: int, optimizer: Optimizer | None) -> None:
    """Hold memory for at least `rows` components."""
    if module.holds_live and module.held < rows:
        _hold(module, rows, optimizer)


def give_back(modules: Iterable[LoraLinear], optimizer: Optimizer | None) -> None:
    """Hold memory for live components alone, in the modules that do so at all."""
    for module in modules:
        if module.holds_live and module.held > module.rank:
            _hold(module, module.rank, optimizer)


def _hold(module: LoraLinear, rows: int, optimizer: Optimizer | None) -> None:
    """Resize the module's tensors and the moments that have their shape."""
    moments = [
        (cast(dict[str, Any], state_of(optimizer, parameter)), name, dim)
        for parameter, dim in module.component_parts()
        for name, value in state_of(optimizer, parameter).items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    ]
    module.hold(rows)
    for state, name, dim in moments:
        state[name] = resized(state[name], dim, rows)
