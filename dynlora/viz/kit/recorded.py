"""What a run recorded, and on what machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.store.reader import RunReader


def recorded_over(folder: Path, axis: str) -> dict[str, str]:
    """Return the signals that hold anything and run over modules, components or another axis: name to unit.

    Raises:
        DynloraError: when the run cannot be read.
    """
    with RunReader(folder) as reader:
        rows = reader.signals()
        return {name: rows[name].unit for name in reader.recorded() if rows[name].axis == axis}


def machine(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions and the machine that a run was made with, in words."""
    return {str(key).replace("_", " "): str(value) for key, value in (summary.get("machine") or {}).items()}
