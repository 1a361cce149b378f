"""LoRA-Ensemble: several members on one frozen model, each with adapters and a head of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from dynlora.engine.context import Probe
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, by_names
from dynlora.engine.strategy import Batch, OwnSignal, Strategy, setting, start_setting
from dynlora.errors import ConfigError
from dynlora.strategies.lora_ensemble.layer import (
    MemberLinear,
    MemberLoraLinear,
    Team,
    inseparable,
)
from dynlora.tasks import LabelledTask

USUAL = 4
"""Members where nobody says how many, as far as the rank reaches."""


@dataclass
class LoraEnsemble(Strategy):
    """p(y | x) = 1/M Σ_i softmax(f_i(x)), member i with h = W0 x + s · B_i A_i x and a head of its own.

    All members see every batch, in one forward pass of M times its examples. The loss is the mean of their losses, so
    each trains as if it were alone. Their disagreement is recorded per example. It shows what the ensemble does not
    know, apart from what is ambiguous.

    Paper: Mühlematter et al. 2024, LoRA-Ensemble: Efficient Uncertainty Modelling for Self-Attention Networks, arXiv
    2405.14438, with the authors' published code.
    Differs: 4 members by default, 16 published (`members`). They share the parameters of uniform LoRA, rank r // M,
    where every published member has rank r (`member_budget` each). s = alpha / r of the uniform rank, where the paper
    has no factor. Every linear module of the blocks is adapted, not the attention's four. A is drawn as LoRA draws it
    times `spread`, where the paper draws it xavier-uniform with gain 10, 24 times as wide at d_in = 768. With s = 2 and
    LoRA's learning rate, ten times higher than the paper's, such steps are too large, and the heads already make
    members differ. The first member's head is the model's own; the others are drawn as wide.
    """

    title = "LoRA-Ensemble"
    summary = (
        "Several members with their own adapters and heads share one frozen model, and their probabilities are "
        "averaged. Their disagreement shows uncertainty: it is larger on texts unlike the training data."
    )
    formula = r"p(y \mid x) = \tfrac{1}{M} \sum_i \mathrm{softmax}(f_i(x)), \quad h_i = W_0 x + s B_i A_i x"
    paper = "Mühlematter et al. 2024, arXiv 2405.14438"
    fidelity = "code"
    cost = "M forward and backward passes per step, M forward passes per prediction; M heads"
    step_cost = "more"
    tasks = ("classification", "regression")
    own_signals = {"member_distance": OwnSignal("distance of members", "Where the members' updates differ", "norm")}
    starts_as_base = False
    as_lora = {"members": 1}

    team: ClassVar[Team | None] = None
    between: ClassVar[Tensor | None] = None

    init: str = start_setting(("kaiming", "gaussian"))
    members: int | None = setting(
        None, "Members that share the frozen model. Empty: 4, or as many as adapter.rank has components.", ge=1, le=64
    )
    member_budget: str = setting(
        "shared",
        "shared: members divide the parameters of uniform LoRA; each: every member has them all.",
        choices=("shared", "each"),
    )
    spread: float = setting(1.0, "How wide each member's A is drawn, as a factor on LoRA's own start.", gt=0, le=100)

    def check(self, total: int, rank: int) -> None:
        """Refuse more members than there are components to share."""
        if self.member_budget == "shared" and self.members is not None and self.members > rank:
            raise ConfigError(
                f"strategy.members={self.members}: each needs a component of its own and adapter.rank={rank} has too "
                "few; raise adapter.rank, or set strategy.member_budget=each"
            )
        if self.spread != 1 and self.count(rank) == 1:
            raise ConfigError(f"strategy.spread={self.spread}: one member has no other to differ from; set it to 1")

    def check_model(self, modules: Sequence[ModuleInfo], probe: Probe) -> None:
        """Refuse a task whose predictions members cannot average, and modules whose input holds no batch of rows."""
        if probe.task.name not in self.learns():
            raise ConfigError(
                f"strategy.name=lora_ensemble: averages the members' probabilities of classes, and data.task="
                f"{probe.task.name} has one of every word at every token; use another method"
            )
        if probe.mixed and self.count(probe.rank) > 1:
            raise ConfigError(f"strategy.name=lora_ensemble: {inseparable(by_names(probe.mixed))}")

    def count(self, rank: int) -> int:
        """Return the number of members, of uniform LoRA's rank."""
        return self.members or (USUAL if self.member_budget == "each" else min(USUAL, rank))

    def member_rank(self, rank: int) -> int:
        """Return the rank of each member, of uniform LoRA's rank."""
        return rank if self.member_budget == "each" else rank // self.count(rank)

    def parameter_budget(self, uniform: int) -> int:
        """Return uniform LoRA's parameters, or as many for every member."""
        return uniform if self.member_budget == "shared" else uniform * (self.members or USUAL)

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return an adapter with an update for each member; a single member's is LoRA's own."""
        count = self.count(probe.rank)
        if count == 1:
            return super().adapter(module, base, rank, max_rank, probe)
        if self.team is None:
            self.team = Team(count)  # pyright: ignore[reportAttributeAccessIssue] - no field, so that it is no state
        scaling, member_rank = self.module_scaling(probe), self.member_rank(probe.rank)
        adapter = MemberLoraLinear(base, module, team=self.team, member_rank=member_rank, scaling=scaling)
        adapter.draw_members(probe.seed, self.spread, 1 / probe.rank if self.init == "gaussian" else None)
        return adapter

    def head(self, name: str, module: nn.Linear, probe: Probe) -> nn.Module:
        """Return the module once for every member."""
        return module if self.team is None else MemberLinear(module, name, self.team, probe.seed)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return all members' logits, (M, batch, n_labels), while training; else what they say together."""
        if self.team is None:
            return super().forward(model, batch)
        with self.team.spread(batch) as repeated:
            logits: Tensor = model(**repeated).logits
        logits = logits.view(self.team.count, -1, logits.shape[-1])
        if model.training:
            return logits
        together, self.apart = cast(LabelledTask, self.task).pool_members(logits)
        return together

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over members of their own losses."""
        if output.dim() == 2:
            return super().loss(output, labels)
        self.between = cast(LabelledTask, self.task).member_distance(output.detach())  # pyright: ignore[reportAttributeAccessIssue] - no state
        return super().loss(output.flatten(0, 1), labels.repeat(len(output)))

    def disagreement(self) -> Tensor | None:
        """Return how far the members disagree about the last rows: mutual information in nats, or the deviation."""
        return None if self.team is None else self.apart

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record how far the members' answers to the last batch are apart."""
        return {} if self.between is None else {"function_distance": self.between}

    def signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Record how far the members' updates of each module are apart, the mean over their pairs."""
        distances = [module.distance() for module in adapters if isinstance(module, MemberLoraLinear)]
        return {"member_distance": torch.stack(distances)} if distances else {}
