"""The adapter that a run starts from, copied into the run's folder: its own may be deleted once the run exists."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from dynlora.config import RunConfig
from dynlora.config_files import START_FROM
from dynlora.errors import AdapterError, ConfigError, storing
from dynlora.peft_adapter.adapter_config import CONFIG_NAME, TENSORS_NAME, open_adapter_file, read_settings
from dynlora.peft_adapter.read import check_folder
from dynlora.safe_files import sync
from dynlora.store.summary import ORIGIN_NAME, origin_meta, read_origin

START_DIR = "start"
"""Folder of a run that holds the adapter it started from."""

LABELS_NAME = "config.json"
"""File beside an adapter that names the classes of its head."""

_NEEDED, _OPTIONAL = (CONFIG_NAME, TENSORS_NAME), (LABELS_NAME, ORIGIN_NAME)


def start_of(config: RunConfig) -> Path | None:
    """Return the folder of the adapter that a run starts from; None where it starts new."""
    source = config.strategy.fields.get(START_FROM)
    return Path(os.path.expanduser(source)) if isinstance(source, str) and source else None


def start_meta(config: RunConfig) -> dict[str, Any]:
    """Return what a run keeps of where its adapter comes from: nothing where it starts new."""
    start = start_of(config)
    return {} if start is None else {"origin": origin_meta(read_origin(start))}


def check_start_files(config: RunConfig) -> None:
    """Refuse a folder that holds no adapter at once: what it holds is looked at when the run is checked whole.

    Raises:
        ConfigError: one sentence that says what is wrong with it.
    """
    start = start_of(config)
    if start is None:
        return
    try:
        check_folder(start)
        read_settings(start)
    except AdapterError as error:
        raise ConfigError(f"strategy.{START_FROM}={start}: {error}") from None


def keep_start(config: RunConfig, folder: Path) -> None:
    """Copy the adapter that a run starts from into the run's folder: safetensors and JSON alone.

    Raises:
        ConfigError: when a file is missing, a link, or no plain file.
        StorageError: when there is no room for it.
    """
    start = start_of(config)
    if start is None:
        return
    try:
        with storing(f"the copy of the adapter at {start}"):
            (folder / START_DIR).mkdir()
            for name in (*_NEEDED, *(name for name in _OPTIONAL if _is_plain(start / name))):
                _copy(start / name, folder / START_DIR / name)
            sync(folder / START_DIR)
    except AdapterError as error:
        raise ConfigError(f"strategy.{START_FROM}={start}: {error}") from None


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _copy(source: Path, target: Path) -> None:
    """Copy one plain file, and bring it to the disk."""
    file, _ = open_adapter_file(source)
    with file, target.open("xb") as copied:
        shutil.copyfileobj(file, copied, 2**20)
        copied.flush()
        os.fsync(copied.fileno())


def kept_start(folder: Path) -> Path | None:
    """Return where the adapter that a run started from is kept; None where it started new, or nothing was kept."""
    place = folder / START_DIR
    with suppress(OSError):
        if not place.is_symlink() and (place / TENSORS_NAME).is_file():
            return place
    return None
