"""The uniform form of an adapter: one rank for all modules and no scaling, which every engine reads alike.

Engines that serve adapters differ in how they read unequal ranks: some take one alpha / r for all, some need each
module of a type in every layer, some need one shape. In the uniform form r = lora_alpha = R, the largest rank; each A
has R rows and each B has R columns, zeros beyond its own; B is multiplied by its scaling s; a module without rank has
zeros. Then alpha / r = 1 whatever an engine reads, and the update of each module is s · B A as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynlora.errors import AdapterError
from dynlora.peft_adapter.foreign_names import split_names

Shape = tuple[int, int]
"""Of a module: input and output features."""


class Update(NamedTuple):
    """What an adapter adds to a module's weight: s · B A.

    Attributes:
        lora_A: (r, d_in).
        lora_B: (d_out, r).
        scaling: s.
    """

    lora_A: NDArray[Any]
    lora_B: NDArray[Any]
    scaling: float

    @property
    def shape(self) -> Shape:
        """Input and output features."""
        return self.lora_A.shape[1], self.lora_B.shape[0]


@dataclass(frozen=True)
class UniformAdapter:
    """An adapter whose modules all have one rank.

    Attributes:
        rank: R, at least 1.
        factors: A (R, d_in) and B (d_out, R) by module, the scaling in B, float32.
        padded: modules whose own rank is below R.
        filled: modules that had no update and have zeros.
    """

    rank: int
    factors: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    padded: tuple[str, ...]
    filled: tuple[str, ...]

    def config(self) -> dict[str, Any]:
        """Return what of PEFT's LoraConfig follows from the form."""
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "use_rslora": False,
            "use_dora": False,
            "init_lora_weights": True,
            "rank_pattern": {},
            "alpha_pattern": {},
            "inference_mode": True,
        }


def uniform(updates: Mapping[str, Update], shapes: Mapping[str, Shape]) -> UniformAdapter:
    """Return an adapter in the uniform form.

    Args:
        updates: by module.
        shapes: of every module that shall be there, in their order; those without an update get zeros.

    Raises:
        AdapterError: when an update has no place among the modules, or no module has a rank above 0.
    """
    rank = max((len(update.lora_A) for update in updates.values()), default=0)
    if not rank:
        raise AdapterError("the adapter is empty, no module has a rank above 0; keep more of it")
    for name, update in updates.items():
        if shapes.get(name) != update.shape:
            raise AdapterError(f"module {name[:200]}: has no place in the base model; give the adapter's own base")
    factors = {name: _padded(updates.get(name), shape, rank) for name, shape in shapes.items()}
    padded = tuple(name for name in factors if name in updates and len(updates[name].lora_A) < rank)
    return UniformAdapter(rank, factors, padded, tuple(name for name in factors if name not in updates))


def _padded(update: Update | None, shape: Shape, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return A and s · B with zeros up to a rank."""
    d_in, d_out = shape
    lora_A, lora_B = np.zeros((rank, d_in), np.float32), np.zeros((d_out, rank), np.float32)
    if update is not None:
        own = len(update.lora_A)
        lora_A[:own], lora_B[:, :own] = update.lora_A, update.scaling * update.lora_B
    return lora_A, lora_B


def own_components(lora_A: NDArray[Any], lora_B: NDArray[Any]) -> NDArray[np.bool_]:
    """Say of each component, (r,), whether it is more than padding: zeros in A and in B."""
    return np.logical_or(np.any(lora_A, axis=1), np.any(lora_B, axis=0))


def shapes_in_every_layer(shapes: Mapping[str, Shape], layers: int | None) -> dict[str, Shape]:
    """Return the modules with those of the same type in every other layer, in the order of layers.

    Args:
        shapes: of the modules that an adapter has.
        layers: of the base model; None where it is not known: those up to the last one named.
    """
    parts = split_names(shapes)
    stacks: dict[str, int] = {}
    kinds: dict[tuple[str, str], Shape] = {}
    for name, (stack, layer, kind) in parts.items():
        if layer is None:
            continue
        stacks[stack] = max(stacks.get(stack, 0), layer + 1)
        kinds.setdefault((stack, kind), shapes[name])
    if layers is not None and len(stacks) == 1:
        stacks = {stack: max(named, layers) for stack, named in stacks.items()}
    full = {
        f"{stack}.{layer}.{kind}": shape
        for stack, count in stacks.items()
        for layer in range(count)
        for (of, kind), shape in kinds.items()
        if of == stack
    }
    return full | dict(shapes)


def short_targets(targets: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return `target_modules` for some modules: last names where these fit no other module, else whole names.

    Args:
        targets: modules with an adapter.
        others: all further modules of the base model that a name could fit.
    """
    last: dict[str, list[str]] = {}
    for name in targets:
        last.setdefault(name.rpartition(".")[2], []).append(name)
    taken = {name.rpartition(".")[2] for name in others}
    return [short for name, whole in last.items() for short in (whole if name in taken else [name])]


def peft_tensors(adapter: UniformAdapter, prefix: str) -> dict[str, NDArray[np.float32]]:
    """Return the tensors as PEFT names them."""
    return {
        f"{prefix}{module}.lora_{letter}.weight": factor
        for module, factors in adapter.factors.items()
        for letter, factor in zip("AB", factors, strict=True)
    }
