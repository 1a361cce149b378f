"""Edits: what a strategy may do to the adapters, as values; `apply` performs them and repairs the optimizer.

This is the only place that changes an adapter's structure or the optimizer's state. A strategy returns edits and so
can be tested without a trainer, the decision log is free, and logging cannot change a result.
"""

from dynlora.engine.edits.apply import apply
from dynlora.engine.edits.components import new_row, orthogonal_draw
from dynlora.engine.edits.values import (
    Change,
    Drop,
    Edit,
    Grow,
    Move,
    SetScale,
    describe,
    is_logged,
)

__all__ = [
    "Change",
    "Drop",
    "Edit",
    "Grow",
    "Move",
    "SetScale",
    "apply",
    "describe",
    "is_logged",
    "new_row",
    "orthogonal_draw",
]
