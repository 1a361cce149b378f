"""Edits: what a strategy may do to the adapters, as values; `apply` performs them and repairs the optimizer.

This is the only file that changes an adapter's structure or the optimizer's state. A strategy returns edits and so
can be tested without a trainer, the decision log is free, and logging cannot change a result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.adapters import Adapters, LoraLinear
from dynlora.engine.randomness import stream
from dynlora.engine.sketch import GradientSketch


@dataclass(frozen=True)
class Drop:
    """Take component `component` (its current position) off module `module`; `score` is what it was worth."""

    module: int
    component: int
    score: float = float("nan")


@dataclass(frozen=True)
class Grow:
    """Give module `module` one component: b = 0, so the function stays; `score` is what it promises.

    `direction`, (d_in,), is where its row of A points; None draws one that is orthogonal to its siblings.
    """

    module: int
    score: float = float("nan")
    direction: Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Move:
    """Take components off `donors` to give one to `receiver`; several cheap ones may pay for a dear one."""

    donors: tuple[Drop, ...]
    receiver: Grow


@dataclass(frozen=True)
class SetScale:
    """Set the scale e of a module's active components: one value for all of them, or one each, by position."""

    module: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class SetProbe:
    """Keep a probe row alive on exactly these modules; a module without room stays without."""

    modules: tuple[int, ...]


@dataclass(frozen=True)
class Listen:
    """Sketch the gradient of exactly these modules' frozen weights from the next step on; an empty list ends it."""

    modules: tuple[int, ...]


Edit = Drop | Grow | Move | SetScale | SetProbe | Listen


def is_structural(edit: Edit) -> bool:
    """Say whether the edit moves capacity: these are what the decision log keeps."""
    return isinstance(edit, Drop | Grow | Move)


def describe(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """Return the structural edits as plain values: one row per donor component of a move, ready for the run store."""
    rows: list[dict[str, Any]] = []
    for edit in edits:
        if isinstance(edit, Move):
            rows += [_row("move", donor, edit.receiver) for donor in edit.donors]
            if not edit.donors:
                rows.append(_row("grow", None, edit.receiver))
        elif isinstance(edit, Drop):
            rows.append(_row("drop", edit, None))
        elif isinstance(edit, Grow):
            rows.append(_row("grow", None, edit))
        elif isinstance(edit, SetScale):
            rows.append({"edit": "scale", **asdict(edit), "values": list(edit.values)})
    return rows


def _row(kind: str, donor: Drop | None, receiver: Grow | None) -> dict[str, Any]:
    """Return one row of the decision log; modules are indices, None stands for the free part of the budget."""
    return {
        "edit": kind,
        "donor": None if donor is None else donor.module,
        "donor_component": None if donor is None else donor.component,
        "donor_score": None if donor is None else donor.score,
        "receiver": None if receiver is None else receiver.module,
        "receiver_score": None if receiver is None else receiver.score,
        "count": 1,
    }


@torch.no_grad()
def apply(adapters: Adapters, edits: Sequence[Edit], optimizer: Optimizer | None, *, step: int) -> None:
    """Perform `edits` on the adapters, their component state and the optimizer's moments.

    All drops refer to positions before this call; they are done first, then the growth.

    Raises:
        ValueError: when an edit names a component that is not active, or grows a module past its max_rank.
    """
    if not edits:
        return
    drops, grown = _sorted_out(edits)
    _set_probes(adapters, edits, optimizer, touched=[*drops, *(grow.module for grow in grown)])
    for index, positions in drops.items():
        _drop(adapters, index, positions, optimizer)
    for grow in grown:
        _grow(adapters, grow, optimizer, step)
    for edit in edits:
        if isinstance(edit, SetScale):
            _set_scale(adapters[edit.module], edit)
    _start_listening(adapters, edits, step)


def _start_listening(adapters: Adapters, edits: Sequence[Edit], step: int) -> None:
    """Do what the edits say of probe rows and sketches; in their order."""
    for edit in edits:
        if isinstance(edit, SetProbe):
            _start_probes(adapters, edit.modules, step)
        elif isinstance(edit, Listen):
            _listen(adapters, edit.modules, step)


def _listen(adapters: Adapters, indices: Sequence[int], step: int) -> None:
    """Begin an empty sketch on each of these modules, and none on the others."""
    for index, module in enumerate(adapters):
        module.sketch = _empty_sketch(module, adapters.seed, step) if index in indices else None


def _empty_sketch(module: LoraLinear, seed: int, step: int) -> GradientSketch:
    """Return a sketch that can tell apart as many directions as the module has room for components."""
    info = module.info
    return GradientSketch.empty(
        info.d_in, info.d_out,
        seed=seed, key=f"{info.name}/{step}", device=module.lora_A.device, triplets=module.max_rank,
    )  # fmt: skip


def _sorted_out(edits: Sequence[Edit]) -> tuple[dict[int, set[int]], list[Grow]]:
    """Return the components that go, by module, and the growth, one entry per new component."""
    drops: dict[int, set[int]] = defaultdict(set)
    grown: list[Grow] = []
    for edit in edits:
        if isinstance(edit, Drop | Move):
            for drop in edit.donors if isinstance(edit, Move) else (edit,):
                drops[drop.module].add(drop.component)
        if isinstance(edit, Grow | Move):
            grown.append(edit.receiver if isinstance(edit, Move) else edit)
    return drops, grown


def _drop(adapters: Adapters, index: int, positions: set[int], optimizer: Optimizer | None) -> None:
    """Take components off a module: survivors keep their order, the tail is zero in weights and moments."""
    module = adapters[index]
    if not all(0 <= position < module.rank for position in positions):
        raise ValueError(f"drop {sorted(positions)} of {module.info.name}: only 0 to {module.rank - 1} are active")
    keep = [position for position in range(module.rank) if position not in positions]
    for tensor, dim in [*_component_tensors(module, optimizer), *_gate_rows(adapters, index, optimizer)]:
        _pack(tensor, dim, keep)
    for name, state in adapters.components.items():
        row = state[index]
        kept = row[keep].clone()
        row.fill_(adapters.grown_value[name])
        row[: len(keep)] = kept
    module.rank = len(keep)


def _gate_rows(adapters: Adapters, index: int, optimizer: Optimizer | None) -> list[tuple[Tensor, int]]:
    """Return a module's rows of the component gates and of their moments; none where modules have one gate each.

    A dropped component's are zeroed with it, so that one grown in its place begins with a gate of one.
    """
    gates = adapters.gates
    if gates is None or gates.mode != "rank":
        return []
    found = []
    for parameter in (gates.weight, gates.bias):
        moments = (value for value in _state(optimizer, parameter).values() if isinstance(value, Tensor))
        found += [tensor[index] for tensor in (parameter, *moments) if tensor.shape == parameter.shape]
    return [(tensor, 0) for tensor in found]


def _pack(tensor: Tensor, dim: int, keep: Sequence[int]) -> None:
    """Move the kept components to the front along `dim` and zero the rest, in place."""
    kept = tensor.index_select(dim, torch.tensor(keep, dtype=torch.long, device=tensor.device))
    tensor.zero_()
    tensor.narrow(dim, 0, len(keep)).copy_(kept)


def _grow(adapters: Adapters, grow: Grow, optimizer: Optimizer | None, step: int) -> None:
    """Activate the next row: b = 0, a where the edit says or drawn, second moment at the siblings' mean."""
    index, module = grow.module, adapters[grow.module]
    if module.rank >= module.max_rank:
        raise ValueError(f"grow {module.info.name}: already at max_rank={module.max_rank}")
    position = module.rank
    module.lora_A[position] = new_row(module, adapters.seed, step, grow.direction)
    module.lora_B[:, position] = 0
    if module.scale is not None:
        module.scale[position] = 1 if position == 0 else module.scale[:position].abs().mean()
    for parameter, dim in _parameters(module):
        moments = _state(optimizer, parameter)
        if "exp_avg" in moments:
            moments["exp_avg"].select(dim, position).zero_()
        if "exp_avg_sq" in moments:
            second = moments["exp_avg_sq"]
            mean = second.narrow(dim, 0, position).mean(dim) if position else second.select(dim, position) * 0
            second.select(dim, position).copy_(mean)
    for name, state in adapters.components.items():
        state[index, position] = adapters.grown_value[name]
    module.rank = position + 1


def new_row(module: LoraLinear, seed: int, step: int, direction: Tensor | None = None) -> Tensor:
    """Return a fresh row of A, (d_in,), as long as its siblings are on average, or as a row of uniform LoRA is.

    It points along `direction`, or is drawn and made orthogonal to the active rows where there is room.
    """
    rows = module.lora_A[: module.rank]
    row = direction
    if row is None:
        generator = stream(seed, module.info.name, "grow", step, module.rank)
        row = torch.randn(module.info.d_in, generator=generator).to(module.lora_A.device)
        if 0 < module.rank < module.info.d_in:
            basis = torch.linalg.qr(rows.t().float()).Q
            row = row - basis @ (basis.t() @ row)
    usual = rows.norm(dim=1).mean() if module.rank else torch.tensor((1 / 3) ** 0.5, device=row.device)
    return row / row.norm().clamp_min(1e-12) * usual


def _set_scale(module: LoraLinear, edit: SetScale) -> None:
    """Write the scale of the active components; a module that had none gets one."""
    if len(edit.values) not in (1, module.rank):
        raise ValueError(f"scale of {module.info.name}: {len(edit.values)} values for rank {module.rank}")
    if module.scale is None:
        module.use_scale(1.0, trainable=False)
    scale = module.scale
    if scale is not None:
        scale[: module.rank] = torch.tensor(edit.values, dtype=scale.dtype, device=scale.device)


def _set_probes(adapters: Adapters, edits: Sequence[Edit], optimizer: Optimizer | None, touched: Sequence[int]) -> None:
    """Take probe rows off every module that changes, or all of them when the edits say where probes go next."""
    anew = any(isinstance(edit, SetProbe) for edit in edits)
    for index, module in enumerate(adapters):
        if module.probes and (anew or index in touched):
            _end_probe(module, optimizer)


def _end_probe(module: LoraLinear, optimizer: Optimizer | None) -> None:
    """Return a probe row to the zero tail, its moments too."""
    for tensor, dim in _component_tensors(module, optimizer):
        tensor.select(dim, module.rank).zero_()
    module.probes = 0


def _start_probes(adapters: Adapters, indices: Sequence[int], step: int) -> None:
    """Draw a probe row, a ~ N(0, 1/d_in) and b = 0, on each module with room for one."""
    for index in indices:
        module = adapters[index]
        if module.rank >= module.max_rank:
            continue
        generator = stream(adapters.seed, module.info.name, "probe", step)
        row = torch.randn(module.info.d_in, generator=generator) / module.info.d_in**0.5
        module.lora_A[module.rank] = row.to(module.lora_A.device)
        module.probes = 1


def _parameters(module: LoraLinear) -> list[tuple[Tensor, int]]:
    """Return the module's per-component weights with the dimension that counts components."""
    pairs: list[tuple[Tensor, int]] = [(module.lora_A, 0), (module.lora_B, 1)]
    if module.scale is not None:
        pairs.append((module.scale, 0))
    return pairs


def _component_tensors(module: LoraLinear, optimizer: Optimizer | None) -> list[tuple[Tensor, int]]:
    """Return weights and moments with the dimension that counts components."""
    pairs = _parameters(module)
    moments = [
        (value, dim)
        for parameter, dim in pairs
        for value in _state(optimizer, parameter).values()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    ]
    return pairs + moments


def _state(optimizer: Optimizer | None, parameter: Tensor) -> Mapping[str, Any]:
    """Return the optimizer's state of a parameter, empty before its first step."""
    return {} if optimizer is None else optimizer.state.get(parameter, {})
