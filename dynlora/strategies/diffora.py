"""DiffoRA: a search finds which modules of each layer should be adapted, and they share the whole budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.allocation.solvers import greedy_ranks, toward_ranks
from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.edits.components import state_of
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.strategy import OwnSignal, Strategy, setting, state
from dynlora.errors import ConfigError


@dataclass(frozen=True)
class Weigh(Change):
    """Set the scale of every module's components to its entry of `weights`, (n_modules,), without asking the device."""

    weights: Tensor = field(compare=False, repr=False)

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Write the scales of the active components; a module without a scale is left alone."""
        scaled = [
            (module.scale[: module.rank], index) for index, module in enumerate(adapters) if module.scale is not None
        ]
        values = [self.weights[index].expand(len(scale)) for scale, index in scaled]
        torch._foreach_copy_([scale for scale, _ in scaled], values)  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class TakeIn(Change):
    """Multiply every module's scale into its B, and set it to one: the function stays.

    The gradient of B is divided by the scale then, and so are its moments: the first once, the second twice.
    """

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Fold the scales in; moments of a component whose scale is zero are zero afterwards."""
        for module in adapters:
            if module.scale is None:
                continue
            scale = module.scale[: module.rank].clone()
            inverse = torch.where(scale != 0, 1 / scale, 0.0)
            module.lora_B[:, : module.rank] *= scale
            moments = state_of(optimizer, module.lora_B)
            for name, factor in (("exp_avg", inverse), ("exp_avg_sq", inverse.square())):
                if name in moments:
                    moments[name][:, : module.rank] *= factor
            module.scale.fill_(1.0)


@dataclass(frozen=True)
class Look(Change):
    """Call `look` once the edits before this one are done, so that a method can measure what they did."""

    look: Callable[[], None] = field(compare=False, repr=False)

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Look; nothing is changed."""
        self.look()


@dataclass(frozen=True)
class Choice:
    """Which modules vie with each other.

    Attributes:
        layer: the group of each module, (n_modules,), whole numbers from 0.
        size: modules in each module's group, (n_modules,).
    """

    layer: Tensor
    size: Tensor

    @classmethod
    def among(cls, modules: Sequence[ModuleInfo], device: torch.device) -> Choice:
        """Let the modules of each layer vie; those outside of layers are one group."""
        layers = sorted({-1 if info.layer is None else info.layer for info in modules})
        layer = torch.tensor([layers.index(-1 if info.layer is None else info.layer) for info in modules])
        return cls(layer.to(device), layer.bincount()[layer].to(device))

    def weights(self, logits: Tensor) -> Tensor:
        """Return ā = n · softmax(λ) within each layer of n modules, (n_modules,): one where all λ are equal."""
        top = torch.full_like(logits, -torch.inf).scatter_reduce(0, self.layer, logits, "amax")
        power = (logits - top[self.layer]).exp()
        return self.size * power / self._sum(power)

    def logit_gradient(self, pull: Tensor, weights: Tensor) -> Tensor:
        """Return ∂L/∂λ, (n_modules,), from `pull` = ā · ∂L/∂ā: `pull`_k - ā_k / n · Σ `pull` over k's layer.

        For an update ā s B A x, `pull` is ⟨B, ∂L/∂B⟩, so that no quotient by ā is ever taken.
        """
        return pull - weights / self.size * self._sum(pull)

    def entropy(self, weights: Tensor) -> Tensor:
        """Return the entropy of the softmax, mean over the layers, as a fraction of the largest, 0 to 1."""
        share = weights / self.size
        terms = -torch.special.xlogy(share, share) / self.size.log().clamp_min(1e-12)
        return torch.where(self.size > 1, terms, 0.0).sum() / torch.where(
            self.size > 1, 1 / self.size, 0
        ).sum().clamp_min(1)

    def chosen(self, weights: Tensor, share: float, *, overall: bool) -> Tensor:
        """Return which modules have the largest weights, (n_modules,) bool: ⌈share · n⌉ of each layer, or of them all.

        Of equal weights the earlier module's counts as larger.
        """
        order = torch.arange(len(weights), device=weights.device)
        equal = weights == weights.unsqueeze(1)
        ahead = (weights > weights.unsqueeze(1)) | (equal & (order < order.unsqueeze(1)))
        rivals = torch.full_like(self.size, len(weights)) if overall else self.size
        if not overall:
            ahead &= self.layer == self.layer.unsqueeze(1)
        return ahead.sum(1) < (share * rivals).sub(1e-9).ceil().clamp_min(1)

    def _sum(self, values: Tensor) -> Tensor:
        """Return each module's sum over its layer, (n_modules,)."""
        return torch.zeros_like(values).index_add(0, self.layer, values)[self.layer]


def adam_step(
    value: Tensor, gradient: Tensor, moments: Mapping[str, Tensor], step: int, lr: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a value after Adam's step number `step` (from 1), with its moments `first` and `second`; none at first.

    β1 = 0.5 and β2 = 0.999, as usual where an architecture is searched for: the loss the gradient is of keeps changing.
    """
    first = torch.lerp(gradient, moments.get("first", torch.zeros_like(value)), 0.5)
    second = torch.lerp(gradient.square(), moments.get("second", torch.zeros_like(value)), 0.999)
    change = first / (1 - 0.5**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return value - lr * change, {"first": first, "second": second}


LEAST_STEPS = 3
"""Steps a search takes at least: while B is zero nothing differs."""

GAP_BATCHES = 16
"""Reserved batches the loss is measured on before and after the modules are chosen, at most."""


@dataclass
class DiffoRa(Strategy):
    """h = W0 x + ā_m · s B A x, ā = n · softmax(λ) over the n modules of a layer, while searching; then ā is 0 or 1.

    In the first quarter of the steps the adapters of all modules are trained as usual. Each step is followed by one of
    Adam on the logits λ, with a batch that is kept from training: ∂L/∂λ_k = ⟨B_k, ∂L/∂B_k⟩ - ā_k / n · Σ_i ⟨B_i,
    ∂L/∂B_i⟩. Then the modules of largest ā in each layer stay, with what they learned (ā is multiplied into B). The
    others are removed, and their budget goes into higher ranks. λ is one additional number per module during the
    search.

    Paper: Jiang et al. 2025, DiffoRA, arXiv 2502.08905.
    Differs: only the abstract was available: a 0/1 matrix of layers and kinds, relaxed, trained and discretised.
    Parametrisation, first-order alternation, learning rates, fractions and the inheritance of weights are a
    reconstruction. Its weight sharing between modules while searching is left out. Rank of the chosen modules rises
    until the budget of uniform LoRA is spent.
    """

    title = "DiffoRA"
    summary = (
        "Trains all adapters for a while, and learns a weight for each within its layer, on reserved examples. "
        "Then half of the modules stay, and get the rank of the others."
    )
    formula = r"h = W_0 x + \bar a_m\, s\, B A x, \quad \bar a = n \cdot \mathrm{softmax}(\lambda) \;\to\; \{0, 1\}"
    paper = "Jiang et al. 2025, arXiv 2502.08905"
    fidelity = "reconstruction"
    as_lora = {"search_share": 0.0}
    cost = "a second forward and backward pass in the steps of the search; a tenth of the training examples"
    step_cost = "more"
    state_memory = "more"
    own_signals = {
        "selection": OwnSignal(
            "weight in the search", "Which modules are chosen: 0 without an adapter, 1 with one", "weight"
        ),
        "logit": OwnSignal("logit of the search", "Which modules the search prefers"),
    }

    search_share: float = setting(0.25, "Fraction of the steps used for the search; 0: no search.", ge=0, le=0.9)
    keep: float = setting(0.5, "Fraction of the modules that stay.", gt=0, le=1)
    scope: str = setting(
        "layer", "layer: that fraction of every layer's modules stays; global: of all.", choices=("layer", "global")
    )
    search_lr: float = setting(0.01, "Learning rate of Adam on the logits.", gt=0, le=10)
    search_every: int = setting(1, "Training steps per step on the logits.", unit="steps", ge=1)
    reserve: float = setting(0.1, "Fraction of the training examples that only the logits see.", gt=0, le=0.5)
    growth_limit: float = setting(4.0, "Largest rank of a module that stays, in uniform ranks.", ge=1, le=64)

    search: dict[str, Tensor] = state(dict)
    moments: dict[str, Tensor] = state(dict)
    rivals: dict[str, Tensor] = state(dict)
    gap: list[float] = state(list)

    def check(self, total: int, rank: int) -> None:
        """Refuse limits that leave the budget unspent."""
        if self.search_share and self.keep * self.growth_limit < 1:
            raise ConfigError(
                f"strategy.growth_limit={self.growth_limit}: with keep={self.keep} the modules that stay cannot hold "
                f"the budget; raise it to {1 / self.keep:g} or more"
            )

    def search_steps(self, total: int) -> int:
        """Return the steps of the search; 0 where it would be too short for modules to differ."""
        steps = math.ceil(self.search_share * total)
        return steps if steps >= LEAST_STEPS else 0

    def events(self, total: int, rank: int) -> list[int]:
        """Return the step after which modules are chosen."""
        return [self.search_steps(total)] if self.search_steps(total) else []

    def reserved_share(self) -> float:
        """Keep rows for the logits, where there is a search."""
        return self.reserve if self.search_share else 0.0

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """Leave room for what other modules will give up."""
        if not self.search_share:
            return rank
        return max(rank, min(round(self.growth_limit * probe.rank), module.d_in, module.d_out))

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return an adapter whose components carry a weight, one at first."""
        adapter = super().adapter(module, base, rank, max_rank, probe)
        if self.search_share:
            adapter.use_scale(1.0, trainable=False)
        return adapter

    def start(self, adapters: Adapters) -> None:
        """Begin with equal logits.

        Raises:
            ConfigError: when there are no rows to seek on.
        """
        if self.search_share and (self.held_back is None or not len(self.held_back.reserve)):
            raise ConfigError(
                f"strategy.search_share={self.search_share}: a search needs rows that are kept from training, and "
                "there are none; set it to 0, or train with dynlora's own loop"
            )
        if not self.search_share:
            return
        zero = torch.zeros(len(adapters), device=adapters[0].lora_A.device)
        self.search = {"logits": zero, "weights": zero + 1}
        self.rivals = vars(Choice.among([module.info for module in adapters], zero.device))

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Seek while it lasts, then choose."""
        end = self.search_steps(step.total)
        if step.index < end and step.index % self.search_every == 0:
            return [Weigh(self.sought(adapters, step.index // self.search_every))]
        return self.selected(adapters) if step.index == end else []

    def sought(self, adapters: Adapters, number: int) -> Tensor:
        """Take step `number` on the logits with a reserved batch, and return the weights they give."""
        held_back, choice = self.held_back, self.choice
        assert held_back is not None  # `start` made sure
        up = [module.lora_B for module in adapters]
        loss, gradients = held_back.gradients(held_back.batch(number - 1), up)
        pull = torch.stack([product.sum() for product in torch._foreach_mul(up, gradients)])  # pyright: ignore
        pull = adapters.over_processes(pull)  # the same batch in all of them, but not always the same rounding
        before, weights = self.search["logits"], self.search["weights"]
        slope = choice.logit_gradient(pull, weights)
        logits, self.moments = adam_step(before, slope, self.moments, number, self.search_lr)
        after = choice.weights(logits)
        flips = (self.best(choice, after) & ~self.best(choice, weights)).sum()
        self.search = {"logits": logits, "weights": after, "reserve_loss": loss, "flips": flips}
        return after

    def selected(self, adapters: Adapters) -> list[Edit]:
        """Return the edits that leave the best modules alone with the whole budget; the loss before is noted."""
        best = self.best(self.choice, self.search["weights"])
        self.search = {"logits": self.search["logits"], "weights": best.float()}
        self.moments = {}
        room = [module.max_rank if stays else 0 for module, stays in zip(adapters, best.tolist(), strict=True)]
        nothing = [np.zeros(0)] * len(adapters)
        ranks = greedy_ranks(nothing, adapters.costs, room, budget=adapters.spendable, min_rank=0)
        worth = np.zeros((len(adapters), max(module.max_rank for module in adapters)))
        self.measure()
        return [*toward_ranks(adapters, worth, ranks, nothing), TakeIn(), Look(self.measure)]

    def measure(self) -> None:
        """Note the loss on the reserve: once before the modules are chosen, once after."""
        self.gap = [*self.gap, 0.0 if self.held_back is None else self.held_back.reserve_loss(GAP_BATCHES)]

    def best(self, choice: Choice, weights: Tensor) -> Tensor:
        """Return which modules would stay."""
        return choice.chosen(weights, self.keep, overall=self.scope == "global")

    @property
    def choice(self) -> Choice:
        """Which modules vie with each other."""
        return Choice(**self.rivals)

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record the logits, and each module's weight: 0 or 1 once it is chosen."""
        return {"selection": self.search["weights"], "logit": self.search["logits"]} if self.search else {}

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record the search's loss, entropy and changes of mind; then what choosing did to the reserve's loss."""
        if len(self.gap) == 2:
            return {"discretisation_gap": self.gap[1] - self.gap[0]}
        if "reserve_loss" not in self.search:
            return {}
        entropy = self.choice.entropy(self.search["weights"])
        return {"entropy": entropy, "reserve_loss": self.search["reserve_loss"], "flips": self.search["flips"]}
