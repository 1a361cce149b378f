"""GeLoRA: rank where a block makes the data's geometry richer, as the intrinsic dimension of its states tells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.allocation import scores
from dynlora.engine.allocation.solvers import proportional_ranks, toward_ranks
from dynlora.engine.context import Probe, Step
from dynlora.engine.data.batches import LOOK
from dynlora.engine.data.held_back import Batch
from dynlora.engine.edits import Edit
from dynlora.engine.initializers import probe_batches
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.strategy import OwnSignal, Strategy, setting, state
from dynlora.errors import ConfigError


@torch.no_grad()
def layer_states(model: nn.Module, batches: Iterable[Batch], rows: int) -> list[Tensor]:
    """Return the states before the first block and after each, averaged over the tokens: layers + 1 of (n, d).

    The model is in eval mode meanwhile. Padding is left out, and a row that came before counts once. What leaves the
    last block is taken there: Llama and GPT-2 list it after their last norm only.

    Args:
        model: a transformers model.
        batches: as the model takes them; labels are left out.
        rows: at most so many are read.
    """
    known: set[bytes] = set()
    batch_states: list[list[Tensor]] = []
    training = model.training
    model.eval()
    try:
        for batch in batches:
            if len(known) >= rows:
                break
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
            fresh = _fresh(inputs["input_ids"], mask, known, rows)
            if not fresh:
                continue
            weight = (mask / mask.sum(1, keepdim=True).clamp_min(1)).unsqueeze(-1).float()
            with leaving_last_block(model) as left:
                states = list(model(**inputs, output_hidden_states=True).hidden_states)
            states[-1:] = left or states[-1:]
            batch_states.append([(state.float() * weight).sum(1)[fresh] for state in states])
    finally:
        model.train(training)
    return [torch.cat(parts) for parts in zip(*batch_states, strict=True)]


@contextmanager
def leaving_last_block(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what leaves the model's last block inside the block; nothing where its blocks are not found."""
    inner = getattr(model, "module", model)
    count = getattr(getattr(inner, "config", None), "num_hidden_layers", 0)
    blocks = [part for part in inner.modules() if isinstance(part, nn.ModuleList) and 0 < len(part) == count]
    left: list[Tensor] = []

    def take(module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the states, which some blocks return first of several things."""
        left.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block[-1].register_forward_hook(take) for block in blocks[:1]]
    try:
        yield left
    finally:
        for hook in hooks:
            hook.remove()


def _fresh(ids: Tensor, mask: Tensor, known: set[bytes], rows: int) -> list[int]:
    """Return which rows of a batch were not read before, and note them, up to `rows` in all."""
    fresh = []
    for index, (row, row_mask) in enumerate(zip(ids.cpu(), mask.bool().cpu(), strict=True)):
        key = row[row_mask].numpy().tobytes()
        if key not in known and len(known) < rows:
            known.add(key)
            fresh.append(index)
    return fresh


LEAST = 10
"""Different points below which nothing is said of a dimension."""


EQUAL = 1e-6
"""Distance, as a fraction of the largest, up to which two points are one: equal rows differ in their last bits."""


@dataclass(frozen=True)
class Dimension:
    """An estimate.

    Attributes:
        value: the dimension, a number of degrees of freedom.
        error: its standard error.
        points: different points it rests on.
    """

    value: float
    error: float
    points: int


@torch.no_grad()
def intrinsic_dimension(points: Tensor, discard: float = 0.1) -> Dimension | None:
    """Return the intrinsic dimension of points (n, d), or None where fewer than ten differ.

    With r1 and r2 the distances to the two nearest neighbours, μ = r2 / r1 follows P(μ > t) = t^-d where the density is
    even (Facco et al. 2017, arXiv 1803.06992). The largest μ, where it is least even, are discarded: of the sorted
    log μ the first k = (1 - discard) n count in full, the others as no less than the k-th, which is the maximum
    likelihood under such a cut: d = (k - 1) / (Σ_{i ≤ k} log μ_i + (n - k) log μ_k), its error d / √(k - 2).

    Points that are equal count once: their r1 would be zero. Rotation, shift and scale of the points change nothing.

    Args:
        points: (n, d); n² distances are computed.
        discard: fraction of the largest μ that is cut.
    """
    points = points.detach().cpu().double()  # not every accelerator has such numbers
    if len(points) < LEAST or not points.isfinite().all():
        return None
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    different = ~(distance <= EQUAL * distance.max()).triu(1).any(0)
    n = int(different.sum())
    if n < LEAST:
        return None
    near = distance[different][:, different].fill_diagonal_(math.inf).topk(2, dim=1, largest=False).values
    logs = (near[:, 1] / near[:, 0]).log().sort().values
    k = max(3, math.floor((1 - discard) * n))
    total = float(logs[:k].sum() + (n - k) * logs[k - 1])
    if not 0 < total < math.inf:
        return None
    value = (k - 1) / total
    return Dimension(value, value / math.sqrt(k - 2), n)


LAST = 0.7
"""Fraction of the steps after which ranks no longer move."""

RESERVED = 0.1
"""Fraction of the training examples that dimensions are estimated on again."""


@dataclass
class GeLora(Strategy):
    """h = W0 x + s · B A x with r_l = max(round(d_{l+1} - d_l), 0) + 1 for every module of block l.

    d_l is the intrinsic dimension of the hidden states that enter block l of the base model, d_{l+1} of those that
    leave it. Each state is averaged over an example's tokens. TwoNN estimates the dimension from the distances to the
    two nearest neighbours. A block that adds degrees of freedom needs that many more directions to be adapted. By
    default these ranks are scaled to spend uniform LoRA's budget; s = alpha / rank of the uniform one.

    Paper: Ed-dib et al. 2024, GeLoRA, arXiv 2412.09250.
    Differs: only the lower bound max(d_{l+1} - d_l, 0) was available, not the algorithm. Pooling, rounding, the one
    added, the constant scaling and `normalise` are a reconstruction. The largest 10 % of the neighbours' ratios count
    as no less than the next, which leaves the estimate unbiased, where they are usually discarded. `estimate_every`,
    off by default, moves rank while training.
    """

    title = "GeLoRA"
    summary = (
        "Measures how many degrees of freedom the texts have before and after each block of the base model. Blocks "
        "that add some get more rank."
    )
    formula = (
        r"r_l \propto \max(\mathrm{round}(d_{l+1} - d_l), 0) + 1, \quad \hat d = N \,/\, \textstyle\sum \ln (r_2 / r_1)"
    )
    paper = "Ed-dib et al. 2024, arXiv 2412.09250"
    fidelity = "reconstruction"
    cost = "none per step; forward passes over the samples and their distances before training"
    own_signals = {
        "dimension": OwnSignal(
            "intrinsic dimension", "How many dimensions the states leaving each block have", "dimensions"
        ),
        "dimension_growth": OwnSignal("dimensions added", "What each block adds to the dimension", "dimensions"),
        "dimension_error": OwnSignal("standard error", "Uncertainty of the dimensions", "dimensions"),
    }

    samples: int = setting(
        1000, "Training examples whose states are compared, at most.", unit="examples", ge=16, le=4096
    )
    discard: float = setting(
        0.1, "Fraction of the neighbour ratios, the largest ones, that do not count in full.", ge=0, le=0.5
    )
    normalise: bool = setting(True, "Whether ranks are scaled to uniform LoRA's parameters; off: as they are.")
    estimate_every: int | None = setting(
        None, "Steps between estimates on the adapted model, which move rank. Empty: never.", unit="steps", ge=1
    )
    growth_limit: float = setting(4.0, "Largest rank after a move, in uniform ranks.", ge=1, le=64)

    dimension: list[float] = state(list)
    error: list[float] = state(list)

    def check(self, total: int, rank: int) -> None:
        """Refuse a distance between estimates that leaves none."""
        if self.estimate_every is not None and not self.events(total, rank):
            raise ConfigError(
                f"strategy.estimate_every={self.estimate_every}: no estimate fits into the first {LAST:.0%} of the "
                f"run's {total} steps; lower it, or leave it empty"
            )

    def check_model(self, modules: Sequence[ModuleInfo], probe: Probe) -> None:
        """Refuse a model of two stacks of blocks: its states are no one sequence whose dimensions can be compared.

        Raises:
            ConfigError: naming the method.
        """
        if getattr(getattr(probe.model, "config", None), "is_encoder_decoder", False):
            raise ConfigError(
                "strategy.name=gelora: compares the states of one stack of blocks, and this model has an encoder and a "
                "decoder; use another method"
            )

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which dimensions are estimated again."""
        if self.estimate_every is None:
            return []
        return list(range(self.estimate_every, math.floor(LAST * total) + 1, self.estimate_every))

    def start(self, adapters: Adapters) -> None:
        """Make sure that there are rows for later estimates.

        Raises:
            ConfigError: when estimates are asked for and no rows are kept from training.
        """
        if self.estimate_every is not None and (self.held_back is None or not len(self.held_back.reserve)):
            raise ConfigError(
                f"strategy.estimate_every={self.estimate_every}: estimates need rows that are kept from training, and "
                "there are none; leave it empty, or train with dynlora's own loop"
            )

    def reserved_share(self) -> float:
        """Keep rows for later estimates, where there are some."""
        return 0.0 if self.estimate_every is None else RESERVED

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Estimate the dimensions of the base model's states, and return the ranks they ask for."""
        self.estimate(probe.model, probe_batches(probe, math.ceil(self.samples / LOOK)))
        return self.asked_for(modules, probe.budget, [min(info.d_in, info.d_out) for info in modules])

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """Leave room where ranks move."""
        if self.estimate_every is None:
            return rank
        return max(rank, min(round(self.growth_limit * probe.rank), module.d_in, module.d_out))

    def estimate(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Note dimension and standard error of the states before the first block and after each; NaN where unknown."""
        estimates = [intrinsic_dimension(states, self.discard) for states in layer_states(model, batches, self.samples)]
        self.dimension = [math.nan if one is None else one.value for one in estimates]
        self.error = [math.nan if one is None else one.error for one in estimates]

    def asked_for(self, modules: Sequence[ModuleInfo], budget: int, most: Sequence[int]) -> list[int]:
        """Return the ranks that the dimensions ask for: scaled to the budget, and never more than it."""
        added = np.nan_to_num(np.diff(self.dimension)) if len(self.dimension) > 1 else np.zeros(1)  # unknown: nothing
        growth = np.maximum(np.round(added), 0) + 1
        ranks = np.array([growth[self.block(info, len(growth))] for info in modules])
        cost, most_ = np.array([info.cost for info in modules]), np.array(most)
        plain = np.minimum(ranks.astype(int), most_)
        if not self.normalise and plain @ cost <= budget:
            return plain.tolist()
        return proportional_ranks(ranks, cost, budget=budget, least=np.ones_like(most_), most=most_)

    @staticmethod
    def block(info: ModuleInfo, blocks: int) -> int:
        """Return the block whose dimensions a module goes by: its own; the last one outside of blocks."""
        return blocks - 1 if info.layer is None else min(info.layer, blocks - 1)

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Estimate again where it is time, on the adapted model and rows kept from training, and move the rank."""
        held_back = self.held_back
        if (
            step.index not in self.events(step.total, adapters.reference_rank)
            or held_back is None
            or not held_back.reserve
        ):
            return []
        count = min(self.samples, len(held_back.reserve))
        with held_back.autocast():
            self.estimate(held_back.model, (held_back.batch(i) for i in range(math.ceil(count / held_back.batch_size))))
        known = torch.tensor(self.dimension, device=adapters[0].lora_A.device)
        self.dimension = adapters.over_processes(known).tolist()  # which must all come to the same ranks
        room = [module.max_rank for module in adapters]
        ranks = self.asked_for([module.info for module in adapters], adapters.spendable, room)
        shape = (len(adapters), max(room))
        size = scores.component_magnitude(adapters.modules, torch.zeros(shape, device=adapters[0].lora_A.device))
        return toward_ranks(adapters, size.cpu().numpy(), ranks, [np.zeros(0)] * len(adapters))

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record the dimension of what leaves each module's block, what the block adds, and the standard error."""
        if len(self.dimension) < 2:
            return {}
        blocks = [self.block(module.info, len(self.dimension) - 1) for module in adapters]
        after, growth = np.array(self.dimension)[1:], np.diff(self.dimension)
        error = np.array(self.error)[1:]
        return {"dimension": after[blocks], "dimension_growth": growth[blocks], "dimension_error": error[blocks]}
