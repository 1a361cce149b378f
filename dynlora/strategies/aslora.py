"""ASLoRA: one A for all layers of a kind, and columns B that are merged between layers while training."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.edits.components import merge_moments, weighted_mean
from dynlora.engine.edits.values import Change
from dynlora.engine.loop.schedule import Phases
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.strategy import OwnSignal, Strategy, setting, start_setting, state
from dynlora.errors import ConfigError


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
def closest_groups(adapters: Adapters, members: Sequence[int], n_groups: int) -> list[tuple[list[int], float]]:
    """Return which groups among `members` to merge, nearest first, until `n_groups` are left.

    Each entry holds one module of every group that merges, and the distance at which they did. Means stand for groups
    merged in the same call.
    """
    groups = groups_of(adapters)
    held: dict[int, tuple[Tensor, int]] = {}
    for index in members:
        value, size = held.get(int(groups[index]), (adapters[index].lora_B.detach(), 0))
        held[int(groups[index])] = (value, size + 1)
    merges: list[tuple[list[int], float]] = []
    while len(held) > max(1, n_groups):
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


@dataclass
class AsLora(Strategy):
    """h_l = W_l x + s · B_g(l) A_kind x: A is shared by every layer, B by the layers of a group.

    All modules of a kind share one A from the start. During training, the two B of a kind with the smallest distance
    d_ij = ‖B_i - B_j‖ / (‖B_i‖ + ‖B_j‖) become one. It is their mean, weighted by how many layers use each, with the
    moments of the sum of their gradients. This continues until a fraction of the layers is left as groups.

    Paper: Mu et al. 2024, ASLoRA, arXiv 2412.10135.
    Differs: only the abstract was available (A shared globally, B merged adaptively, less than a quarter of the
    parameters). Distance, schedule and number of groups are a reconstruction. The rank is raised until the budget of
    uniform LoRA is spent before B merges (`rank_factor` 1 is LoRA's rank, as published). What merging saves after that
    is not spent again.
    """

    title = "ASLoRA"
    summary = (
        "All layers share one A for each kind of module, which pays for a higher rank. Layers with similar B are "
        "merged to share it too, so the adapter shrinks while it trains."
    )
    formula = r"h_l = W_l x + s\,B_{g(l)} A x, \quad d_{ij} = \|B_i - B_j\| \,/\, (\|B_i\| + \|B_j\|)"
    paper = "Mu et al. 2024, arXiv 2412.10135"
    fidelity = "reconstruction"
    cost = "none per step; distances between the B of a kind at a merge"
    state_memory = "less"
    own_signals = {
        "group": OwnSignal("sharing groups", "Which layers share one B", grouping=True),
        "distance": OwnSignal(
            "distance to the nearest B", "Which layers were closest to sharing one, at the last merge"
        ),
    }

    init: str = start_setting(("kaiming", "gaussian"))
    group_share: float = setting(0.5, "Groups of B left at the end, as a fraction of the layers.", gt=0, le=1)
    rank_factor: float | None = setting(
        None, "Rank, in uniform ranks. Empty: as large as uniform LoRA's parameters allow.", ge=0.25, le=64
    )
    warmup_steps: int | None = setting(None, "Steps before the first merge. Empty: 12 %.", unit="steps", ge=0)
    final_steps: int | None = setting(None, "Steps after the last merge. Empty: 30 %.", unit="steps", ge=0)
    allocate_every: int | None = setting(None, "Steps between merges. Empty: 5 %.", unit="steps", ge=1)

    apart: list[float] = state(list)
    merged: dict[str, float] = state(dict)

    def check(self, total: int, rank: int) -> None:
        """Refuse a schedule without merges, and several processes."""
        self.phases(total)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and self.group_share < 1:
            raise ConfigError(
                f"strategy.group_share={self.group_share}: tensors cannot be merged over several processes; set it to "
                "1, or train in one process"
            )

    def phases(self, total: int) -> Phases:
        """Return when B may merge in a run of `total` steps."""
        set_apart = {name: getattr(self, name) for name in ("warmup_steps", "final_steps", "allocate_every")}
        return Phases.of(total, **set_apart, share=0.05, memory=1)

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which B may merge."""
        return self.phases(total).events() if self.group_share < 1 else []

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Return one rank a kind: as given, or what uniform LoRA's parameters of that kind buy when A is shared."""
        ranks = [0] * len(modules)
        for members in kinds_of(modules).values():
            first = modules[members[0]]
            allowed = probe.rank * first.cost * len(members) / (first.d_in + first.d_out * len(members))
            rank = allowed if self.rank_factor is None else probe.rank * self.rank_factor
            for member in members:
                ranks[member] = max(1, min(int(rank), first.d_in, first.d_out))
        return ranks

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return an adapter that shares A with those of its kind."""
        adapter = super().adapter(module, base, rank, max_rank, probe)
        adapter.share("lora_A", self.shared.setdefault((module.kind, module.d_in, module.d_out), adapter.lora_A))
        return adapter

    @cached_property
    def shared(self) -> dict[tuple[str, int, int], nn.Parameter]:
        """The one A of each kind, as the adapters are made."""
        return {}

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Merge the nearest groups of every kind, as many as keeps pace with the schedule."""
        phases = self.phases(step.total)
        self.merged = {}
        if self.group_share >= 1 or not phases.is_event(step.index):
            return []
        events = phases.events()
        progress = (events.index(step.index) + 1) / len(events)
        ties: list[Tie] = []
        apart: dict[int, float] = {}
        for members in kinds_of([module.info for module in adapters]).values():
            last = max(1, math.ceil(self.group_share * len(members)))
            count = len(members) - round(progress * (len(members) - last))
            merges = [Tie(tuple(pair), "lora_B", gap) for pair, gap in closest_groups(adapters, members, count)]
            if merges:
                merges[0] = replace(merges[0], among=tuple(members), distances=distances(adapters, members))
            ties += merges
            apart |= nearest(adapters, members)
        self.apart = [apart[index] for index in range(len(adapters))]
        if ties:
            jump = float(merge_jump(adapters, [tie.modules for tie in ties]))
            self.merged = {"merge_distance": max(tie.distance for tie in ties), "merge_jump": jump}
        return [*ties]

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record which group each module's B belongs to, the place of its first module, and how near the next is."""
        apart = {"distance": np.array(self.apart)} if self.apart else {}
        return {"group": groups_of(adapters), **apart}

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record how many different B there are; at a merge the largest distance and what it does to the loss."""
        return {"groups": float(len(np.unique(groups_of(adapters)))), **self.merged}
