"""XGBLoRA: rank-1 boosters on random layers, each trained a while and folded into the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo, check_weights
from dynlora.engine.randomness import stream_seed
from dynlora.engine.strategy import OwnSignal, Strategy, setting, start_setting, state
from dynlora.errors import ConfigError
from dynlora.strategies.xgblora.layer import BoostedLinear, NextBooster, booster_norm, likeness

LEAST_STEPS = 4
"""Steps a booster is trained at least: with fewer B has hardly left zero when it is folded."""


@dataclass
class XgbLora(Strategy):
    """W ← W + s · b aᵀ, round after round: one component on each module of a few random layers, then the next.

    Every round draws its layers and starts a component with b = 0 and new moments on each of their modules. It trains
    the component for T / rounds steps and merges it into the frozen weight. The merged components are kept as a list.
    So the base model can be restored, and all boosters exported as one LoRA. The norms of A and B are penalised.

    Paper: Zhang et al. 2024, XGBLoRA, arXiv 2410.19694.
    Differs: only the abstract and the reviews were available; the rest is a reconstruction. Lengths of rounds, how
    layers are drawn, and weight and form of the penalty are ours. There are as many rounds as the parameters of uniform
    LoRA pay for with all boosters together (r / `layer_share`), where the paper counts those of a round. The ensemble's
    rate is 1. The run's learning rate falls over all rounds and does not restart with each.
    """

    title = "XGBLoRA"
    summary = (
        "Trains one component at a time on a few random layers, merges it into the weights and starts the next: "
        "boosting with rank-1 learners. The list of boosters is kept, so nothing is lost."
    )
    formula = r"W \leftarrow W + s\,b_t a_t^\top, \quad t = 1 \dots n, \; l \in S_t \subset \{1 \dots L\}"
    paper = "Zhang et al. 2024, arXiv 2410.19694"
    fidelity = "reconstruction"
    cost = "less than LoRA per step: one component on a part of the layers; one merge per round"
    step_cost = "less"
    state_memory = "less"
    base_stays = False
    own_signals = {
        "boosting": OwnSignal("trained now", "Which modules each round trains", choices=("resting", "training"))
    }

    init: str = start_setting(("kaiming", "gaussian"))
    rounds: int | None = setting(
        None,
        "Rounds of boosters, one after the other. Empty: as many as uniform LoRA's parameters pay for.",
        ge=1,
        le=4096,
    )
    layer_share: float = setting(0.5, "Fraction of the layers that a round trains, rounded up.", gt=0, le=1)
    norm_penalty: float = setting(1e-4, "Weight of ‖A‖² + ‖B‖², mean over the trained modules, in the loss.", ge=0)

    paid: int = state(int)
    nth: int = state(int)
    loss_sum: dict[str, Tensor | int] = state(dict, saved_as="heard")
    ended: dict[str, Tensor] = state(dict)

    def check(self, total: int, rank: int) -> None:
        """Refuse rounds that are too short to learn anything."""
        if self.rounds is not None and total < LEAST_STEPS * self.rounds:
            raise ConfigError(
                f"strategy.rounds={self.rounds}: each takes at least {LEAST_STEPS} steps and the run has {total}; "
                f"lower it to {max(1, total // LEAST_STEPS)}"
            )

    def room(self, rank: int) -> int:
        """Return how many rounds there are at most, and so how many boosters a module may come to hold."""
        return self.rounds or max(1, math.floor(rank / self.layer_share + 1e-9))

    def ends(self, total: int, rank: int) -> list[int]:
        """Return the steps after which a round ends, the last of them T."""
        rounds = max(1, min(self.paid or self.room(rank), total // LEAST_STEPS))
        return [round(total * (index + 1) / rounds) for index in range(rounds)]

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which boosters are folded; before `ranks` counted the layers, at most so many."""
        return self.ends(total, rank)[:-1]

    def check_model(self, modules: Sequence[ModuleInfo], probe: Probe) -> None:
        """Refuse weights that nothing can be added to, and more rounds than the budget pays for."""
        check_weights(probe.model, modules, "strategy.name=xgblora: folds what it learns into the frozen weights")
        paid = len(self.chosen(modules, probe.budget, probe.seed, probe.rank))
        if self.rounds is not None and paid < self.rounds:
            raise ConfigError(
                f"strategy.rounds={self.rounds}: rank {probe.rank} pays for {paid} rounds of layer_share="
                f"{self.layer_share}, the others would train nothing; lower it to {paid}, or lower layer_share"
            )

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Begin with the modules of the first round."""
        chosen = self.chosen(modules, probe.budget, probe.seed, probe.rank)
        self.paid = len(chosen)
        return [int(index in chosen[0]) for index in range(len(modules))]

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """One component is trained at a time."""
        return 1

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> BoostedLinear:
        """Return an adapter with room for the boosters."""
        scaling = self.module_scaling(probe)
        adapter = BoostedLinear(base, module, rank=rank, room=self.room(probe.rank), scaling=scaling)
        adapter.reset_parameters(probe.seed, gaussian=1 / probe.rank if self.init == "gaussian" else None)
        return adapter

    def penalty(self, adapters: Adapters) -> dict[str, Tensor]:
        """Return weight · mean over the trained modules of ‖A‖² + ‖B‖²."""
        trained = [module for module in adapters if module.rank]
        if self.norm_penalty == 0 or not trained:
            return {}
        terms = [module.lora_A.square().sum() + module.lora_B.square().sum() for module in trained]
        return {"norm": self.norm_penalty * torch.stack(terms).mean()}

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Fold at the end of a round, and begin the next one's boosters."""
        self.ended = {}
        if step.loss is not None:
            self.loss_sum = {"sum": self.loss_sum.get("sum", 0) + step.loss, "steps": self.loss_sum.get("steps", 0) + 1}
        ends = self.ends(step.total, adapters.reference_rank)
        self.nth = 1 + sum(end < step.index for end in ends)
        if step.index in ends:
            self.ended, self.loss_sum = self._told(adapters), {}
        if step.index not in ends[:-1]:
            return []
        infos = [module.info for module in adapters]
        chosen = self.chosen(infos, adapters.budget, adapters.seed, adapters.reference_rank)
        gaussian = 1 / adapters.reference_rank if self.init == "gaussian" else None
        return [NextBooster(chosen[ends.index(step.index) + 1], gaussian)]

    def chosen(self, modules: Sequence[ModuleInfo], budget: int, seed: int, rank: int) -> list[tuple[int, ...]]:
        """Return the modules of every round, by index: those of drawn layers, as long as the budget lasts.

        A round always trains something: there are no more of them than the budget pays for.
        """
        layers = sorted({-1 if info.layer is None else info.layer for info in modules})
        size = math.ceil(self.layer_share * len(layers) - 1e-9)
        left, rounds = budget, []
        for index in range(self.rounds or max(1, rank * len(layers) // size)):
            rng = np.random.default_rng(stream_seed(seed, "boosted layers", index))
            drawn = set(rng.permutation(layers)[:size].tolist())
            members = []
            for m, info in enumerate(modules):
                if (-1 if info.layer is None else info.layer) in drawn and info.cost <= left:
                    members.append(m)
                    left -= info.cost
            rounds.append(tuple(members))
        return [members for members in rounds if members]

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record which modules this round trains."""
        return {"boosting": np.array([module.rank for module in adapters])}

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record the round, from 1, and how many boosters the fullest module holds; when a round ends, how it went."""
        return {"round": float(self.nth), "boosters": float(max(m.active_rank() for m in adapters)), **self.ended}

    def _told(self, adapters: Adapters) -> dict[str, Tensor]:
        """Return what is recorded of a round: mean loss, mean norm of its boosters, their likeness to those before."""
        signals = {"booster_norm": booster_norm(adapters)}
        if self.loss_sum:
            signals["booster_loss"] = torch.as_tensor(self.loss_sum["sum"] / self.loss_sum["steps"])
        cosine = likeness(adapters)
        return signals if cosine is None else {**signals, "booster_cosine": cosine}
