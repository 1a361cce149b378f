"""A process that is dynlora's own: what it prints is dynlora's, and how Python treats what torch brings along.

Bars of the `datasets` library about each table that is read are no part of what a command says. Whoever wants them sets
its variable to 0.

Half a million objects of torch and transformers stay until the end. To look through them again and again while texts
are tokenised, and once more at the end, takes long and frees nothing. In a process of somebody else's, such as a
notebook or a test, nothing is changed.
"""

from __future__ import annotations

import atexit
import gc
import os

WHILE_IMPORTING = (100_000, 50, 100)
"""Thresholds of the collector until the imports are done: they make objects that stay."""

NO_BARS = "HF_DATASETS_DISABLE_PROGRESS_BARS"
"""The variable that `datasets` looks at when it is imported."""

_state = {"is_own": False}
_usual: tuple[int, int, int] = gc.get_threshold()


def begin() -> None:
    """Say that this process is dynlora's own, before it imports anything large."""
    _state["is_own"] = True
    os.environ.setdefault(NO_BARS, "1")
    gc.set_threshold(*WHILE_IMPORTING)
    atexit.register(gc.freeze)  # registered first, so called last: what is left then goes with the process


def imported() -> None:
    """Leave what is there alone from here on, and collect as usual what is made after it: imports are done."""
    if _state["is_own"]:
        gc.freeze()
        gc.set_threshold(*_usual)
