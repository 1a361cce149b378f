"""Sharing: which modules could use one tensor, which do, and whose lie nearest to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo


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
def distances(adapters: Adapters, members: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    """Return how far the B of each of `members` is from that of each, (n, n) as rows, to four digits."""
    held = [adapters[index].lora_B.detach() for index in members]
    return tuple(tuple(round(distance(one, other), 4) for other in held) for one in held)


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


def nearest(adapters: Adapters, members: Sequence[int]) -> dict[int, float]:
    """Return how far each of `members` is from the nearest B among them that it does not share; NaN without another."""
    groups = groups_of(adapters)
    found: dict[int, float] = {}
    for index in members:
        others = {int(groups[other]) for other in members} - {int(groups[index])}
        own = adapters[index].lora_B.detach()
        found[index] = min((distance(own, adapters[other].lora_B.detach()) for other in others), default=float("nan"))
    return found


@torch.no_grad()
def merge_jump(adapters: Adapters, merges: Sequence[Sequence[int]]) -> Tensor:
    """Return what these merges of B change the loss by, to first order, (): Σ ⟨∂L/∂B, mean - B⟩ over their tensors.

    Gradients must be readable; a tensor without one counts as zero.
    """
    groups, jump = groups_of(adapters), adapters[0].lora_B.new_zeros(())
    label = groups.copy()
    for merge in merges:
        joined = {int(label[index]) for index in merge}
        label[np.isin(label, list(joined))] = min(joined)
    for one in {int(label[index]) for merge in merges for index in merge}:
        users = np.flatnonzero(label == one).tolist()
        mean = torch.stack([adapters[user].lora_B for user in users]).mean(0)
        for owner in {int(groups[user]) for user in users}:
            tensor = adapters[owner].lora_B
            if tensor.grad is not None:
                jump = jump + (tensor.grad * (mean - tensor)).sum()
    return jump
