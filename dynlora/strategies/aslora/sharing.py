"""Sharing: which modules could use one tensor, which do, and whose are nearest to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.components import merge_moments, weighted_mean
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo


def kinds_of(modules: Sequence[ModuleInfo]) -> dict[tuple[str, int, int], list[int]]:
    """Return the positions of the modules of each kind and shape, in order."""
    kinds: dict[tuple[str, int, int], list[int]] = {}
    for index, info in enumerate(modules):
        kinds.setdefault((info.kind, info.d_in, info.d_out), []).append(index)
    return kinds


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
    merges: list[tuple[list[int], float]] = []
    while len(held) > max(1, wanted):
        names = sorted(held)
        pairs = [(distance(held[a][0], held[b][0]), a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        gap, a, b = min(pairs)
        (left, m), (right, n) = held[a], held.pop(b)
        held[a] = ((m * left + n * right) / (m + n), m + n)
        merges.append(([a, b], gap))
    return merges


def nearest(adapters: Adapters, members: Sequence[int]) -> dict[int, float]:
    """Return how far each of `members` is from the nearest B among them that it does not share; NaN without another."""
    groups = groups_of(adapters)
    gaps: dict[int, float] = {}
    for index in members:
        others = {int(groups[other]) for other in members} - {int(groups[index])}
        own = adapters[index].lora_B.detach()
        gaps[index] = min((distance(own, adapters[other].lora_B.detach()) for other in others), default=float("nan"))
    return gaps


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


@dataclass(frozen=True)
class Tie(Change):
    """Let `modules` share one lora_A or lora_B from now on: the mean of theirs, each weighted by who uses it.

    The first module's tensor survives; the others leave the optimizer. From now on its gradient is the sum of what all
    of its users say, and so its moments are made those of a sum.

    Attributes:
        modules: one of each group that will share.
        name: of the tensor.
        distance: between what merges, for the log.
        among: the modules it was chosen among, for the log; empty where another row of the event tells.
        distances: between those, one row each, before the event.
    """

    modules: tuple[int, ...]
    name: Literal["lora_A", "lora_B"] = "lora_B"
    distance: float = float("nan")
    among: tuple[int, ...] = ()
    distances: tuple[tuple[float, ...], ...] = ()

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Tie, with all modules that share a tensor with one of these already."""
        tensor_ids = {id(getattr(adapters[index], self.name)) for index in self.modules}
        users = [module for module in adapters if id(getattr(module, self.name)) in tensor_ids]
        tensors: dict[int, Tensor] = {}
        weights: dict[int, int] = {}
        for module in users:
            tensor = getattr(module, self.name)
            tensors[id(tensor)] = tensor
            weights[id(tensor)] = weights.get(id(tensor), 0) + 1
        share = [weights[key] / len(users) for key in tensors]
        survivor = next(iter(tensors.values()))
        merge_moments(optimizer, list(tensors.values()))
        survivor.copy_(weighted_mean(list(tensors.values()), share))
        for module in users:
            setattr(module, self.name, survivor)
        survivor.grad = None  # the next backward adds up what all users say

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        row = {"edit": "tie", "modules": list(self.modules), "tensor": self.name, "distance": self.distance}
        chosen_from = {"among": list(self.among), "distances": [list(line) for line in self.distances]}
        return row | chosen_from if self.among else row
