"""Edits: what a strategy may do to the adapters, as values; `apply` performs them and repairs the optimizer.

This is the only place that changes an adapter's structure or the optimizer's state. A strategy returns edits and so
can be tested without a trainer, the decision log is free, and logging cannot change a result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from dynlora.engine.edits.components import drop, give_back, grow_component, new_row, orthogonal_draw
from dynlora.engine.edits.values import (
    Change,
    Drop,
    Edit,
    Grow,
    Move,
    SetScale,
    describe,
    is_logged,
)
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear

__all__ = [
    "Change",
    "Drop",
    "Edit",
    "Grow",
    "Move",
    "SetScale",
    "apply",
    "describe",
    "is_logged",
    "new_row",
    "orthogonal_draw",
]


@torch.no_grad()
def apply(adapters: Adapters, edits: Sequence[Edit], optimizer: Optimizer | None, *, step: int) -> None:
    """Perform `edits` on the adapters, their component state and the optimizer's moments.

    All drops refer to positions before this call; they are done first, then the growth.

    Raises:
        ValueError: when an edit names a component that is not active, or grows a module past its max_rank.
    """
    if not edits:
        return
    drops, grown = _sorted_out(edits)
    for index, positions in drops.items():
        drop(adapters, index, positions, optimizer)
    for grow in grown:
        grow_component(adapters, grow, optimizer, step)
    for edit in edits:
        if isinstance(edit, SetScale):
            _set_scale(adapters[edit.module], edit)
    for edit in edits:
        if isinstance(edit, Change):
            edit.perform(adapters, optimizer, step)
    give_back(adapters, optimizer)


def _sorted_out(edits: Sequence[Edit]) -> tuple[dict[int, set[int]], list[Grow]]:
    """Return the components that go, by module, and the growth, one entry per new component."""
    drops: dict[int, set[int]] = defaultdict(set)
    grown: list[Grow] = []
    for edit in edits:
        if isinstance(edit, Drop | Move):
            for going in edit.donors if isinstance(edit, Move) else (edit,):
                drops[going.module].add(going.component)
        if isinstance(edit, Grow | Move):
            grown.append(edit.receiver if isinstance(edit, Move) else edit)
    return drops, grown


def _set_scale(module: LoraLinear, edit: SetScale) -> None:
    """Write the scale of the active components; a module that had none gets one."""
    if len(edit.values) not in (1, module.rank):
        raise ValueError(f"scale of {module.info.name}: {len(edit.values)} values for rank {module.rank}")
    if module.scale is None:
        module.use_scale(1.0, trainable=False)
    scale = module.scale
    if scale is not None:
        scale[: module.rank] = torch.tensor(edit.values, dtype=scale.dtype, device=scale.device)
