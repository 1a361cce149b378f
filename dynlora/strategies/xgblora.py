"""XGBLoRA: rank-1 boosters on random layers, each trained a while and folded into the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.edits.components import forget
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, check_weights
from dynlora.engine.randomness import stream, stream_seed
from dynlora.engine.strategy import OwnSignal, Strategy, setting, start_setting, state
from dynlora.errors import ConfigError


class BoostedLinear(LoraLinear):
    """A module whose frozen weight holds what was learnt before: W0 + scaling · Σ_j b_j a_jᵀ over its boosters j.

    The boosters are kept, so that W0 can be had back, and all of them exported as one LoRA. A weight in half precision
    is off by the rounding of one addition, for any number of boosters: their sum is kept in float32 beside it.

    Attributes:
        boosters_A: rows of the folded boosters, (room, d_in), zero past the folded ones.
        boosters_B: their columns, (d_out, room).
        folded: how many there are, a whole number as a tensor, which checkpoints carry.
        count: the same as a plain value: reading it never waits for the device.
    """

    boosters_A: Tensor
    boosters_B: Tensor
    folded: Tensor

    def __init__(self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, room: int, scaling: float) -> None:
        """Wrap `base_layer`, with room for so many boosters beside the one that is trained."""
        super().__init__(base_layer, info, rank=rank, max_rank=1, scaling=scaling)
        device = self.lora_A.device
        self.register_buffer("boosters_A", torch.zeros(room, info.d_in, device=device))
        self.register_buffer("boosters_B", torch.zeros(info.d_out, room, device=device))
        self.register_buffer("folded", torch.zeros((), dtype=torch.int64))
        self.count = 0
        self._exact: Tensor | None = None

    @torch.no_grad()
    def fold(self) -> None:
        """Add the trained component to the frozen weight and to the boosters, and leave the module without one."""
        if self.rank == 0:
            return
        place = self.count
        self.boosters_A[place], self.boosters_B[:, place] = self.lora_A[0], self.lora_B[:, 0]
        self.folded += 1
        self.count += 1
        self._add(self._booster(place))
        self.lora_A.zero_()
        self.lora_B.zero_()
        self.rank = 0

    @torch.no_grad()
    def loaded(self) -> None:
        """Fold the saved boosters into the frozen weight one by one, as training did: equal to the last bit."""
        self.count = int(self.folded)
        for place in range(self.count):
            self._add(self._booster(place))

    def rescaled(self, factor: float) -> None:
        """Multiply the boosters by the factor too, those in the frozen weight with them."""
        n = self.count
        change = (factor - 1) * self.scaling * (self.boosters_B[:, :n] @ self.boosters_A[:n])
        self.boosters_B.mul_(factor)
        self._add(change)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ..., d_in) to (batch, ..., d_out); disabled, the boosters are taken out again."""
        if self.enabled:
            return super().forward(x)
        output = self.base_layer(x)
        return output - self._boosted(x, output)

    def added(self, x: Tensor, output: Tensor) -> Tensor:
        """Return what the boosters and the trained component add to the frozen map of x."""
        return super().added(x, output) + self._boosted(x, output)

    def _boosted(self, x: Tensor, output: Tensor) -> Tensor:
        """Return what the boosters in the frozen weight add, in the type of an output."""
        n = self.count
        A, B = (tensor.to(output.dtype) for tensor in (self.boosters_A[:n], self.boosters_B[:, :n]))
        return self.scaling * F.linear(F.linear(x, A), B)

    def low_rank(self) -> tuple[Tensor, Tensor]:
        """Return all boosters and the trained component as one A, (n, d_in), and B, (d_out, n)."""
        n = self.count
        A = torch.cat([self.boosters_A[:n], self.lora_A[: self.rank]])
        return A, torch.cat([self.boosters_B[:, :n], self.lora_B[:, : self.rank]], 1)

    def delta_weight(self) -> Tensor:
        """Return what the frozen weight lacks: the trained component alone, (d_out, d_in)."""
        return self.scaling * (self.lora_B[:, : self.rank] @ self.lora_A[: self.rank])

    def active_rank_on_device(self) -> int:
        """Return the components that reach the output: the boosters and the trained one."""
        return self.count + self.rank

    def allocated_parameters(self) -> int:
        """Return the room for the boosters and the trained component."""
        return (len(self.boosters_A) + self.max_rank) * self.info.cost

    def _booster(self, place: int) -> Tensor:
        """Return what one booster adds to the frozen weight, (d_out, d_in)."""
        return self.scaling * torch.outer(self.boosters_B[:, place], self.boosters_A[place])

    def _add(self, delta: Tensor) -> None:
        """Add an update, (d_out, d_in), to the frozen weight."""
        delta = delta if isinstance(self.base_layer, nn.Linear) else delta.t()
        weight: Tensor = self.base_layer.weight  # pyright: ignore - linear by construction
        if weight.element_size() >= delta.element_size():
            weight += delta
            return
        self._exact = delta + (weight if self._exact is None else self._exact)
        weight.copy_(self._exact)

    def copied_bytes(self) -> int:
        """Return the bytes of the copies that compute, and of the exact sum beside a narrower weight."""
        return super().copied_bytes() + (0 if self._exact is None else self._exact.nbytes)

    def likeness(self) -> Tensor | None:
        """Return the cosine between the trained booster and the one before, as matrices, (); None where one lacks."""
        if not (self.count and self.rank):
            return None
        last = self.boosters_A[self.count - 1], self.boosters_B[:, self.count - 1]
        now = self.lora_A[0].detach(), self.lora_B[:, 0].detach()
        cosines = [torch.cosine_similarity(one, other, dim=0) for one, other in zip(last, now, strict=True)]
        return cosines[0] * cosines[1]


def likeness(modules: Iterable[nn.Module]) -> Tensor | None:
    """Return the mean cosine of successive boosters over the modules at their second or later, (); None without one."""
    cosines = [module.likeness() for module in modules if isinstance(module, BoostedLinear)]
    known = [cosine for cosine in cosines if cosine is not None]
    return torch.stack(known).mean() if known else None


def booster_norm(modules: Iterable[LoraLinear]) -> Tensor:
    """Return the mean norm ‖scaling · b aᵀ‖ of the boosters that are trained, over their modules, ()."""
    trained = [module for module in modules if module.rank]
    return torch.stack([m.scaling * m.lora_A[0].norm() * m.lora_B[:, 0].norm() for m in trained]).detach().mean()


@dataclass(frozen=True)
class NextBooster(Change):
    """Fold every trained component into its frozen weight, and begin one on exactly these modules.

    Its row a is drawn from U(±1/√d_in), or from a normal law of deviation `gaussian`; b = 0.
    """

    modules: tuple[int, ...]
    gaussian: float | None = None

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Fold, and draw; the moments begin from zero, as those of a fresh parameter."""
        for index, module in enumerate(adapters):
            if not isinstance(module, BoostedLinear):
                raise TypeError(f"{module.info.name}: a {type(module).__name__} has no boosters to fold into")
            module.fold()
            for parameter in (module.lora_A, module.lora_B):
                forget(optimizer, parameter)
            if index in self.modules:
                bound, row = 1 / math.sqrt(module.info.d_in), torch.empty(module.info.d_in)
                generator = stream(adapters.seed, module.info.name, "booster", step)
                if self.gaussian is None:
                    row.uniform_(-bound, bound, generator=generator)
                else:
                    row.normal_(0, self.gaussian, generator=generator)
                module.lora_A[0] = row
                module.rank = 1

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        return {"edit": "boost", "modules": list(self.modules)}


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
