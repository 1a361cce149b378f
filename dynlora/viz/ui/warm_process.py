"""A process that has imported torch, kept for a page that may soon need one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynlora.jobs import warm
from dynlora.viz.ui.run_picker import is_read_only

TOLD = ("model", "data", "seed")
"""Parts of a configuration that its tokens depend on."""


def keep(likely: Mapping[str, Any] | None = None) -> None:
    """Have a process ready that has imported torch, where this dashboard may start one.

    Args:
        likely: the configuration that may be asked for next: tokens of its data are made ahead.
    """
    if not is_read_only():
        warm.KEEPER.keep(None if likely is None else {name: likely[name] for name in TOLD if name in likely})
