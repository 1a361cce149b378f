"""What a fault of data is, and one that a repair leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynlora.data_files.examples import Examples


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        kind: its name.
        title: two or three words.
        rows: positions of its rows; empty for a fault of the whole table.
        sentence: file, lines, rule and remedy.
        repair: what removes it, as a configuration holds it; None where only a person can.
        action: the repair in words, for a button.
        refuses: training refuses the data because of it.
    """

    kind: str
    title: str
    rows: np.ndarray
    sentence: str
    repair: Any = None
    action: str = ""
    refuses: bool = field(default=False)


@dataclass(frozen=True)
class Drop:
    """A fault of single rows that a repair of `finders.DROPPED_BY` leaves out.

    Attributes:
        kind, title: as of the fault.
        repair: its name.
        problem: what is wrong, `{text}` and `{label}` for the columns.
        remedy: what to do by hand.
        refuses: training refuses such rows.
        of_classes: looked for only where labels are classes.
        finds: the rows that are shown, where they are not all that the repair leaves out.
    """

    kind: str
    title: str
    repair: str
    problem: str
    remedy: str
    refuses: bool = False
    of_classes: bool = False
    finds: Callable[[Examples], np.ndarray] | None = None
