"""GLoRA: a super-net of scaled and shifted weights and biases, and a search for the best path of every module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.context import Probe, Step
from dynlora.engine.data.held_back import HeldBack
from dynlora.engine.edits import Edit
from dynlora.engine.evaluation.evaluate import predict
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo, check_weights
from dynlora.engine.randomness import stream_seed
from dynlora.engine.strategy import OwnSignal, Strategy, setting, start_setting
from dynlora.errors import ConfigError
from dynlora.strategies.glora.layer import FORMS, LORA, SIZE, GloraLinear, SettlePaths, path_cost, usable

BATCH = 64
"""Rows a forward pass, whatever the run trains with, so that it does not decide between close candidates."""

DIGITS = 5
"""Decimals of a loss that count: many paths do not change the function, and rounding must not choose among them."""

Candidate = tuple[str, ...]
"""One path a module."""


@dataclass(frozen=True)
class Space:
    """What may be chosen.

    Attributes:
        modules: of the model.
        paths: that each may take.
        ranks: of each module's low-rank forms.
        limit: parameters that a candidate may use.
    """

    modules: Sequence[ModuleInfo]
    paths: Sequence[Sequence[str]]
    ranks: Sequence[int]
    limit: int

    def cost(self, candidate: Candidate) -> int:
        """Return the parameters that a candidate uses."""
        return sum(map(path_cost, candidate, self.modules, self.ranks))

    def drawn(self, rng: np.random.Generator) -> Candidate:
        """Return a candidate drawn uniformly, and made to fit."""
        return self.fitted(tuple(paths[int(rng.integers(len(paths)))] for paths in self.paths), rng)

    def fitted(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate within the limit: modules drawn at random lose A, then B, then all, until it fits."""
        paths, left = list(candidate), self.cost(candidate)
        for keep in (1, 2, 5):
            for index in rng.permutation(len(paths)).tolist():
                if left <= self.limit:
                    return tuple(paths)
                smaller = "n" * keep + paths[index][keep:]
                info, rank = self.modules[index], self.ranks[index]
                left += path_cost(smaller, info, rank) - path_cost(paths[index], info, rank)
                paths[index] = smaller
        return tuple(paths)

    def crossed(self, one: Candidate, other: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate whose every module comes from either of two."""
        from_one = rng.random(len(one)) < 0.5
        return self.fitted(tuple(a if first else b for a, b, first in zip(one, other, from_one, strict=True)), rng)

    def mutated(self, one: Candidate, probability: float, rng: np.random.Generator) -> Candidate:
        """Return a candidate with some of its modules' paths drawn again."""
        new = rng.random(len(one)) < probability
        parts = zip(one, self.paths, new, strict=True)
        drawn = [paths[int(rng.integers(len(paths)))] if again else path for path, paths, again in parts]
        return self.fitted(tuple(drawn), rng)


def evolve(
    space: Space,
    loss: Callable[[Candidate], float],
    rng: np.random.Generator,
    *,
    first: Candidate,
    population: int,
    rounds: int,
    kept: int,
    mutation: float,
) -> tuple[Candidate, list[dict[str, Any]]]:
    """Return the best candidate that was found, the cheapest of equals, and what each round found.

    Args:
        space: of the candidates.
        loss: of a candidate; asked once of each. What is no number counts as worst.
        rng: of all draws.
        first: a member of the first population; it must fit, so the result is never worse than it.
        population: candidates a round.
        rounds: after the first population.
        kept: best ones so far that the next are bred from.
        mutation: probability that a module's path is drawn again.
    """
    losses: dict[Candidate, float] = {}
    made = [first, *(space.drawn(rng) for _ in range(population - 1))]
    history: list[dict[str, Any]] = []
    for number in range(rounds + 1):
        for candidate in made:
            if candidate not in losses:
                value = loss(candidate)
                losses[candidate] = round(value, DIGITS) if np.isfinite(value) else float(np.finfo(np.float32).max)
        best = sorted(losses, key=lambda candidate: (losses[candidate], space.cost(candidate)))[:kept]
        seen = [[space.cost(candidate), losses[candidate]] for candidate in dict.fromkeys(made)]
        round_ = {"round": number, "best_loss": losses[best[0]], "parameters": space.cost(best[0])}
        history.append({**round_, "tried": len(losses), "population": seen})
        made = [
            space.crossed(best[rng.integers(len(best))], best[rng.integers(len(best))], rng)
            if index % 2
            else space.mutated(best[rng.integers(len(best))], mutation, rng)
            for index in range(population)
        ]
    return min(losses, key=lambda candidate: (losses[candidate], space.cost(candidate))), history


def loss_of(held_back: HeldBack, modules: Sequence[GloraLinear], candidate: Candidate, rows: int) -> float:
    """Return the mean loss of a candidate on the first of the reserved rows, each counted once."""
    tokens = held_back.reserve.take(np.arange(min(rows, len(held_back.reserve))))
    with ExitStack() as stack:
        for module, path in zip(modules, candidate, strict=True):
            stack.enter_context(module.trying(path))
        predictions = predict(
            held_back.model, held_back.forward, tokens, held_back.task, batch_size=BATCH, autocast=held_back.autocast
        )
    return float(predictions.loss.mean())


FLOOR = 1e-6
"""AdamW's epsilon for a super-net. Some forms cannot change the function, such as a constant before a layer norm or a
shift of the keys; their gradient is rounding noise, which the usual 1e-8 would blow up to steps of the full rate."""


@dataclass
class Glora(Strategy):
    """W = W0 + W0 ⊙ A + s · B, b = b0 + b0 ⊙ D + E + W0 C, each support low-rank, a vector, a constant or none.

    Every training step draws one of 432 paths for each module and trains what it uses: a super-net whose forms are
    slices of shared tensors. After the last step an evolutionary search on reserved training examples finds one path
    per module that uses no more parameters than uniform LoRA. The result is folded into weight and bias. Until then
    evaluations take LoRA's path, which costs exactly the budget. With `search_after` below 1 the search comes earlier,
    and the chosen paths train on.

    Paper: Chavan et al. 2023, One-for-All: Generalized LoRA for Parameter-Efficient Fine-tuning, arXiv 2306.07967, with
    the authors' published code; PEFT's GLoRA on the same tensors gives the same output.
    Differs: candidates are ranked on examples kept from training; the published code ranks them on the test set. B
    carries LoRA's s and dropout, so that the path nlnnn is LoRA, and up factors are drawn as LoRA's A, not xavier.
    Where a module has no bias, C, D and E are none. The limit is uniform LoRA's parameters. The search is smaller (20
    candidates, 5 rounds, where the paper takes 50 and 20), half of a round crossed and half mutated. A candidate over
    the limit is made to fit instead of drawn again, and LoRA's path is among the first candidates. A super-net's AdamW
    has ε = 1e-6, not 1e-8, under which forms that cannot change the function would take steps of the full learning rate
    on rounding noise.
    """

    title = "GLoRA"
    summary = (
        "Scales and shifts the frozen weights and biases, each in one of four forms. Trains all forms at once and then "
        "searches the best one for every module. Inference costs nothing extra."
    )
    formula = r"W = W_0 + W_0 \odot A + s B, \quad b = b_0 + b_0 \odot D + E + W_0 C"
    paper = "Chavan et al. 2023, arXiv 2306.07967"
    fidelity = "code"
    cost = "2.5 + 1 / r times LoRA's numbers, twice without biases; three products of the weight's size where A is "
    cost += "low-rank (a quarter of the modules per step); after training about 120 evaluations of 256 examples"
    step_cost = "more"
    state_memory = "more"
    as_lora = {"path": LORA}
    own_signals = {
        f"path_{support}": OwnSignal(
            f"path of {support}",
            f"Which form the support {support} takes",
            choices=("none", "constant", "vector", "low-rank"),
        )
        for support in "ABCDE"
    }

    init: str = start_setting(("kaiming", "gaussian", "eva"))
    path: str | None = setting(
        None,
        "One path for every module, without a search: five letters for A, B, C, D, E; l low-rank, v vector, "
        "c constant, n none. Empty: sampled while training, then searched.",
    )
    search_after: float = setting(
        1.0, "Fraction of the steps after which the search runs; the chosen paths train on to the end.", gt=0, le=1
    )
    limit: float = setting(
        1.0, "Parameters that the chosen paths may use, as a fraction of uniform LoRA's.", gt=0, le=1
    )
    reserve: float = setting(0.05, "Fraction of the training examples reserved for the search.", gt=0, le=0.5)
    search_rows: int = setting(256, "Reserved examples that rank a candidate, at most.", unit="examples", ge=1)
    population: int = setting(20, "Candidates per round.", ge=2, le=1000)
    rounds: int = setting(5, "Rounds of crossing and mutation after the first population.", ge=0, le=1000)
    kept: int = setting(6, "Best candidates that the next are bred from.", ge=1, le=1000)
    mutation: float = setting(0.2, "Probability that a mutation redraws a module's path.", gt=0, le=1)

    def check(self, total: int, rank: int) -> None:
        """Refuse what is no path, and more parents than there are candidates."""
        path = self.path
        if path is not None and (len(path) != 5 or any(f not in forms for f, forms in zip(path, FORMS, strict=True))):
            raise ConfigError(
                f"strategy.path={path}: must be five letters, A and B of l, v, c, n; C of l, v, n; D and E of v, c, n; "
                f"{LORA} is LoRA"
            )
        if self.kept > self.population:
            raise ConfigError(
                f"strategy.kept={self.kept}: must not exceed strategy.population={self.population}; lower it"
            )

    def reserved_share(self) -> float:
        """Return the fraction of rows the search ranks candidates on; a fixed path needs none."""
        return self.reserve if self.path is None else 0.0

    def check_model(self, modules: Sequence[ModuleInfo], probe: Probe) -> None:
        """Refuse weights that cannot be scaled number by number, and a fixed path that no rank fits into the budget."""
        check_weights(probe.model, modules, "strategy.name=glora: scales the frozen weights number by number")
        least = 0 if self.path is None else self._cost(self.path, modules, probe.model, 1)
        if least > probe.budget:
            enough = math.ceil(least / sum(info.cost for info in modules))
            raise ConfigError(
                f"strategy.path={self.path}: takes {least:,} parameters at rank 1, adapter.rank={probe.rank} allows "
                f"{probe.budget:,}, those of uniform LoRA; raise adapter.rank to {enough}, or choose a path that takes "
                f"less, such as {LORA}"
            )

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Return uniform ranks, or the highest with which a fixed path stays within uniform LoRA's parameters."""
        if self.path is None:
            return super().ranks(modules, probe)
        fits = [r for r in range(1, probe.rank + 1) if self._cost(self.path, modules, probe.model, r) <= probe.budget]
        return [max(fits)] * len(modules)

    def start(self, adapters: Adapters) -> None:
        """Make sure that there are rows to search on.

        Raises:
            ConfigError: when paths are to be searched for and no rows are kept from training.
        """
        if self.path is None and (self.held_back is None or not len(self.held_back.reserve)):
            raise ConfigError(
                f"strategy.path=: the search for paths needs rows that are kept from training, and there are none; set "
                f"a path, such as {LORA}, or train with dynlora's own loop"
            )

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> GloraLinear:
        """Return an adapter with all five supports."""
        adapter = GloraLinear(base, module, rank=rank, scaling=self.module_scaling(probe), path=self.path)
        adapter.reset_parameters(probe.seed, gaussian=1 / probe.rank if self.init == "gaussian" else None)
        return adapter

    def groups(self, adapters: Adapters) -> list[dict[str, Any]]:
        """Return the groups; a super-net's with a minimum of the second moments."""
        floor = {"eps": FLOOR} if self.path is None else {}
        return [{**group, **floor} for group in super().groups(adapters)]

    def events(self, total: int, rank: int) -> list[int]:
        """Return the step after which the search is made, where that is not the last."""
        step = max(1, round(self.search_after * total))
        return [step] if self.path is None and step < total else []

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Settle on paths when that is due before the end."""
        return self.settled(adapters) if step.index in self.events(step.total, adapters.reference_rank) else []

    def finish(self, adapters: Adapters) -> list[Edit]:
        """Settle on paths, unless that was done."""
        return self.settled(adapters)

    def settled(self, adapters: Adapters) -> list[Edit]:
        """Search, where a super-net trains and there are rows to search on, and return the best paths found."""
        held_back = self.held_back
        modules = [module for module in adapters if isinstance(module, GloraLinear) and module.samples]
        if not modules or held_back is None or len(held_back.reserve) == 0:
            return []
        infos, ranks = [module.info for module in modules], [module.rank for module in modules]
        space = Space(infos, [module.paths for module in modules], ranks, int(self.limit * adapters.budget))
        rng = np.random.default_rng(stream_seed(adapters.seed, "path search"))
        device = adapters[0].lora_A.device

        def loss(candidate: Candidate) -> float:
            """Return a candidate's loss, the mean over the processes: they must all come to the same choice."""
            value = loss_of(held_back, modules, candidate, self.search_rows)
            return float(adapters.over_processes(torch.tensor(value, device=device)))

        best, history = evolve(
            space,
            loss,
            rng,
            first=space.fitted((LORA,) * len(modules), rng),
            population=self.population,
            rounds=self.rounds,
            kept=self.kept,
            mutation=self.mutation,
        )
        return [SettlePaths(best, tuple(history))]

    def _cost(self, path: str, modules: Sequence[ModuleInfo], model: nn.Module, rank: int) -> int:
        """Return the numbers that a path uses of all modules."""
        biased = [model.get_submodule(info.name).bias is not None for info in modules]
        return sum(path_cost(usable(path, has), info, rank) for has, info in zip(biased, modules, strict=True))

    def signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Record the form of each support in the path of this step: 0 none, 1 constant, 2 vector, 3 low-rank."""
        taken = [module.taken() for module in adapters if isinstance(module, GloraLinear)]
        forms = torch.tensor([[float(SIZE.index(form)) for form in path] for path in taken])
        return {f"path_{support}": forms[:, place] for place, support in enumerate("ABCDE")}
