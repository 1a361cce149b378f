"""Sharing: which modules could use one tensor, which do, and whose lie nearest to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.adapters import Adapters
from dynlora.engine.modules import ModuleInfo


def kinds_of(modules: Sequence[ModuleInfo]) -> dict[tuple[str, int, int], list[int]]:
    """Return the positions of the modules of each kind and shape, in order."""
    found: dict[tuple[str, int, int], list[int]] = {}
    for index, info in enumerate(modules):
        found.setdefault((info.kind, info.d_in, info.d_out), []).append(index)
    return found


def groups_of(adapters: Adapters) -> np.ndarray:
    """Return the position of the first module that shares each module's B, (n_modules,)."""
    first: dict[int, int] = {}
    return np.array([first.setdefault(id(module.lora_B), index) for index, module in enumerate(adapters)])


def distance(one: Tensor, other: Tensor) -> float:
    """Return ‖B_i - B_j‖ / (‖B_i‖ + ‖B_j‖): 0 for equal tensors, 1 for opposite ones; 0 where both are zero."""
    size = float(one.norm() + other.norm())
    return float((one - other).norm()) / size if size > 0 else 0.0


@torch.no_grad()
def closest_groups(adapters: Adapters, members: Sequence[int], wanted: int) -> list[tuple[list[int], float]]:
    """Return which groups among `members` to merge, nearest first, until `wanted` are left.

    Each entry holds one module of every group that merges, and the distance at which they did. Means stand for groups
    merged in the same call.
    """
    groups = groups_of(adapters)
    held: dict[int, tuple[Tensor, int]] = {}
    for index in members:
        value, size = held.get(int(groups[index]), (adapters[index].lora_B.detach(), 0))
        held[int(groups[index])] = (value, size + 1)
    found: list[tuple[list[int], float]] = []
    while len(held) > max(1, wanted):
        names = sorted(held)
        pairs = [(distance(held[a][0], held[b][0]), a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        gap, a, b = min(pairs)
        (left, m), (right, n) = held[a], held.pop(b)
        held[a] = ((m * left + n * right) / (m + n), m + n)
        found.append(([a, b], gap))
    return found
