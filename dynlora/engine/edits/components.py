"""Components go and come: survivors keep their order, moments and tracked state follow, growth keeps the function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.edits.values import Change, Grow
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear, resized
from dynlora.engine.model.offset_linear import OffsetLinear
from dynlora.engine.randomness import stream


def component_tensors(module: LoraLinear, optimizer: Optimizer | None) -> list[tuple[Tensor, int]]:
    """Return weights and moments with the dimension that counts components."""
    pairs = module.component_parts()
    moments = [
        (value, dim)
        for parameter, dim in pairs
        for value in state_of(optimizer, parameter).values()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    ]
    return pairs + moments


def state_of(optimizer: Optimizer | None, parameter: Tensor) -> Mapping[str, Any]:
    """Return the optimizer's state of a parameter, empty before its first step."""
    return {} if optimizer is None else optimizer.state.get(parameter, {})


def forget(optimizer: Optimizer | None, parameter: Tensor) -> None:
    """Begin a parameter's moments and step count from zero."""
    if optimizer is not None:
        optimizer.state.pop(parameter, None)


def merge_moments(optimizer: Optimizer | None, parameters: Sequence[Tensor]) -> None:
    """Give the first parameter the moments of the sum of all gradients, and take the others out of the optimizer.

    First moments add up, and so do the roots of the second ones, the most that the root of a sum's can be: the
    survivor's first step is then no larger than the largest of theirs, where moments of one alone would let it take
    steps as many times the rate as there are parameters.
    """
    if optimizer is None:
        return
    survivor, *others = parameters
    states = [state_of(optimizer, parameter) for parameter in parameters]
    if "exp_avg" in states[0]:
        states[0]["exp_avg"].copy_(torch.stack([moments["exp_avg"] for moments in states]).sum(0))
        root = torch.stack([moments["exp_avg_sq"] for moments in states]).sqrt().sum(0)
        states[0]["exp_avg_sq"].copy_(root.square())
    gone = {id(parameter) for parameter in others}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in gone]
    for parameter in others:
        forget(optimizer, parameter)


def weighted_mean(tensors: Sequence[Tensor], share: Sequence[float]) -> Tensor:
    """Return Σ share · tensor, the shares adding up to one."""
    return torch.stack([weight * tensor for weight, tensor in zip(share, tensors, strict=True)]).sum(0)


def component_gates(adapters: Adapters) -> list[nn.Parameter]:
    """Return the gates' parameters, (n_modules, widest max_rank, ...), where every component has a gate of its own."""
    gates = adapters.gates
    return [] if gates is None or gates.mode != "rank" else [gates.weight, gates.bias]


def begin_moments(
    optimizer: Optimizer | None, parameter: Tensor, dim: int, position: int, row: int | None = None
) -> None:
    """Give a new component its moments in a parameter: none in the first, the siblings' mean in the second.

    Args:
        optimizer: that keeps the moments; without one there is nothing to do.
        parameter: the tensor that the component is part of.
        dim: its dimension that counts components, of one row where `row` is given.
        position: of the component; those before it are its siblings.
        row: of the module, where the parameter holds all modules.
    """
    moments = state_of(optimizer, parameter)
    for name in ("exp_avg", "exp_avg_sq"):  # an optimizer may keep one of them alone
        if name in moments:
            moment = moments[name] if row is None else moments[name][row]
            siblings = name == "exp_avg_sq" and position > 0
            moment.select(dim, position).copy_(
                moment.narrow(dim, 0, position).mean(dim)
                if siblings
                else torch.zeros_like(moment.select(dim, position))
            )


def gate_rows(adapters: Adapters, index: int, optimizer: Optimizer | None) -> list[tuple[Tensor, int]]:
    """Return a module's rows of the component gates and of their moments; none where modules have one gate each.

    A dropped component's are zeroed with it, so that one grown in its place begins with a gate of one.
    """
    rows = []
    for parameter in component_gates(adapters):
        moments = (value for value in state_of(optimizer, parameter).values() if isinstance(value, Tensor))
        rows += [tensor[index] for tensor in (parameter, *moments) if tensor.shape == parameter.shape]
    return [(tensor, 0) for tensor in rows]


def state_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of everything the optimizer keeps beside the weights, the head's moments among it."""
    tensors = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class RestartMoments(Change):
    """Begin the moments and step counts of everything that is trained from zero, the head's among them."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Forget every parameter."""
        for group in [] if optimizer is None else optimizer.param_groups:
            for parameter in group["params"]:
                forget(optimizer, parameter)


def shrunk(values: Tensor, threshold: float, dead_zone: float | None = None) -> Tensor:
    """Return sign(v) · max(|v| - threshold, 0), the proximal map of threshold · |v|, elementwise.

    Args:
        values: any shape.
        threshold: what every value loses of its size.
        dead_zone: everything below it becomes zero instead of only what the threshold reaches.
    """
    size = values.abs()
    moved = values.sign() * (size - threshold).clamp_min(0)
    return moved if dead_zone is None else torch.where(size < dead_zone, 0.0, moved)


@dataclass(frozen=True)
class ShrinkScales(Change):
    """Shrink the scale of every component of every module, as `shrunk` does, and keep it within limits.

    The moments stay: a shrinkage is no gradient. It is not logged, since it happens at every step.
    """

    threshold: float
    dead_zone: float | None = None
    limits: tuple[float, float] | None = None

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Shrink all scales in one pass: they are many and small."""
        scales = [module.scale for module in adapters if module.scale is not None]
        if not scales:
            return
        moved = shrunk(torch.cat(scales), self.threshold, self.dead_zone)
        if self.limits is not None:
            moved = moved.clamp(*self.limits)
        torch._foreach_copy_(scales, moved.split([len(scale) for scale in scales]))  # pyright: ignore


@dataclass(frozen=True)
class MaskScales(Change):
    """Multiply the scales of all active components by `keep`, 0 or 1 each, one module's after the other's.

    It decides nothing and happens at every step, so it is not logged, and nothing waits for the device.
    """

    keep: Tensor = field(compare=False, repr=False)

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Mask all scales in one pass; a module without a scale is left alone."""
        parts = self.keep.split([module.rank for module in adapters])
        held = [(m.scale[: m.rank], part) for m, part in zip(adapters, parts, strict=True) if m.scale is not None]
        torch._foreach_mul_([scale for scale, _ in held], [part for _, part in held])  # pyright: ignore


@dataclass(frozen=True)
class StartAt(Change):
    """Set the first components of a module: rows of A, (n, d_in), and columns of B, (d_out, n); the others stay.

    `hold` lets the frozen weight give up what the adapter adds then, so that the function stays the base's. `scaling`
    replaces the module's factor, where it is given.
    """

    module: int
    A: Tensor = field(compare=False, repr=False)
    B: Tensor | None = field(default=None, compare=False, repr=False)
    hold: bool = False
    scaling: float | None = None

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Copy the values in; there are no moments yet.

        Raises:
            TypeError: when a module that has no offset is asked to hold one.
        """
        module = adapters[self.module]
        module.lora_A[: len(self.A)] = self.A.to(module.lora_A)
        if self.B is not None:
            module.lora_B[:, : self.B.shape[1]] = self.B.to(module.lora_B)
        if self.scaling is not None:
            module.scaling = self.scaling
        if self.hold and not isinstance(module, OffsetLinear):
            raise TypeError(f"{module.info.name}: a {type(module).__name__} cannot hold an offset")
        if self.hold and isinstance(module, OffsetLinear):
            module.hold()


@dataclass(frozen=True)
class Recompose(Change):
    """Replace a module's components by n combinations of them, A' = f R A and B' = f B C, with R C = 1.

    The optimizer's moments follow the change of variables: ∂L/∂A' = Cᵀ ∂L/∂A / f and ∂L/∂B' = ∂L/∂B Rᵀ / f; second
    moments as if the gradients of the components were independent. f² is the old scaling over the new one, so that the
    update of the components that stay is kept. With Adam, whose steps do not depend on the size of gradients, factors
    f times as large learn as at f times less the rate.

    Attributes:
        module: by position.
        rows, columns: R, (n, r), and C, (r, n), n at most the rank r; the components left out are gone.
        scaling: factor of the module from now on.
    """

    module: int
    rows: Tensor = field(compare=False, repr=False)
    columns: Tensor = field(compare=False, repr=False)
    scaling: float

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Change weights and moments, and take the components off that are left over; tracking starts again."""
        module = adapters[self.module]
        rank, left = module.rank, len(self.rows)
        factor = (module.scaling / self.scaling) ** 0.5
        down, up = self.rows * factor, self.columns.t() * factor
        for parameter, dim, change, back in (
            (module.lora_A, 0, down, up / factor**2),
            (module.lora_B, 1, up, down / factor**2),
        ):
            moments = state_of(optimizer, parameter)
            for tensor, matrix in (
                (parameter, change),
                (moments.get("exp_avg"), back),
                (moments.get("exp_avg_sq"), back.square()),
            ):
                if tensor is not None:  # in double precision: products in single round by where a tensor begins
                    live = tensor.narrow(dim, 0, rank).cpu().double()
                    tensor.narrow(dim, 0, left).copy_(matrix @ live if dim == 0 else live @ matrix.t())
        module.scaling = self.scaling
        drop(adapters, self.module, set(range(left, rank)), optimizer)
        for name, state in adapters.components.items():
            state[self.module].fill_(adapters.grown_value[name])

    def described(self) -> dict[str, Any] | None:
        """Return the drop of the components that are left over; None where the module keeps its rank."""
        left, rank = self.rows.shape
        row = {"edit": "drop", "donor": self.module, "donor_component": left, "donor_score": None}
        return None if left == rank else {**row, "receiver": None, "receiver_score": None, "count": rank - left}


def drop(adapters: Adapters, index: int, positions: set[int], optimizer: Optimizer | None) -> None:
    """Take components off a module: survivors keep their order, the tail is zero in weights and moments."""
    module = adapters[index]
    if not all(0 <= position < module.rank for position in positions):
        raise ValueError(f"drop {sorted(positions)} of {module.info.name}: only 0 to {module.rank - 1} are active")
    keep = [position for position in range(module.rank) if position not in positions]
    for tensor, dim in [*component_tensors(module, optimizer), *gate_rows(adapters, index, optimizer)]:
        _pack(tensor, dim, keep)
    if module.scale is not None and not module.scale.requires_grad:
        module.scale[len(keep) :] = 1  # as in a module that was never full
    for name, state in adapters.components.items():
        row = state[index]
        remaining = row[keep].clone()
        row.fill_(adapters.grown_value[name])
        row[: len(keep)] = remaining
    module.rank = len(keep)
    module.packed()


def _pack(tensor: Tensor, dim: int, keep: Sequence[int]) -> None:
    """Move the kept components to the front along `dim` and zero the rest, in place."""
    remaining = tensor.index_select(dim, torch.tensor(keep, dtype=torch.long, device=tensor.device))
    tensor.zero_()
    tensor.narrow(dim, 0, len(keep)).copy_(remaining)


def grow_component(adapters: Adapters, grow: Grow, optimizer: Optimizer | None, step: int) -> None:
    """Activate the next row: a, b and e where the edit says or drawn, second moment at the siblings' mean."""
    index, module = grow.module, adapters[grow.module]
    if module.rank >= module.max_rank:
        raise ValueError(f"grow {module.info.name}: already at max_rank={module.max_rank}")
    position = module.rank
    make_room(module, position + 1, optimizer)
    module.lora_A[position] = new_row(module, adapters.seed, step, grow.direction, grow.length)
    module.lora_B[:, position] = 0 if grow.column is None else grow.column
    if module.scale is not None:
        usual = 1 if position == 0 else module.scale[:position].abs().mean()
        module.scale[position] = usual if grow.scale is None else grow.scale
    for parameter, dim in module.component_parts():
        begin_moments(optimizer, parameter, dim, position)
    for parameter in component_gates(adapters):
        begin_moments(optimizer, parameter, 0, position, row=index)
    for name, state in adapters.components.items():
        state[index, position] = adapters.grown_value[name]
    module.rank = position + 1


def new_row(
    module: LoraLinear, seed: int, step: int, direction: Tensor | None = None, length: float | None = None
) -> Tensor:
    """Return a fresh row of A, (d_in,), of norm `length`: that of its siblings' mean, or of a row of uniform LoRA.

    It points along `direction`, or is drawn and made orthogonal to the active rows where there is room.
    """
    rows = module.lora_A[: module.rank]
    row = direction
    if row is None:
        generator = stream(seed, module.info.name, "grow", step, module.rank)
        row = orthogonal_draw(rows, generator)
    usual = rows.norm(dim=1).mean() if module.rank else torch.tensor((1 / 3) ** 0.5, device=row.device)
    return row / row.norm().clamp_min(1e-12) * (usual if length is None else length)


def orthogonal_draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return a normal draw, (d,), less its projection on `rows`, (n, d), where there is room beside them."""
    draw = torch.randn(rows.shape[1], generator=generator).to(rows.device)
    if not 0 < len(rows) < rows.shape[1]:
        return draw
    basis = torch.linalg.qr(rows.t().float()).Q
    return draw - basis @ (basis.t() @ draw)


def make_room(module: LoraLinear, rows: int, optimizer: Optimizer | None) -> None:
    """Hold memory for at least `rows` components."""
    if module.holds_live and module.held < rows:
        _hold(module, rows, optimizer)


def give_back(modules: Iterable[LoraLinear], optimizer: Optimizer | None) -> None:
    """Hold memory for live components alone, in the modules that do so at all."""
    for module in modules:
        if module.holds_live and module.held > module.rank:
            _hold(module, module.rank, optimizer)


def _hold(module: LoraLinear, rows: int, optimizer: Optimizer | None) -> None:
    """Resize the module's tensors and the moments that have their shape."""
    moments = [
        (cast(dict[str, Any], state_of(optimizer, parameter)), name, dim)
        for parameter, dim in module.component_parts()
        for name, value in state_of(optimizer, parameter).items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    ]
    module.hold(rows)
    for state, name, dim in moments:
        state[name] = resized(state[name], dim, rows)
