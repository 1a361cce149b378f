"""Paths: every module of a super-net takes one from now on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.strategies.glora.layer import GloraLinear


@dataclass(frozen=True)
class SettlePaths(Change):
    """Let each module take a path; `history` tells how the search came to them, round by round."""

    paths: tuple[str, ...]
    history: tuple[Mapping[str, Any], ...] = field(default=(), compare=False, repr=False)

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Settle them; what a path leaves out stays as it was trained."""
        for module, path in zip(adapters, self.paths, strict=True):
            if not isinstance(module, GloraLinear):
                raise TypeError(f"{module.info.name}: a {type(module).__name__} has no paths to choose from")
            module.settle(path)

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        return {"edit": "paths", "paths": list(self.paths), "history": [dict(entry) for entry in self.history]}
