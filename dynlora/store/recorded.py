"""What a run that another program trained leaves: who recorded it, and its adapter, as PEFT wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from dynlora.errors import ConfigError
from dynlora.store.record import Record
from dynlora.store.schema import check_run_id
from dynlora.store.summary import recorded_by

ADAPTER_DIR = "peft_adapter"
"""Folder of a run that was trained elsewhere and only recorded; PEFT's files are in it."""

CALLBACK = "transformers"
"""What `recorded_by` says of a run that `RecordCallback` recorded."""


class TrainerRun(Record):
    """File of a Trainer's checkpoint that names the run it belongs to, by its id."""

    run: Annotated[str, AfterValidator(check_run_id)]


def recorded_adapter(folder: Path) -> Path | None:
    """Return the folder of a recorded run's adapter, None where there is none."""
    found = folder / ADAPTER_DIR
    is_there = (found / "adapter_config.json").is_file() and not found.is_symlink()
    return found if is_there else None


def check_looks_for_stops(folder: Path) -> None:
    """Refuse to ask the process of a run to stop that only records: its loop is another's and looks for no request.

    Raises:
        ConfigError: when the run is one of those.
        CorruptRunError: when it cannot be read.
    """
    if by := recorded_by(folder):
        raise ConfigError(f"run {folder.name}: is trained by a script with {by:.40}, so stop it there")
