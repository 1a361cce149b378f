"""The adapter that a run starts from, read and held against the base model and the data before a folder is made."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynlora import assets
from dynlora.engine.given_start import GivenModule, GivenStart
from dynlora.errors import AdapterError, ConfigError, DynloraError
from dynlora.jobs.start_files import LABELS_NAME
from dynlora.peft_adapter.read import Weights, read_weights
from dynlora.safe_files import read_plain
from dynlora.text import clean_text, printable

MAX_BYTES = 4 * 2**20


def read_start(source: str, folder: Path | None = None) -> GivenStart:
    """Return the adapter of a PEFT folder.

    Args:
        source: as the setting names it.
        folder: where it is read, if not there.

    Raises:
        ConfigError: when there is no such adapter.
    """
    setting = f"strategy.start_from={source}"
    weights = _weights(setting, folder or Path(os.path.expanduser(source)))
    modules = {name: GivenModule(_tensor(A), _tensor(B), s) for name, (A, B, s) in weights.updates.items()}
    return GivenStart(setting, modules, {name: _tensor(values) for name, values in weights.rest.items()})


def check_start(source: str, folder: Path | None, model: str, labels: list[str]) -> None:
    """Refuse an adapter of another base model, or with a head for other classes.

    Args:
        source: as the setting names it.
        folder: where it is read, if not there.
        model: `model.name` of the run.
        labels: names of the classes of the run's data, in order; empty where there are none.

    Raises:
        ConfigError: one sentence that says what does not fit.
    """
    setting, adapter_folder = f"strategy.start_from={source}", folder or Path(os.path.expanduser(source))
    base = _weights(setting, adapter_folder).base_model
    if base and not _same_model(base, model):
        raise ConfigError(
            f"{setting}: was trained on {printable(base, 200)}, and model.name is {model}; set model.name to that model"
        )
    known = _labels(adapter_folder)
    if known and labels and known != labels:
        raise ConfigError(
            f"{setting}: its classes are {printable(', '.join(known), 200)}, and those of the data "
            f"{printable(', '.join(labels), 200)}; give data with the same labels"
        )


def _weights(setting: str, place: Path) -> Weights:
    try:
        return read_weights(place)
    except AdapterError as error:
        raise ConfigError(f"{setting}: {error}") from None


def _same_model(base: str, model: str) -> bool:
    """Say whether two names mean one model: equal as others know it, the same folder, or copies of one folder."""
    shared = assets.shared_model_name(model)
    if base in (shared, model):
        return True
    if os.path.isabs(base) and os.path.isabs(shared) and Path(base).name == Path(shared).name:
        return True  # a folder that was moved, or is that of another machine
    try:
        return os.path.realpath(base) == os.path.realpath(assets.resolve_model(model))
    except DynloraError:
        return False


def _labels(path: Path) -> list[str]:
    """Return the classes that a folder names, in order; none where it does not say."""
    try:
        found: Any = json.loads(read_plain(path / LABELS_NAME, MAX_BYTES) or "{}")
        names = {int(position): clean_text(str(name)) for position, name in found["id2label"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
    found = [names[position] for position in sorted(names)]
    return (
        [] if all(re.fullmatch(r"LABEL_\d+", name) for name in found) else found
    )  # transformers' own names say nothing


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))  # a copy: the file is only to be read
