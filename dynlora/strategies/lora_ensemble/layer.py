"""Members on one frozen model: each row of a batch is there once for every member, who adds an update of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.randomness import stream
from dynlora.errors import DynloraError, NotMergeableError


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
