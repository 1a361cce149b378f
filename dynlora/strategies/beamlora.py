"""BeamLoRA: components of a module compete by a softmax; the weak give their slots to copies of the strong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.edits.components import state_of
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.randomness import stream
from dynlora.engine.strategy import OwnSignal, Strategy, own_group, setting, start_setting, state
from dynlora.errors import ConfigError


class BeamLinear(LoraLinear):
    """An adapted module whose component j has the factor rank · softmax(q / τ)_j: one at the start, rank in sum.

    Attributes:
        score: q, (max_rank,), trained.
        temperature: τ.
    """

    score: nn.Parameter

    def __init__(
        self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, scaling: float, temperature: float
    ) -> None:
        """Wrap `base_layer`, all scores zero; the rank never changes."""
        super().__init__(base_layer, info, rank=rank, max_rank=rank, scaling=scaling)
        self.temperature = temperature
        self.score = nn.Parameter(torch.zeros(rank, device=self.lora_A.device))

    def factors(self, live: int) -> Tensor | None:
        """Return the factor of each of the first `live` components, (live,)."""
        return factors_of(self.score[:live], self.temperature) if live else None


def factors_of(score: Tensor, temperature: float) -> Tensor:
    """Return rank · softmax(score / τ), (rank,)."""
    return len(score) * torch.softmax(score / temperature, 0)


def pruned(factors: Sequence[Tensor], keep: float) -> list[list[int]]:
    """Return the components that go, by module, least first: those past the top-p of all modules together.

    Sorted from the largest factor on, components are kept as long as their factors come to at most `keep` of the sum.
    """
    pool = torch.cat([factor.detach().double().cpu() for factor in factors])
    order = torch.argsort(pool, descending=True, stable=True)
    within = pool[order].cumsum(0)
    gone = torch.zeros(len(pool), dtype=torch.bool)
    gone[order] = within > keep * within[-1]
    split = zip(pool.split([len(f) for f in factors]), gone.split([len(f) for f in factors]), strict=True)
    return [[j for j in torch.argsort(part, stable=True).tolist() if out[j]] for part, out in split]


def pairing(factors: Tensor, going: Sequence[int], generator: torch.Generator) -> list[tuple[int, int]]:
    """Return (source, target) pairs: the strongest components in random order into the slots of those that go.

    No component is both; where more go than stay, the least of them go.
    """
    order = torch.argsort(factors.detach().cpu(), descending=True, stable=True).tolist()
    staying = [component for component in order if component not in set(going)]
    count = min(len(going), len(staying))
    shuffled = [staying[place] for place in torch.randperm(count, generator=generator).tolist()]
    return list(zip(shuffled, going[:count], strict=True))


@torch.no_grad()
def copy_component(
    A: Tensor, B: Tensor, score: Tensor, pair: tuple[int, int], past: Mapping[str, Tensor] | None, temperature: float
) -> None:
    """Put a copy of one component into the slot of another, in place.

    With `past`, the slot gets what the source was then, and both get their mean score: the function jumps. Without,
    the source is split: each half gets f_s / (f_s + f_t) of its B and a score that leaves the sum of exponentials, so
    that the two together are what the source was and no other factor moves.

    Args:
        A: (rank, d_in).
        B: (d_out, rank).
        score: q, (rank,).
        pair: source and target.
        past: A and B of the module at an earlier step by name, or None to split.
        temperature: τ.
    """
    source, target = pair
    if past is not None:
        A[target], B[:, target] = past["lora_A"][source], past["lora_B"][:, source]
        score[list(pair)] = score[list(pair)].mean()
        return
    scaled = score[list(pair)] / temperature
    B[:, source] *= torch.softmax(scaled, 0)[0]
    A[target], B[:, target] = A[source], B[:, source]
    score[list(pair)] = temperature * (torch.logsumexp(scaled, 0) - math.log(2))


@torch.no_grad()
def jump(
    modules: Sequence[BeamLinear], pairs: Mapping[int, Sequence[tuple[int, int]]], past: Sequence[Mapping] | None
) -> Tensor:
    """Return how far copying would move the updates, ‖ΔW' - ΔW‖ / (‖ΔW'‖ + ‖ΔW‖) over all modules, 0 to 1, ().

    The norm is Frobenius', its square summed over modules with their scaling.
    """
    before = after = moved = torch.zeros((), dtype=torch.float64)
    for index, module in enumerate(modules):
        A, B = module.low_rank()
        new_A, new_B, score = module.lora_A.clone(), module.lora_B.clone(), module.score.clone()
        for pair in pairs.get(index, ()):
            copy_component(new_A, new_B, score, pair, None if past is None else past[index], module.temperature)
        new_B = new_B * factors_of(score, module.temperature)
        square = module.scaling**2
        before = before + square * _energy(A, B)
        after = after + square * _energy(new_A, new_B)
        moved = moved + square * _energy(torch.cat([new_A, A]), torch.cat([new_B, -B], 1))
    total = before.sqrt() + after.sqrt()
    return torch.where(total > 0, moved.clamp_min(0).sqrt() / total.clamp_min(torch.finfo(total.dtype).tiny), 0.0)


def _energy(A: Tensor, B: Tensor) -> Tensor:
    """Return ‖B A‖_F², (), without forming the product: the sum of BᵀB ⊙ AAᵀ, whose terms cancel in a difference."""
    A, B = A.cpu().double(), B.cpu().double()
    return ((B.t() @ B) * (A @ A.t())).sum()


SIDES = (("lora_A", 0), ("lora_B", 1))
"""The tensors of a component, and the dimension that counts components."""

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TakeSnapshot(Change):
    """Keep A, B and their moments of every module as they are now, one dict a module, in the list `into`."""

    into: list[dict[str, Tensor]] = field(compare=False, repr=False)

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Copy the tensors; moments are named after theirs, as `lora_A.exp_avg`."""
        self.into.clear()
        for module in adapters:
            tensors: dict[str, Tensor] = {}
            for name, _ in SIDES:
                parameter = getattr(module, name)
                tensors[name] = parameter.detach().clone()
                moments = state_of(optimizer, parameter)
                tensors |= {f"{name}.{key}": moments[key].clone() for key in MOMENTS if key in moments}
            self.into.append(tensors)


@dataclass(frozen=True)
class CopyComponent(Change):
    """Put a copy of component `source` of a module into the slot of `target`, as `beam.copy_component` does.

    The slot takes the source's moments of the snapshot; those of both scores begin at zero.

    Attributes:
        module: index of the module, a `BeamLinear`.
        source, target: places of the components.
        source_factor, target_factor: their importance.
        past: of the module, as `TakeSnapshot` keeps it.
        split: the source is split in two instead of copied from the snapshot, so that the function stays.
    """

    module: int
    source: int
    target: int
    source_factor: float
    target_factor: float
    past: Mapping[str, Tensor] = field(compare=False, repr=False)
    split: bool = False

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Copy weights, scores and moments."""
        module = adapters[self.module]
        if not isinstance(module, BeamLinear):
            raise TypeError(f"{module.info.name}: a {type(module).__name__} has no scores")
        pair, past = (self.source, self.target), None if self.split else self.past
        copy_component(module.lora_A, module.lora_B, module.score, pair, past, module.temperature)
        for name, dim in SIDES:
            moments = state_of(optimizer, getattr(module, name))
            for key in MOMENTS:
                if key in moments and f"{name}.{key}" in self.past:
                    moment = self.past[f"{name}.{key}"].select(dim, self.source)
                    moments[key].select(dim, self.target).copy_(moment)
        for key, value in state_of(optimizer, module.score).items():
            if key in MOMENTS:
                value[list(pair)] = 0

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log: the lineage of the slot."""
        return {
            "edit": "copy",
            "donor": self.module,
            "donor_component": self.source,
            "donor_score": self.source_factor,
            "receiver": self.module,
            "receiver_component": self.target,
            "receiver_score": self.target_factor,
            "count": 1,
        }


@dataclass
class BeamLora(Strategy):
    """h = W0 x + alpha / r · B(r · softmax(q / τ) ⊙ A x), with weak components overwritten by copies of strong ones.

    The scores q start at zero, so that it starts as LoRA, and are trained with the adapter. Every `allocate_every`
    steps the factors of all modules are sorted. Components beyond a fraction p of their sum are pruned. In each module
    as many of the strongest components take the pruned slots, as they and their moments were half a window ago. Rank
    and parameters never change. The scores are not counted, because the factors fold into B.

    Paper: Gu et al. 2025, BeamLoRA: Beam-Constraint Low-Rank Adaptation, ACL, arXiv 2502.13604.
    Differs: the moments are moved; the published code writes them into a temporary tensor. Where more than half of a
    module is pruned, only as many slots are taken as components stay. Intervals are fractions of the run: 8 % between
    events and p at 1 after two thirds, as 3,000 and 24,688 steps are of the published 37,000. A note on the paper says
    that pruning begins gently. The code does the opposite and is followed; `direction: rising` is the other. `copy:
    halved` is ours.
    """

    title = "BeamLoRA"
    summary = (
        "Inside every module components compete for one sum of factors. At intervals the weakest are overwritten by "
        "copies of the strongest, as they were half an interval before. Nothing moves between modules."
    )
    formula = r"h = W_0 x + \tfrac{\alpha}{r} B\,(r\,\mathrm{softmax}(q / \tau) \odot A x)"
    paper = "Gu et al. 2025, arXiv 2502.13604"
    fidelity = "code"
    as_lora = {"top_p": 1.0, "score_lr_ratio": 0.0}
    cost = "one number per component; a copy of the adapters and their moments for half an interval"
    step_cost = "more"
    own_signals = {"copied": OwnSignal("slots overwritten", "Which modules overwrote unused components", "copies")}

    init: str = start_setting(("kaiming", "gaussian", "eva"))
    temperature: float = setting(0.05, "Temperature τ; the authors use 0.03 for learning rates below 1e-4.", gt=0)
    top_p: float = setting(
        0.95, "Fraction of all factors kept where pruning is strongest; 1: never prunes.", gt=0, le=1
    )
    direction: str = setting(
        "fading", "fading: p goes from top_p to 1; rising: from 1 to top_p.", choices=("fading", "rising")
    )
    moving_share: float = setting(2 / 3, "Fraction of the steps over which p changes.", gt=0, le=1)
    allocate_every: int | None = setting(None, "Steps between events. Empty: 8 %.", unit="steps", ge=2)
    copy: str = setting(
        "published",
        "published: a copy from half an interval ago, the function jumps; halved: the source is split.",
        choices=("published", "halved"),
    )
    score_lr_ratio: float = setting(1.0, "Learning rate of the scores over that of A; 0 holds them.", ge=0, le=1024)

    past: list[dict[str, Tensor]] = state(list)
    copied: list[int] = state(list)
    last_p: float = state(float)
    last_jump: Tensor | None = state(lambda: None)

    def check(self, total: int, rank: int) -> None:
        """Refuse an interval that leaves no event."""
        if self.allocate_every is not None and 2 * self.allocate_every > total:
            raise ConfigError(
                f"strategy.allocate_every={self.allocate_every}: an interval must be left after the first event of "
                f"the run's {total} steps; lower it to {max(2, total // 2)} or raise train.steps"
            )

    def window(self, total: int) -> int:
        """Return the steps between events."""
        return self.allocate_every or max(2, round(0.08 * total))

    def keep(self, step: int, total: int) -> float:
        """Return p after a step: half a cosine between top_p and 1."""
        progress = min(1.0, step / (self.moving_share * total))
        fallen = 0.5 * (1 + math.cos(math.pi * progress))
        return 1 - (1 - self.top_p) * (fallen if self.direction == "fading" else 1 - fallen)

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which slots are taken; a whole window is left after the last."""
        return [step for step in range(1, total + 1) if self._is_event(step, total, rank)]

    def _is_event(self, step: int, total: int, rank: int) -> bool:
        """Say whether slots are taken after a step; one component alone has no slot to take."""
        every = self.window(total)
        return rank > 1 and step % every == 0 and step <= total - every and self.keep(step, total) < 1

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> BeamLinear:
        """Return an adapter with scores."""
        scaling = self.module_scaling(probe)
        adapter = BeamLinear(base, module, rank=rank, scaling=scaling, temperature=self.temperature)
        adapter.reset_parameters(probe.seed, gaussian=1 / probe.rank if self.init == "gaussian" else None)
        return adapter

    def groups(self, adapters: Adapters) -> list[dict[str, Any]]:
        """Return the scores as a group of their own, without weight decay, which would even them out."""
        scores = [module.score for module in beams(adapters)]
        return own_group(super().groups(adapters), scores, lr_factor=self.score_lr_ratio, weight_decay=0.0)

    def start(self, adapters: Adapters) -> None:
        """Count copies from zero."""
        self.copied = [0] * len(adapters)

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Take the snapshot half a window before an event, and let slots be taken at it."""
        total, rank = step.total, adapters.reference_rank
        self.last_p, self.last_jump = self.keep(step.index, total), None
        if self._is_event(step.index, total, rank):
            return self._copies(adapters, step)
        if self._is_event(step.index + self.window(total) // 2, total, rank):
            return [TakeSnapshot(self.past)]
        return []

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record how many slots of each module have been overwritten so far."""
        return {"copied": np.array(self.copied)}

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record p, and at an event how far the updates jumped, 0 to 1."""
        jumped = {} if self.last_jump is None else {"jump": self.last_jump}
        return {"top_p": self.last_p, **jumped}

    def _copies(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Return who is copied where; the snapshot is given away."""
        modules, past, self.past = beams(adapters), self.past, []
        factors = [factors_of(module.score.detach(), module.temperature) for module in modules]
        pairs = {
            m: pairing(factors[m], going, stream(adapters.seed, module.info.name, "pairing", step.index))
            for m, (module, going) in enumerate(zip(modules, pruned(factors, self.last_p), strict=True))
        }
        split = self.copy == "halved"
        self.last_jump = jump(modules, pairs, None if split else past)
        values = [factor.tolist() for factor in factors]
        self.copied = [n + len(pairs[m]) for m, n in enumerate(self.copied)]
        return [
            CopyComponent(m, source, target, values[m][source], values[m][target], past[m], split)
            for m, copies in pairs.items()
            for source, target in copies
        ]


def beams(adapters: Adapters) -> list[BeamLinear]:
    """Return the modules, which this method made."""
    return [module for module in adapters if isinstance(module, BeamLinear)]
