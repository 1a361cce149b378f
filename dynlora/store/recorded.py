"""What a run that another program trained leaves: who recorded it, and its adapter, as PEFT wrote it."""

from __future__ import annotations

from pathlib import Path

ADAPTER_DIR = "peft_adapter"
"""Folder of a run that was trained elsewhere and only recorded; PEFT's files lie in it."""

CALLBACK = "transformers"
"""What `recorded_by` says of a run that `RecordCallback` recorded."""


def recorded_adapter(folder: Path) -> Path | None:
    """Return the folder of a recorded run's adapter, None where there is none."""
    found = folder / ADAPTER_DIR
    is_there = (found / "adapter_config.json").is_file() and not found.is_symlink()
    return found if is_there else None
