"""Starts: how A and B begin, and what is looked at for it; values of the field `strategy.init` every method has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynlora.engine.data.held_back import Batch
from dynlora.engine.edits.components import StartAt
from dynlora.engine.edits.values import Edit
from dynlora.engine.fields import setting
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.offset_linear import OffsetLinear
from dynlora.engine.randomness import stream
from dynlora.errors import ConfigError
from dynlora.tasks import Task

if TYPE_CHECKING:
    from dynlora.engine.context import Probe


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


def weight_gradients(
    model: nn.Module, modules: Mapping[str, nn.Module], batches: Sequence[Batch], task: Task
) -> dict[str, Tensor]:
    """Return the mean gradient of the loss for every module's weight, (d_out, d_in), over `batches`.

    The model is in eval mode meanwhile and keeps no gradient. All gradients together are as large as the weights.

    Args:
        model: made for the task.
        modules: linear modules by name; Conv1D's transposed weight comes back as (d_out, d_in) too.
        batches: with labels.
        task: whose loss it is.
    """
    weights: list[Tensor] = [module.weight for module in modules.values()]  # pyright: ignore - linear by construction
    requires_grad = [weight.requires_grad for weight in weights]
    training = model.training
    model.eval()
    sums: list[Tensor] = []
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            for batch in batches:
                inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
                loss = task.batch_loss(task.forward(model, inputs), batch["labels"])
                gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
                sums = list(gradients) if not sums else torch._foreach_add(sums, gradients)  # pyright: ignore
    finally:
        for weight, before in zip(weights, requires_grad, strict=True):
            weight.requires_grad_(before)
        model.train(training)
    means = torch._foreach_div(sums, len(batches))  # pyright: ignore
    return {
        name: mean if isinstance(module, nn.Linear) else mean.t()
        for (name, module), mean in zip(modules.items(), means, strict=True)
    }


@torch.no_grad()
def mean_product(module: nn.Module, gradient: Tensor) -> Tensor:
    """Return mean |W0 ⊙ G|, a number: to first order, how much a weight of the module matters to the loss.

    Args:
        module: linear, its weight as (d_out, d_in) or, in Conv1D, (d_in, d_out).
        gradient: G, (d_out, d_in).
    """
    weight: Tensor = module.weight  # pyright: ignore - linear by construction
    return (gradient * (weight if isinstance(module, nn.Linear) else weight.t())).abs().mean()


BATCHES = 8
"""Training batches that gradients are averaged over, and the most that input directions are found in."""

STABLE_GAMMA = 16
"""LoRA-GA's γ: B is multiplied by d_out^¼ / √γ; the larger, the smaller the start."""


@dataclass(frozen=True)
class Start:
    """One way to begin.

    Attributes:
        help: in a few words.
        adapter: what wraps the frozen module.
        gaussian: whether A is drawn from a normal law of deviation 1 / rank; kaiming uniform otherwise.
        place: edits that set A and B once the adapters are in the model, from data.
    """

    help: str
    adapter: type[LoraLinear] = LoraLinear
    gaussian: bool = False
    place: Callable[[Adapters, Probe], list[Edit]] = lambda adapters, probe: []


def probe_batches(probe: Probe, n: int, *, labels: bool = False) -> list[Batch]:
    """Return the first n training batches.

    Raises:
        ConfigError: when there are none, or none with the labels that are needed.
    """
    batches = [batch for batch in probe.batches(n) if "labels" in batch or not labels]
    if not batches:
        raise ConfigError(
            f"strategy: needs training batches{' with labels' if labels else ''} before it starts and has "
            "none; give calibration batches, or use another init"
        )
    return batches


def along_inputs(adapters: Adapters, probe: Probe) -> list[Edit]:
    """Return edits that lay each module's rows of A along the directions its inputs vary most in; B stays zero."""
    ranks = {module.info.name: module.rank for module in adapters}
    modules = {module.info.name: module.base_layer for module in adapters}
    limit = max(1, *ranks.values())
    batches = probe_batches(probe, BATCHES)
    directions = input_directions(probe.model, modules, batches, lambda _: ranks, limit=limit, seed=probe.seed)
    return along(adapters, directions)


def along(adapters: Adapters, directions: Mapping[str, InputComponents]) -> list[Edit]:
    """Return edits that set the rows of A to the first components found; rows without one stay as drawn."""
    rows = [directions[module.info.name].components[: module.rank] for module in adapters]
    return [StartAt(index, A) for index, A in enumerate(rows)]


def along_gradients(adapters: Adapters, probe: Probe) -> list[Edit]:
    """Return edits that start A and B along the singular vectors of the frozen weights' gradients (LoRA-GA).

    With U S Vᵀ the gradient's decomposition and r the rank: A = V[:, :r]ᵀ, B = U[:, r:2r] S[r:2r] d_out^¼ / √γ, and the
    frozen weight gives up scaling · B A.

    Raises:
        ConfigError: when the method's adapters are of a kind that cannot hold an offset.
    """
    if not all(isinstance(module, OffsetLinear) for module in adapters):
        raise ConfigError(
            "strategy.init=lora_ga: this strategy has its own adapters, which cannot start from the frozen "
            "weight; use another init"
        )
    modules = {module.info.name: module.base_layer for module in adapters}
    gradients = weight_gradients(probe.model, modules, probe_batches(probe, BATCHES, labels=True), probe.task)
    edits: list[Edit] = []
    for index, module in enumerate(adapters):
        name, gradient = module.info.name, gradients[module.info.name]
        A, B = gradient_pair(gradient, module.rank, stream(probe.seed, name, "gradient directions"))
        edits.append(StartAt(index, A, B, hold=True))
    return edits


@torch.no_grad()
def gradient_pair(gradient: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return LoRA-GA's A, (rank, d_in), and B, (d_out, rank), of a gradient (d_out, d_in); see `along_gradients`.

    Columns of B for which the gradient has no further singular vector are zero.
    """
    left, value, right = leading(gradient.float(), 2 * rank, generator)
    A = gradient.new_zeros(rank, gradient.shape[1])
    B = gradient.new_zeros(gradient.shape[0], rank)
    A[: len(right[:rank])] = right[:rank]
    second = left[:, rank:] * value[rank:]
    B[:, : second.shape[1]] = second * (gradient.shape[0] ** 0.25 / STABLE_GAMMA**0.5)
    return A, B


@torch.no_grad()
def gradient_step(gradient: Tensor, A: Tensor, length: float, scaling: float) -> Tensor:
    """Return B, (d_out, rank), such that scaling · B A is a step down the gradient, as far as the rows of A reach.

    B = -ξ G Aᵀ (A Aᵀ)⁻¹, with ξ such that ‖scaling · B A‖ = length · ‖G‖; zero where G has nothing along A.

    Args:
        gradient: G, (d_out, d_in).
        A: (rank, d_in), of full rank.
        length: of the step, in gradients.
        scaling: the adapter's s.
    """
    G = gradient.float()
    basis, triangle = torch.linalg.qr(A.float().t())  # Aᵀ = Q R, so that Aᵀ (A Aᵀ)⁻¹ = Q R⁻ᵀ and ‖B A‖ = ‖ξ G Q‖
    reached = G @ basis
    B = torch.linalg.solve_triangular(triangle, reached.t(), upper=True).t()
    size = reached.norm()
    return torch.where(size > 0, -length / scaling * G.norm() / size.clamp_min(1e-30) * B, 0.0)


def base_modules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules of these names, before they are wrapped."""
    return {name: model.get_submodule(name) for name in names}


STARTS: dict[str, Start] = {
    "kaiming": Start("kaiming uniform"),
    "gaussian": Start("Gaussian with standard deviation 1 / rank", gaussian=True),
    "eva": Start("eva: along the inputs", place=along_inputs),
    "lora_ga": Start("lora_ga: A and B along the gradient", OffsetLinear, place=along_gradients),
}
"""By the value of `strategy.init`."""


def start_setting(choices: Sequence[str] = tuple(STARTS)) -> Any:
    """Declare `init`: how A starts, for a method that can take only some of the starts; the first is the default."""
    return setting(choices[0], f"Start of A: {'; '.join(STARTS[name].help for name in choices)}.", choices=choices)
