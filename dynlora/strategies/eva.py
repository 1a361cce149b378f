"""EVA: A starts along the inputs' principal components, and the rank goes where they explain most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from dynlora.engine.allocation.solvers import greedy_ranks
from dynlora.engine.context import Probe
from dynlora.engine.edits import Edit
from dynlora.engine.initializers import STARTS, InputComponents, along, base_modules, input_directions, probe_batches
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.strategy import OwnSignal, Strategy, setting, state


@dataclass
class Eva(Strategy):
    """h = W0 x + s · B A x with A = the leading right singular vectors of the module's inputs, and B = 0.

    Before training, batches pass through the base model. Each module keeps the principal components v_k of its inputs
    (padding left out) until the needed ones have converged. The explained fractions of the inputs' variance, σ_k² /
    Σσ², are pooled over all modules, and the largest get one component each. A module has at most ρ · r, and may have
    none. Modules with the same input share one decomposition.

    Paper: Paischer et al. 2024, One Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation,
    arXiv 2410.07170.
    Differs: not from PEFT's code in directions and, with `budget_unit` components, ranks. By default the fractions are
    taken in the same order while their components fit into uniform LoRA's parameters. Counted in components, the wide
    modules, whose components cost more, may exceed them. Reading stops after `max_batches`, converged or not.
    """

    title = "EVA"
    summary = (
        "Reads the inputs of each module before training. A starts along the directions in which the inputs vary most. "
        "Modules whose inputs need many directions get more of the budget."
    )
    formula = (
        r"A = V_{1:r}^\top,\; B = 0, \quad r_m = \#\{k : \sigma_{mk}^2 / \|\sigma_m\|^2 \text{ among the largest}\}"
    )
    paper = "Paischer et al. 2024, arXiv 2410.07170"
    fidelity = "code"
    cost = "none per step; up to max_batches forward passes before training"
    as_lora = {"rho": 1.0, "init": "kaiming"}
    own_signals = {
        "explained": OwnSignal(
            "variance explained", "Fraction of its inputs' variance that a module's components explain", "fraction"
        )
    }

    init: str = setting("eva", "Start of A; the inputs set the ranks in any case.", choices=tuple(STARTS))
    rho: float = setting(2.0, "Largest rank of a module, in uniform ranks; 1 leaves all ranks alike.", ge=1, le=64)
    tau: float = setting(
        0.99, "Cosine between two batches' components above which they count as converged.", gt=0, le=1
    )
    max_batches: int = setting(32, "Training batches read, at most.", unit="batches", ge=1, le=4096)
    budget_unit: str = setting(
        "parameters",
        "What the budget counts: parameters, or components as published.",
        choices=("parameters", "components"),
    )
    adjust: bool = setting(
        True, "Whether alpha grows with a module's rank, so that s stays alpha / rank; off: alpha / its own rank."
    )

    explained: list[float] = state(list)

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Read batches until the components in demand have converged, and return the ranks they earn."""
        names = [info.name for info in modules]
        widest = max(1, round(self.rho * probe.rank))

        def ranks_of(seen: Mapping[str, InputComponents]) -> dict[str, int]:
            """Return the ranks of what was seen so far."""
            return dict(zip(names, self._earned(modules, probe, [seen[name] for name in names]), strict=True))

        components = input_directions(
            probe.model,
            base_modules(probe.model, names),
            probe_batches(probe, self.max_batches),
            ranks_of,
            limit=widest,
            seed=probe.seed,
            tau=self.tau,
        )
        self.input_components.clear()
        self.input_components.update(components)
        ranks = [ranks_of(components)[name] for name in names]
        self.explained = [float(components[name].ratio[:rank].sum()) for name, rank in zip(names, ranks, strict=True)]
        return ranks

    @cached_property
    def input_components(self) -> dict[str, InputComponents]:
        """The components of each module's inputs, kept between the ranks and the start."""
        return {}

    def own_scaling(self, rank: int, probe: Probe) -> float:
        """Return alpha · (own rank / rank) / own rank, or without `adjust` alpha / own rank."""
        return self.module_scaling(probe if self.adjust else replace(probe, rank=max(1, rank)))

    def begin(self, adapters: Adapters, probe: Probe) -> list[Edit]:
        """Lay A along the components found, unless another start was chosen."""
        components = dict(self.input_components)
        self.input_components.clear()
        return along(adapters, components) if self.init == "eva" else super().begin(adapters, probe)

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record the fraction of its inputs' variance that each module's components explained at the start."""
        return {"explained": np.array(self.explained)} if self.explained else {}

    def _earned(self, modules: Sequence[ModuleInfo], probe: Probe, seen: Sequence[InputComponents]) -> list[int]:
        """Return how many components of each module are among those that explain most, within the budget."""
        counted = self.budget_unit == "components"
        cost = [1 if counted else info.cost for info in modules]
        shares = [one.ratio.cpu().numpy()[: info.d_out] for one, info in zip(seen, modules, strict=True)]
        budget = probe.rank * len(modules) if counted else probe.budget
        gains = [share * price for share, price in zip(shares, cost, strict=True)]
        return greedy_ranks(gains, cost, [len(share) for share in shares], budget=budget, min_rank=0)
