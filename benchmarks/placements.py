"""Fixed placements of rank at exactly the parameters of uniform LoRA: arms that show whether allocation has headroom.

An arm is a set of modules. Its components go round these modules in an order that spreads them over the layers, as long
as what is left of the budget can still be spent to the last parameter. Where the costs inside of an arm do not divide
the budget, the fewest components that make up the difference go to other modules; `outside` says how many parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynlora.engine.model.modules import ATTENTION, MLP, ModuleInfo
from dynlora.engine.randomness import stream_seed

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo one, never crowd."""

RANDOM_ARMS = 8


@dataclass(frozen=True)
class Placement:
    """Ranks of one arm.

    Attributes:
        ranks: by module name; modules without a component are left out.
        outside: parameters in modules that do not belong to the arm.
    """

    ranks: Mapping[str, int]
    outside: int


def spendable(costs: Sequence[int], budget: int) -> np.ndarray:
    """Return which amounts from 0 to `budget` a number of components can cost exactly, (budget + 1,) bool."""
    reached = np.zeros(budget + 1, bool)
    reached[0] = True
    for cost in sorted(set(costs)):
        for amount in range(cost, budget + 1):
            reached[amount] |= reached[amount - cost]
    return reached


def uniform(infos: Sequence[ModuleInfo], rank: int) -> Placement:
    """Return one rank everywhere."""
    return Placement({info.name: rank for info in infos}, 0)


def placed(infos: Sequence[ModuleInfo], rank: int, belongs: Callable[[ModuleInfo], bool]) -> Placement:
    """Return even ranks of the modules that belong to an arm, at exactly the parameters of uniform rank.

    Args:
        infos: all adapted modules.
        rank: uniform rank whose parameters are the budget.
        belongs: says which modules the arm consists of.
    """
    budget = sum(rank * info.cost for info in infos)
    inside = [info for info in infos if belongs(info)]
    others = [info for info in infos if not belongs(info)]
    by_arm, by_others = spendable([i.cost for i in inside], budget), spendable([i.cost for i in others], budget)
    spent = next(amount for amount in range(budget, -1, -1) if by_arm[amount] and by_others[budget - amount])
    ranks = _in_turn(inside, spent, by_arm) | _in_turn(others, budget - spent, by_others)
    return Placement({name: held for name, held in ranks.items() if held}, budget - spent)


def drawn(infos: Sequence[ModuleInfo], rank: int, number: int) -> Placement:
    """Return ranks at random: each component goes to a module drawn evenly, until the budget is spent exactly."""
    left = sum(rank * info.cost for info in infos)
    can = spendable([info.cost for info in infos], left)
    rng = np.random.default_rng(stream_seed(number, "random placement"))
    ranks = {info.name: 0 for info in infos}
    while left:
        fits = [i for i in infos if i.cost <= left and can[left - i.cost] and ranks[i.name] < min(i.d_in, i.d_out)]
        info = fits[int(rng.integers(len(fits)))]
        ranks[info.name] += 1
        left -= info.cost
    return Placement({name: held for name, held in ranks.items() if held}, 0)


def arms(infos: Sequence[ModuleInfo], rank: int, n_random: int = RANDOM_ARMS) -> dict[str, Placement]:
    """Return every arm by its name, `uniform` first."""
    layers = sorted({info.layer for info in infos if info.layer is not None})
    half = layers[len(layers) // 2]
    members: dict[str, Callable[[ModuleInfo], bool]] = {
        "attention": lambda info: part_of(info) == ATTENTION,
        "mlp": lambda info: part_of(info) == MLP,
        "first half": lambda info: info.layer is not None and info.layer < half,
        "last half": lambda info: info.layer is not None and info.layer >= half,
    }
    for kind in dict.fromkeys(info.kind for info in infos):
        members[f"{kind} alone"] = lambda info, kind=kind: info.kind == kind
    arms_by_name = {"uniform": uniform(infos, rank)}
    arms_by_name |= {name: placed(infos, rank, belongs) for name, belongs in members.items()}
    return arms_by_name | {f"random {number + 1}": drawn(infos, rank, number) for number in range(n_random)}


def part_of(info: ModuleInfo) -> str:
    """Return attention or mlp, by the names inside of the block."""
    return ATTENTION if "attn" in info.kind or "attention" in info.kind else MLP


def _in_turn(infos: Sequence[ModuleInfo], budget: int, can: np.ndarray) -> dict[str, int]:
    """Return ranks of modules that get a component in turn while the rest of the budget can still be spent exactly."""
    order = sorted(range(len(infos)), key=lambda m: m * GOLDEN % 1)
    ranks = {info.name: 0 for info in infos}
    left = budget
    while left:
        before = left
        for m in order:
            info = infos[m]
            if info.cost <= left and can[left - info.cost] and ranks[info.name] < min(info.d_in, info.d_out):
                ranks[info.name] += 1
                left -= info.cost
        if left == before:
            raise ValueError(f"budget={budget}: {left} parameters cannot be placed in {len(infos)} modules")
    return ranks
