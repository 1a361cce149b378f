"""LoRA-SP: a random half of every adapter is trained, the rest stays as it was drawn."""

from __future__ import annotations

from dataclasses import dataclass
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
from dynlora.engine.strategy import OwnSignal, Strategy, setting, start_setting
from dynlora.errors import ConfigError

MASKS = ("entry", "row", "matrix")
"""What is frozen: single entries; rows of A (components) and of B (outputs); or A whole."""

SIDES = ("A", "B")


class PartialLinear(LoraLinear):
    """A module of whose A and B only a part is trained.

    A matrix that is trained whole is the optimizer's own parameter, one that is frozen whole gets no gradient. Of one
    that is trained in part the optimizer sees the trained entries alone, as a parameter of their own: their gradient is
    read into it before a step, and they are written back after it, so that what is frozen has no moments, no weight
    decay and no part in the gradient's norm, and keeps its bits.

    Attributes:
        part_A, part_B: the trained entries, (n, width), width being 1 where they are drawn one by one and a row's
            where rows are; absent where the matrix is trained or frozen whole.
        index_A, index_B: places of the entries in A and B read row by row, or of the rows, (n,), rising; as absent.
    """

    def __init__(
        self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, scaling: float, mask: str, share: float
    ) -> None:
        """Wrap `base_layer`, with room for as much as `mask` and `share` let train; nothing is chosen yet."""
        super().__init__(base_layer, info, rank=rank, max_rank=rank, scaling=scaling)
        self.widths = {"A": info.d_in, "B": rank} if mask == "row" else {"A": 1, "B": 1}
        for side, count in trained_counts(info, rank, mask, share).items():
            whole = self.whole(side)
            if count == 0:
                whole.requires_grad_(False)
            elif count * self.widths[side] < whole.numel():
                room = torch.zeros(count, self.widths[side], device=whole.device)
                self.register_parameter(f"part_{side}", nn.Parameter(room, requires_grad=False))  # gradients are ours
                self.register_buffer(f"index_{side}", torch.zeros(count, dtype=torch.int32, device=whole.device))

    def whole(self, side: str) -> nn.Parameter:
        """Return A or B."""
        return self.get_parameter(f"lora_{side}")

    def parts(self) -> list[tuple[str, Tensor, Tensor, Tensor]]:
        """Return side, matrix, trained entries and their places of each matrix that is trained in part.

        The matrix is a view, (numbers / width, width): its rows are what is drawn.
        """
        return [
            (side, self.whole(side).detach().view(-1, self.widths[side]), part, self.get_buffer(f"index_{side}"))
            for side in SIDES
            if (part := getattr(self, f"part_{side}", None)) is not None
        ]

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Return what the optimizer trains, by the names of what it is a part of."""
        parameters = {f"lora_{side}": self.whole(side) for side in SIDES if self.whole(side).requires_grad}
        return parameters | {f"lora_{side}": self.get_parameter(f"part_{side}") for side, *_ in self.parts()}

    @torch.no_grad()
    def choose(self, seed: int, draw: int) -> None:
        """Draw what is trained; draw 0 is that of the start."""
        for side, matrix, _, index in self.parts():
            generator = stream(seed, self.info.name, f"trained {side}", draw)
            index.copy_(torch.randperm(len(matrix), generator=generator)[: len(index)].sort().values)
        self.read()

    @torch.no_grad()
    def read(self) -> None:
        """Let the optimizer begin from what A and B are now."""
        for _, matrix, part, index in self.parts():
            part.copy_(matrix[index])

    @torch.no_grad()
    def gather(self) -> None:
        """Give the trained entries their gradient."""
        for side, _, part, index in self.parts():
            gradient = self.whole(side).grad
            part.grad = None if gradient is None else gradient.view(-1, self.widths[side])[index]

    @torch.no_grad()
    def write_back(self) -> None:
        """Put the trained entries, as the optimizer left them, into A and B."""
        for _, matrix, part, index in self.parts():
            matrix[index] = part

    def trained_shares(self) -> dict[str, float]:
        """Return the fraction of A and of B that is trained, by side."""
        shares = {side: float(self.whole(side).requires_grad) for side in SIDES}
        return shares | {side: len(index) / len(matrix) for side, matrix, _, index in self.parts()}

    def trained_of_components(self) -> Tensor:
        """Return the fraction of each component's numbers, a row of A and a column of B, that is trained, (rank,)."""
        flags = self.trained()
        return (flags["A"].sum(1) + flags["B"].sum(0)) / self.info.cost

    def trained(self) -> dict[str, Tensor]:
        """Return which entries of A and B are trained, by side, each as large as the matrix, 0 or 1."""
        flags = {side: torch.full_like(self.whole(side), float(self.whole(side).requires_grad)) for side in SIDES}
        for side, matrix, _, index in self.parts():
            flags[side] = torch.zeros_like(matrix).index_fill_(0, index.long(), 1.0).view_as(self.whole(side))
        return flags


def trained_counts(info: ModuleInfo, rank: int, mask: str, share: float) -> dict[str, int]:
    """Return how much of A and of B is trained: entries, or rows where rows are drawn."""
    if mask == "matrix":
        return {"A": 0, "B": info.d_out * rank}
    if mask == "row":
        return {"A": max(1, round(share * rank)), "B": max(1, round(share * info.d_out))}
    return {"A": round(share * rank * info.d_in), "B": round(share * info.d_out * rank)}


@dataclass(frozen=True)
class ReadParts(Change):
    """Let the optimizer begin from what A and B are now, after something else has set them."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Read."""
        for module in _partial(adapters):
            module.read()


@dataclass(frozen=True)
class WriteBack(Change):
    """Put the trained entries of every module, as the optimizer left them, into A and B."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Write back."""
        for module in _partial(adapters):
            module.write_back()


@dataclass(frozen=True)
class ChooseAnew(Change):
    """Draw other entries to train. One that stays keeps its moments.

    One that comes begins with a first moment of zero and the mean second moment of those that were trained: with zero
    its first updates would be three to six times the rate, since Adam counts the steps of the whole tensor.
    """

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Draw, and carry the moments over."""
        for module in _partial(adapters):
            before = {side: index.clone() for side, _, _, index in module.parts()}
            module.choose(adapters.seed, step)
            for side, matrix, part, index in module.parts():
                for name, moment in state_of(optimizer, part).items():
                    if isinstance(moment, Tensor) and moment.shape == part.shape:
                        newcomers = moment.mean() if name == "exp_avg_sq" else moment.new_zeros(())
                        spread = newcomers.expand(matrix.shape).clone()
                        spread[before[side]] = moment
                        moment.copy_(spread[index])

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        return {"edit": "train_other_entries"}


def _partial(adapters: Adapters) -> list[PartialLinear]:
    """Return the partly frozen modules."""
    return [module for module in adapters if isinstance(module, PartialLinear)]


@dataclass
class LoraSp(Strategy):
    """h = W0 x + s · B A x with (A, B) = M ⊙ (A, B)_trained + (1 - M) ⊙ (A, B)_0 for a random mask M.

    Half of the numbers of A and B are drawn to be trained. The others keep their start and have no moments, which
    halves the optimizer's memory. A mask is of single entries, of rows of A (components) and B (outputs), or of whole
    matrices. The frozen part of B stays zero; the frozen part of A is a random projection that B can still use. Entries
    and rows are gathered from whole gradients; only a matrix that is frozen completely has none. So at its peak a
    number of the adapter takes 16 bytes with entries, as in LoRA, 14 with rows and 10 with matrices (d_in = d_out).

    Paper: Wu et al. 2024, LoRA-SP: Streamlined Partial Parameter Adaptation, arXiv 2403.08822.
    Differs: only the abstract was available (half of the parameters, drawn at random); all else is a reconstruction.
    The masks are ours; of whole matrices it is A that is frozen, because a module whose B stays zero could never learn.
    Drawing again (`resample_every`) is our option, off by default.
    """

    title = "LoRA-SP"
    summary = (
        "Trains a random half of every adapter and leaves the rest as it was drawn. The adapter is as large as LoRA's, "
        "and the optimizer needs half the memory."
    )
    formula = r"h = W_0 x + s\,(M_B \odot B)\,(M_A \odot A + (1 - M_A) \odot A_0)\,x"
    paper = "Wu et al. 2024, arXiv 2403.08822"
    fidelity = "reconstruction"
    cost = "half the optimizer's memory; entries gathered and written back each step"
    step_cost = "more"
    state_memory = "less"
    as_lora = {"share": 1.0}
    own_signals = {
        "trained_A": OwnSignal("trained fraction of A", "How much of A is trained", "fraction"),
        "trained_B": OwnSignal("trained fraction of B", "How much of B is trained", "fraction"),
        "trained": OwnSignal("trained fraction of each component", "What is frozen, per component", "fraction"),
    }

    init: str = start_setting(("kaiming", "gaussian", "eva"))
    mask: str = setting("entry", "What is frozen: entries, rows of A and B, or all of A (matrix).", choices=MASKS)
    share: float = setting(0.5, "Fraction of the numbers that is trained; matrix trains all of B.", gt=0, le=1)
    resample_every: int | None = setting(
        None, "Steps after which others are drawn. Empty: the same throughout.", unit="steps", ge=1
    )

    def check(self, total: int, rank: int) -> None:
        """Refuse a fraction of components that leaves none, or all, of them."""
        if self.mask == "row" and round(self.share * rank) < 1:
            raise ConfigError(
                f"strategy.share={self.share}: leaves less than one of {rank} components; raise it to {1 / rank:g}"
            )
        if self.mask == "matrix" and self.resample_every is not None:
            raise ConfigError(
                f"strategy.resample_every={self.resample_every}: mask=matrix freezes all of A and draws nothing; leave "
                "it empty, or set strategy.mask to entry or row"
            )
        if self.mask == "matrix" and self.share == 1:
            raise ConfigError("strategy.share=1.0: mask=matrix freezes all of A; set strategy.mask=entry to train all")

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which others are drawn."""
        every = self.resample_every
        return [] if every is None else list(range(every, total, every))

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> PartialLinear:
        """Return an adapter with the first draw of what is trained."""
        scaling = self.module_scaling(probe)
        adapter = PartialLinear(base, module, rank=rank, scaling=scaling, mask=self.mask, share=self.share)
        adapter.reset_parameters(probe.seed, gaussian=1 / probe.rank if self.init == "gaussian" else None)
        adapter.choose(probe.seed, 0)
        return adapter

    def begin(self, adapters: Adapters, probe: Probe) -> list[Edit]:
        """Return the start's edits; what is trained begins from them."""
        return [*super().begin(adapters, probe), ReadParts()]

    def observe(self, adapters: Adapters, step: Step) -> None:
        """Hand the optimizer the gradient of what is trained."""
        for module in adapters:
            if isinstance(module, PartialLinear):
                module.gather()

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Write back what the optimizer moved; draw again when it is time."""
        if step.index in self.events(step.total, adapters.reference_rank):
            return [WriteBack(), ChooseAnew()]
        return [WriteBack()]

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record which part of each module is trained."""
        shares = [module.trained_shares() for module in adapters if isinstance(module, PartialLinear)]
        return {f"trained_{side}": np.array([share[side] for share in shares]) for side in SIDES}

    def component_signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Record which part of each component is trained."""
        return {"trained": torch.cat([m.trained_of_components() for m in adapters if isinstance(m, PartialLinear)])}
