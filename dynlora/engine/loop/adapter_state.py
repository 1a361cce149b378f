"""The adapters' state as plain values, and back: what checkpoints and adapter folders share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynlora import tasks
from dynlora.engine.loop.checkpoint import copy_into
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.errors import CorruptRunError

MOST_RANK = 1024
"""Widest rank of uniform LoRA that a config can ask for."""

_NO_MODULE = "the saved adapter has no module {}; it belongs to another model"


def adapter_state(adapters: Adapters) -> dict[str, Any]:
    """Return ranks, weights, scales, gates and per-component state."""
    modules = {}
    owners: dict[int, str] = {}
    for module in adapters:
        live = module.rank  # the rest is zero
        owner_of = {name: owners.setdefault(id(tensor), module.info.name) for name, tensor in _sharable(module).items()}
        owner_of = {name: owner for name, owner in owner_of.items() if owner != module.info.name}
        modules[module.info.name] = {
            "rank": module.rank,
            "max_rank": module.max_rank,
            "probes": 0,  # rows past the rank that earlier versions could hold, and still look for
            "scaling": module.scaling,
            "lora_A": None if "lora_A" in owner_of else module.lora_A[:live],
            "lora_B": None if "lora_B" in owner_of else module.lora_B[:, :live],
            "tied": owner_of,
            "scale": None if module.scale is None else module.scale[:live],
            "own": module.own_tensors(),
        }
    gates = None if adapters.gates is None else dict(adapters.gates.state_dict())
    return {"modules": modules, "gates": gates, "components": dict(adapters.components)}


def load_adapter_state(adapters: Adapters, state: Mapping[str, Any]) -> None:
    """Set the adapters to a saved state; parameters keep their identity.

    Raises:
        CorruptRunError: when the modules or shapes are others, or something is missing.
    """
    for module in adapters:
        saved = state["modules"].get(module.info.name)
        if saved is None:
            raise CorruptRunError(_NO_MODULE.format(module.info.name))
        with _reading(module.info.name):
            _tie(adapters, module, saved.get("tied", {}))
            _load_module(module, saved)
    if (adapters.gates is None) != (state["gates"] is None):
        raise CorruptRunError(
            "the saved adapter and the run have different gates; the adapter belongs to another config"
        )
    with _reading("gates and components"):
        if adapters.gates is not None:
            every = {"has_gate": torch.ones_like(adapters.gates.has_gate)}  # earlier versions gave all modules a gate
            for name, tensor in adapters.gates.state_dict().items():
                copy_into(tensor, {**every, **state["gates"]}[name])
            adapters.attach_gates(adapters.gates)
        for name, tensor in state["components"].items():
            copy_into(adapters.track(name), tensor)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Say in a sentence what a part of a saved state lacks; a run's folder may be damaged or untrusted."""
    try:
        yield
    except CorruptRunError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error)[:150]}"
        raise CorruptRunError(f"the saved adapter cannot be read at {what} ({reason})") from None


NEEDED = ("adapters", "head", "labels", "task")
"""What a saved state holds at least; those of earlier versions hold no more."""


def checked_state(state: Any, *needed: str) -> dict[str, Any]:
    """Return a saved state of a run after a look at what every reader of it takes for granted.

    Args:
        state: as it was read.
        needed: keys that must be there, beside `NEEDED`.

    Raises:
        CorruptRunError: when something is missing or of another kind.
    """
    checked: dict[str, Any] = state if isinstance(state, dict) else {}
    for key in (*NEEDED, *needed):
        if key not in checked:
            raise CorruptRunError(f"the saved state is damaged: its {key} is missing")
    for key, fits in _PARTS.items():
        if key in checked and not fits(checked[key]):
            raise CorruptRunError(f"the saved state is damaged: its {key} has the wrong type")
    return checked


def _is_adapters(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key in value and (isinstance(value[key], dict) or (key == "gates" and value[key] is None))
        for key in ("modules", "gates", "components")
    )


_PARTS = {
    "step": lambda value: _is_count(value),
    "adapters": _is_adapters,
    "head": lambda value: isinstance(value, dict) and all(isinstance(item, Tensor) for item in value.values()),
    "labels": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "task": lambda value: isinstance(value, str) and value in tasks.registry(),
    "task_settings": lambda value: isinstance(value, dict) and all(isinstance(item, str) for item in value.values()),
    "metrics": lambda value: isinstance(value, dict) and all(_is_number(item) for item in value.values()),
}
"""Parts of a saved state, and whether a value can be one."""


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53


def _sharable(module: LoraLinear) -> dict[str, Tensor]:
    """Return the tensors that several modules may share, by name."""
    return {"lora_A": module.lora_A, "lora_B": module.lora_B}


def _tie(adapters: Adapters, module: LoraLinear, owner_of: Mapping[str, str]) -> None:
    """Let a module share the tensors that the saved one shared, with modules that come before it."""
    owners = {other.info.name: other for other in adapters}
    for name, owner in owner_of.items():
        if owner not in owners or name not in _sharable(module):
            raise CorruptRunError(f"{module.info.name}: shares {name} with {owner}, which does not exist")
        setattr(module, name, getattr(owners[owner], name))


class _Sizes(dict[str, tuple[int, int]]):
    """(rank, max_rank) by module name; a module that was not saved is an error of ours."""

    def __missing__(self, name: str) -> tuple[int, int]:
        """Say which module is missing."""
        raise CorruptRunError(_NO_MODULE.format(name))


def saved_sizes(state: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (rank, max_rank) by module name of a saved state.

    Memory is held for `max_rank` components: it is believed up to the widest rank a config can ask for, or the features
    of the module where these are more.

    Raises:
        CorruptRunError: when a size is missing or cannot be.
    """
    features = {name: _features(saved) for name, saved in state["modules"].items()}
    widest = max((MOST_RANK, *features.values()))
    sizes = _Sizes()
    for name, saved in state["modules"].items():
        with _reading(name):
            rank, room, most = saved["rank"], saved["max_rank"], features[name] or widest
            if not _is_count(rank) or not _is_count(room) or not rank <= room <= max(MOST_RANK, most):
                raise CorruptRunError(f"{name}: the saved adapter has the invalid rank {rank!s:.20} of {room!s:.20}")
            sizes[name] = (rank, room)
    return sizes


def _features(saved: Any) -> int:
    """Return the lesser of a saved module's features in and out; 0 where its tensors do not tell."""
    A, B = (saved.get(name) if isinstance(saved, dict) else None for name in ("lora_A", "lora_B"))
    if not isinstance(A, Tensor) or not isinstance(B, Tensor) or A.dim() != 2 or B.dim() != 2:
        return 0
    return min(A.shape[1], B.shape[0]) if A.numel() and B.numel() else 0


def _live(module: LoraLinear, saved: Mapping[str, Any]) -> int:
    """Return the rank of a saved module, after a look at its numbers."""
    scaling = saved["scaling"]
    if not _is_count(saved["probes"]) or scaling is None or not _is_number(scaling) or not math.isfinite(scaling):
        raise CorruptRunError(f"{module.info.name}: the saved adapter has invalid probes or an invalid scaling")
    live = saved["rank"]
    if not 0 <= live <= module.max_rank:
        raise CorruptRunError(
            f"{module.info.name}: the saved adapter has rank {live}, more than the maximum {module.max_rank}"
        )
    return live


@torch.no_grad()
def _load_module(module: LoraLinear, saved: Mapping[str, Any]) -> None:
    """Set one module to its saved state."""
    live, probes = _live(module, saved), saved["probes"]
    if module.holds_live:
        module.hold(live)
    if saved["lora_A"] is not None:
        module.lora_A.zero_()
        copy_into(module.lora_A[:live], _without_last(saved["lora_A"], 0, probes))
    if saved["lora_B"] is not None:
        module.lora_B.zero_()
        copy_into(module.lora_B[:, :live], _without_last(saved["lora_B"], 1, probes))
    if saved["scale"] is not None:
        if module.scale is None:
            module.use_scale(1.0, trainable=False)
        if module.scale is not None:
            copy_into(module.scale[:live], _without_last(saved["scale"], 0, probes))
    for name, tensor in module.own_tensors().items():
        copy_into(tensor, saved["own"][name])
    module.rank, module.scaling = live, saved["scaling"]
    module.loaded()


def _without_last(tensor: Tensor, dim: int, count: int) -> Tensor:
    """Return a saved tensor without its last `count` rows: earlier versions could hold a row past the rank, b = 0."""
    return tensor.narrow(dim, 0, tensor.shape[dim] - count) if count else tensor


def load_head_state(head: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Set the head's tensors.

    Raises:
        CorruptRunError: when the names or shapes are others.
    """
    if set(head) != set(state):
        raise CorruptRunError(
            "the saved head has other tensors than the head of the model; it belongs to another model"
        )
    for name, tensor in head.items():
        copy_into(tensor, state[name])
