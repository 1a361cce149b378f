"""Initial ranks: uniform, or by what training examples say before the first step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynlora.engine.allocation.greedy import greedy_ranks
from dynlora.engine.allocation.solvers import trimmed_ranks
from dynlora.engine.context import Probe
from dynlora.engine.init.initializers import BATCHES, base_modules, probe_batches
from dynlora.engine.init.input_svd import input_directions
from dynlora.engine.init.svd import leading
from dynlora.engine.init.weight_gradients import weight_gradients
from dynlora.engine.model.gates import gate_numbers
from dynlora.engine.model.gradient_sketch import Directions
from dynlora.engine.model.modules import ModuleInfo, rank_limit
from dynlora.engine.randomness import stream
from dynlora.strategies.dynamic.gradient_accumulation import predicted_gain

INITIAL_RANKS = ("uniform", "inputs", "gradients")


def initial_ranks(
    way: str, modules: Sequence[ModuleInfo], probe: Probe, gates: str | None, *, limit: float, min_rank: int
) -> list[int]:
    """Return ranks that, with the gates, fit the budget of uniform LoRA.

    - uniform: the same everywhere, a few components short where gates have to be paid;
    - inputs: the components along which inputs vary most, by their fraction of the module's variance, as EVA ranks
      them (Paischer et al. 2024, arXiv 2410.07170);
    - gradients: the largest predicted gains per parameter, as at the first reallocation, of the frozen weights'
      gradients over a few batches (Wang et al. 2024, arXiv 2407.05000, and He et al. 2025, arXiv 2502.12171, look at
      these gradients too).

    Args:
        way: one of `INITIAL_RANKS`.
        modules: that are adapted.
        probe: the model, its training rows and the budget.
        gates: how the adapters react to the input; see `gates.gate_numbers`.
        limit: largest rank of a module, in uniform ranks.
        min_rank: minimum rank, before anything else counts.

    Raises:
        ConfigError: when training examples are needed and there are none.
    """
    gate = gate_numbers(gates)
    own, shared = (gate, 0) if gates == "rank" else (0, gate * len(modules))
    cost, budget = [info.cost + own for info in modules], probe.budget - shared
    if way == "uniform":
        return trimmed_ranks(probe.rank, cost, budget)
    max_ranks = [rank_limit(info, 0, probe.rank, limit) for info in modules]
    look = _explained if way == "inputs" else _predicted
    gains = [gain * c for gain, c in zip(look(modules, probe, max_ranks), cost, strict=True)]
    return greedy_ranks(gains, cost, max_ranks, budget=budget, min_rank=min_rank)


def _explained(modules: Sequence[ModuleInfo], probe: Probe, max_ranks: Sequence[int]) -> list[np.ndarray]:
    """Return the fraction of its inputs' variance that each component of a module explains, falling."""
    names = [info.name for info in modules]
    wanted = dict(zip(names, max_ranks, strict=True))
    found = input_directions(
        probe.model, base_modules(probe.model, names), probe_batches(probe, BATCHES), lambda _: wanted,
        limit=max(max_ranks), seed=probe.seed,
    )  # fmt: skip
    return [found[info.name].ratio.double().cpu().numpy()[: wanted[info.name]] for info in modules]


def _predicted(modules: Sequence[ModuleInfo], probe: Probe, max_ranks: Sequence[int]) -> list[np.ndarray]:
    """Return predicted gains per parameter along each weight's gradient, falling; see `predicted_gain`."""
    frozen = base_modules(probe.model, [info.name for info in modules])
    gradients = weight_gradients(probe.model, frozen, probe_batches(probe, BATCHES, labels=True), probe.task)
    found = []
    for info, most in zip(modules, max_ranks, strict=True):
        left, value, right = leading(gradients[info.name].float(), most, stream(probe.seed, info.name, "first ranks"))
        directions = Directions(left.t(), value, right)
        found.append(predicted_gain(directions, scaling=1.0, lr=1.0, steps=1) / info.cost)
    return found
