"""Edits as values: what a strategy may ask for, and how the decision log tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.model.adapters import Adapters


@dataclass(frozen=True)
class Drop:
    """Take component `component` (its current position) off module `module`; `score` is its importance.

    Examples:
        >>> from dynlora.engine.edits import Drop
        >>> Drop(module=3, component=0, score=0.01)
        Drop(module=3, component=0, score=0.01)
    """

    module: int
    component: int
    score: float = float("nan")


@dataclass(frozen=True)
class Grow:
    """Give module `module` one component: b = 0, so the function stays; `score` is its predicted gain.

    Attributes:
        module: index of the module.
        score: predicted gain of the component.
        direction: where its row of A points, (d_in,); None draws one that is orthogonal to its siblings.
        length: norm of that row; None is its siblings' mean.
        column: its column of B, (d_out,), where that is not zero; the function then moves by scale · column.
        scale: its scale e, where components have one; None is its siblings' mean size.
    """

    module: int
    score: float = float("nan")
    direction: Tensor | None = field(default=None, compare=False, repr=False)
    length: float | None = None
    column: Tensor | None = field(default=None, compare=False, repr=False)
    scale: float | None = None


@dataclass(frozen=True)
class Move:
    """Take components off `donors` to give one to `receiver`; several cheap ones may pay for a large one.

    Examples:
        >>> from dynlora.engine.edits import Drop, Grow, Move
        >>> move = Move((Drop(module=3, component=0),), Grow(module=5, score=0.2))  # from module 3 to module 5
        >>> move.receiver.module
        5
    """

    donors: tuple[Drop, ...]
    receiver: Grow


@dataclass(frozen=True)
class SetScale:
    """Set the scale e of a module's active components: one value for all of them, or one each, by position."""

    module: int
    values: tuple[float, ...]


class Change:
    """An edit that knows how to perform itself, after components went and came; the base of all further kinds."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Change the adapters and repair the optimizer's moments."""
        raise NotImplementedError

    def described(self) -> dict[str, Any] | None:
        """Return a row for the decision log, its key `edit` naming the kind; None for what happens at every step."""
        return None


Edit = Drop | Grow | Move | SetScale | Change


def is_logged(edit: Edit) -> bool:
    """Say whether the decision log keeps the edit: what moves capacity does, what only looks on does not."""
    if isinstance(edit, Change):
        return edit.described() is not None
    return isinstance(edit, Drop | Grow | Move | SetScale)


def describe(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """Return the logged edits as plain values: one row per donor component of a move, ready for the run store."""
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
        elif isinstance(edit, Change) and (row := edit.described()) is not None:
            rows.append(row)
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
