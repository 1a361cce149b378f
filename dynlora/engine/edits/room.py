"""Room for components: tensors and their moments grow and shrink where memory is held for live ones alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.moments import state_of
from dynlora.engine.model.lora_linear import LoraLinear, resized


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
