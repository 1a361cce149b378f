"""LoRA-SP: a random half of every adapter is trained, the rest stays as it was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.strategy import OwnSignal, Strategy, setting, start_setting
from dynlora.errors import ConfigError
from dynlora.strategies.lora_sp.layer import MASKS, SIDES, ChooseAnew, PartialLinear, ReadParts, WriteBack


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
