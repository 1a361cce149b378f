"""Input directions: along which axes the inputs of each module vary, found batch by batch before training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynlora.engine.data.held_back import Batch
from dynlora.engine.randomness import stream

EXACT = 256
"""Up to so many rows or columns all triplets are computed: that is as fast, and exact."""

ROUNDS = 4
"""Products with the matrix and its transpose that sharpen the basis."""


@torch.no_grad()
def leading(matrix: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return u (rows, n), σ (n,) falling, and v (n, columns) of the n leading triplets; fewer where there are not n.

    Large matrices are projected on a random subspace of twice the width, sharpened by power iteration (Halko et al.
    2011, arXiv 0909.4061). The largest entry of every v is positive, since a decomposition leaves the signs open.

    Args:
        matrix: (rows, columns).
        n: triplets wanted.
        generator: the subspace is drawn from it.
    """
    n = min(n, *matrix.shape)
    width = max(2 * n, 8)
    if min(*matrix.shape) <= max(EXACT, width):
        u, value, v = torch.linalg.svd(matrix, full_matrices=False)
    else:
        draw = torch.randn(matrix.shape[1], width, generator=generator).to(matrix)
        basis = torch.linalg.qr(matrix @ draw).Q
        for _ in range(ROUNDS):
            basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.t() @ basis).Q).Q
        inner, value, v = torch.linalg.svd(basis.t() @ matrix, full_matrices=False)
        u = basis @ inner
    u, value, v = u[:, :n], value[:n], v[:n]
    largest = v.abs().argmax(1, keepdim=True)
    sign = torch.where(v.gather(1, largest) < 0, -1.0, 1.0)
    return u * sign.t(), value, v * sign


class InputComponents:
    """The principal components of a module's inputs, kept up to date batch by batch.

    With S V the components so far, a batch X of n rows and mean x̄, and m rows of mean x̄₀ before it, the new ones are
    the leading right singular vectors of [S V; X - x̄; √(m n / (m + n)) (x̄₀ - x̄)]: exact but for what was cut off.

    Attributes:
        limit: components kept at most.
        components: v, (n, d_in), orthonormal, the one along which the inputs vary most first.
        values: singular values, (n,).
        converged: which of them pointed the same way after the last batch as before it, (n,) bool.
        count: rows seen.
        scatter: Σ ‖x - x̄‖² over them.
    """

    def __init__(self, limit: int, generator: torch.Generator, tau: float) -> None:
        """Keep at most `limit` components; one has converged when its cosine to its last place is at least `tau`."""
        self.limit = limit
        self.tau = tau
        self.generator = generator
        self.components = torch.zeros(0, 0)
        self.values = torch.zeros(0)
        self.converged = torch.zeros(0, dtype=torch.bool)
        self.count = 0
        self.mean = torch.zeros(())
        self.scatter = 0.0

    @property
    def ratio(self) -> Tensor:
        """The fraction of the inputs' variance along each component, (n,)."""
        return self.values.square() / max(self.scatter, 1e-30)

    def settled(self, n: int) -> bool:
        """Say whether the first n components have converged; fewer than n where the inputs have no more."""
        return self.count > 0 and len(self.converged) >= min(n, self.limit) and bool(self.converged[:n].all())

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """Take a batch of rows in, (n, d_in)."""
        if not len(rows):
            return
        rows, before, old = rows.float(), self.count, self.components
        mean, self.count = rows.mean(0), before + len(rows)
        parts = [rows - mean]
        if before:
            shift = (before * len(rows) / self.count) ** 0.5 * (self.mean - mean)
            parts = [self.values.unsqueeze(1) * old, *parts, shift.unsqueeze(0)]
            mean = mean + (self.mean - mean) * (before / self.count)
        self.scatter += sum(float(part.square().sum()) for part in parts[-2:])  # the last two, or the one there is
        self.mean = mean
        _, self.values, self.components = leading(torch.cat(parts), self.limit, self.generator)
        self.converged = torch.zeros(len(self.values), dtype=torch.bool, device=rows.device)
        known = min(len(old), len(self.components))
        if known:
            cosine = F.cosine_similarity(self.components[:known], old[:known])
            self.converged[:known] = cosine >= self.tau


@torch.no_grad()
def input_directions(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    batches: Sequence[Batch],
    ranks_of: Callable[[Mapping[str, InputComponents]], Mapping[str, int]],
    *,
    limit: int,
    seed: int,
    tau: float = 0.99,
) -> dict[str, InputComponents]:
    """Return the components of every module's inputs; modules that get the same input share theirs.

    Batches are read until the components in demand have converged, or there are no more. Padding does not count.

    Args:
        model: in eval mode while it is looked at, without gradients.
        modules: linear modules by name.
        batches: as the model takes them; labels are left out.
        ranks_of: says how many components of each module are in demand, given what was seen so far.
        limit: components kept of each module at most.
        seed: of the run.
        tau: cosine from which a component counts as converged.
    """
    seen: dict[str, InputComponents] = {}
    owner: dict[str, str] = {}

    def record(name: str, rows: Tensor) -> None:
        """Take a module's first input in, unless another module had the same."""
        first = owner[name] = digests.setdefault(_digest(rows), name)
        if first == name:
            seen[name] = InputComponents(limit, stream(seed, name, "input directions"), tau)
            seen[name].add(rows)

    digests: dict[str, str] = {}
    for batch in batches:
        if not seen:
            _feed(model, modules, batch, record)
            continue
        demand = ranks_of({name: seen[first] for name, first in owner.items()})
        watched = {first for name, first in owner.items() if not seen[first].settled(demand[name])}
        if not watched:
            break
        _feed(model, {name: modules[name] for name in watched}, batch, lambda name, rows: seen[name].add(rows))
    return {name: seen[first] for name, first in owner.items()}


def _feed(
    model: nn.Module, modules: Mapping[str, nn.Module], batch: Batch, take: Callable[[str, Tensor], None]
) -> None:
    """Run the model in eval mode and hand every module's input to `take`, as rows (n, d_in) without padding."""
    mask = batch.get("attention_mask")
    handles = [module.register_forward_pre_hook(_taking(take, name, mask)) for name, module in modules.items()]
    training = model.training
    model.eval()
    try:
        model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)


def _taking(take: Callable[[str, Tensor], None], name: str, mask: Tensor | None) -> Callable[[nn.Module, Any], None]:
    """Return a hook that hands a module's input on under its name."""
    return lambda _, args: take(name, _rows(args[0], mask))


def _rows(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return an input, (batch, seq, d_in) or flattened or pooled, as rows, those of padding left out."""
    rows = x.reshape(-1, x.shape[-1])
    return rows[mask.reshape(-1).bool()] if mask is not None and mask.numel() == len(rows) else rows


def _digest(rows: Tensor) -> str:
    """Return what two inputs have in common only where they are equal to the bit."""
    values = rows.detach().contiguous().cpu().view(torch.uint8)
    return hashlib.blake2b(values.numpy().tobytes() + repr(tuple(rows.shape)).encode()).hexdigest()
