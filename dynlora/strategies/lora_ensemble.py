"""LoRA-Ensemble: several members on one frozen model, each with adapters and a head of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from dynlora.engine.context import Probe
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, by_names
from dynlora.engine.randomness import stream
from dynlora.engine.strategy import Batch, OwnSignal, Strategy, setting, start_setting
from dynlora.errors import ConfigError, DynloraError, NotMergeableError
from dynlora.tasks import LabelledTask


class Team:
    """How many members there are, and how many rows the batch of the current forward has for all of them.

    Attributes:
        count: members, M.
        rows: M · batch inside `spread`, None outside.
    """

    def __init__(self, count: int) -> None:
        """Begin outside of any forward."""
        self.count = count
        self.rows: int | None = None

    @contextmanager
    def spread(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Give the batch with its rows once for every member: all rows of member 0, then all of member 1, ..."""
        repeated = {name: tensor.repeat(self.count, *[1] * (tensor.dim() - 1)) for name, tensor in batch.items()}
        before, self.rows = self.rows, len(next(iter(repeated.values())))
        try:
            yield repeated
        finally:
            self.rows = before

    def check(self, x: Tensor, name: str) -> None:
        """Refuse an input whose rows cannot be assigned to members.

        Raises:
            DynloraError: outside of `spread`, or when the leading dimension is not that of the batch.
        """
        if self.rows is None:
            raise DynloraError(
                f"{name}: {self.count} members share a batch; call the strategy's forward, not the model"
            )
        if len(x) % self.rows:
            raise DynloraError(f"{inseparable(name)} (its input has the shape {tuple(x.shape)})")


def inseparable(names: str) -> str:
    """Return why members of some modules cannot be separated, and what to do about it."""
    return (
        f"the input of {names} is not the batch with its rows once for every member, so members cannot be separated; "
        "exclude it with adapter.targets"
    )


class MemberLoraLinear(LoraLinear):
    """A module with an update of its own for each member: h_i = W0 x_i + scaling · B_i A_i x_i.

    The members' components are one after the other, component j belonging to member j // member_rank. A row meets all
    of them in one product, as in LoRA of rank M · member_rank, and those of other members times zero: this costs no
    more than LoRA's own product, and nothing reaches a member's weights from another one's rows.

    Attributes:
        lora_A: (M · member_rank, d_in).
        lora_B: (d_out, M · member_rank).
        team: which rows belong to whom.
        owner: one where a component, in the row, belongs to a member, in the column; (M · member_rank, M).
    """

    owner: Tensor

    def __init__(
        self, base_layer: nn.Module, info: ModuleInfo, *, team: Team, member_rank: int, scaling: float
    ) -> None:
        """Wrap `base_layer`; A is filled by `draw_members`, B is zero."""
        rank = team.count * member_rank
        super().__init__(base_layer, info, rank=rank, max_rank=rank, scaling=scaling)
        self.team = team
        owner = torch.eye(team.count, device=self.lora_A.device).repeat_interleave(member_rank, 0)
        self.register_buffer("owner", owner, persistent=False)

    @torch.no_grad()
    def draw_members(self, seed: int, spread: float, gaussian: float | None = None) -> None:
        """Draw each member's A from a stream of its own and set B = 0.

        Args:
            seed: of the run.
            spread: factor on what is drawn.
            gaussian: deviation of a normal draw; None draws U(-1/√d_in, 1/√d_in).
        """
        bound = 1 / math.sqrt(self.info.d_in)
        for member, A in enumerate(self.lora_A.chunk(self.team.count)):
            generator, draw = stream(seed, self.info.name, "lora_A", "member", member), torch.empty(A.shape)
            if gaussian is None:
                draw.uniform_(-bound, bound, generator=generator)
            else:
                draw.normal_(0, gaussian, generator=generator)
            A.copy_(spread * draw)
        self.lora_B.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Map (M · batch, ..., d_in), member by member, to (M · batch, ..., d_out)."""
        if self.enabled:
            self.team.check(x, self.info.name)
        return super().forward(x)

    def gate(self, live: int) -> Tensor:
        """Return one where a component belongs to the member whose part of the rows it meets, (live, M)."""
        return self.owner[:live]

    def own_tensors(self) -> dict[str, Tensor]:
        """Return nothing: who owns what follows from the sizes."""
        return {}

    def member(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one member's A, (member_rank, d_in), and B, (d_out, member_rank)."""
        return self.lora_A.chunk(self.team.count)[index], self.lora_B.chunk(self.team.count, 1)[index]

    def low_rank(self) -> tuple[Tensor, Tensor]:
        """Refuse: there is one update a member, and the mean of their probabilities is no update of the weights."""
        raise NotMergeableError(
            f"strategy.members={self.team.count}: an ensemble answers with the mean of its members' probabilities, "
            "which no single adapter can hold; use dynlora predict, or train with strategy.members=1 to export"
        )

    def measured(self) -> tuple[Tensor, Tensor]:
        """Return A and B side by side, member by member, so that the norm is the root of the members' mean square."""
        A = torch.block_diag(*self.lora_A.chunk(self.team.count))
        B = torch.block_diag(*self.lora_B.chunk(self.team.count, 1))
        return A, B / math.sqrt(self.team.count)

    @torch.no_grad()
    def distance(self) -> Tensor:
        """Return scaling · ‖B_i A_i - B_j A_j‖_F, the mean over all pairs of members, without forming an update."""
        inner = (self.lora_A @ self.lora_A.t()) * (self.lora_B.t() @ self.lora_B)
        inner = self.owner.t() @ inner @ self.owner  # ⟨B_i A_i, B_j A_j⟩, (M, M)
        square = inner.diagonal()
        gap = (square.unsqueeze(0) + square.unsqueeze(1) - 2 * inner).clamp_min(0).sqrt()
        return self.scaling * gap.sum() / max(1, self.team.count * (self.team.count - 1))


class MemberLinear(nn.Module):
    """A linear module of the head, once for every member; trained in full.

    Attributes:
        weight: (M, d_out, d_in).
        bias: (M, d_out), or None.
        team: which rows belong to whom.
    """

    def __init__(self, first: nn.Linear, name: str, team: Team, seed: int) -> None:
        """Make `first` the first member's; the others draw theirs, as wide, each from a stream of its own."""
        super().__init__()
        self.in_features, self.out_features, self.name, self.team = first.in_features, first.out_features, name, team
        own = first.weight.detach()
        weights = [own]
        for member in range(1, team.count):
            draw = torch.randn(own.shape, generator=stream(seed, name, "head", member)).to(own)
            weights.append(draw * own.std() if own.numel() > 1 else draw)
        self.weight = nn.Parameter(torch.stack(weights))
        self.bias = None if first.bias is None else nn.Parameter(first.bias.detach().repeat(team.count, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (M · batch, ..., d_in), member by member, to (M · batch, ..., d_out)."""
        self.team.check(x, self.name)
        rows = x.reshape(self.team.count, -1, x.shape[-1])
        transposed = self.weight.transpose(1, 2)
        out = torch.bmm(rows, transposed) if self.bias is None else self._affine(rows, transposed)
        return out.view(*x.shape[:-1], -1)

    def _affine(self, rows: Tensor, transposed: Tensor) -> Tensor:
        assert self.bias is not None
        return torch.baddbmm(self.bias.unsqueeze(1), rows, transposed)


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
