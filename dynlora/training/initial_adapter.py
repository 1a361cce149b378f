"""The adapter that a run starts from, read and held against the base model and the data before a folder is made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from dynlora import assets
from dynlora.engine.given_start import GivenModule, GivenStart
from dynlora.engine.loop.adapter_state import MOST_RANK
from dynlora.errors import AdapterError, ConfigError, CorruptRunError, DynloraError
from dynlora.jobs.quick_launch import LABELS_NAME
from dynlora.peft_adapter.adapter_config import CONFIG_NAME
from dynlora.peft_adapter.read import Weights, read_adapter, read_weights
from dynlora.safe_files import read_plain
from dynlora.store import jsontext, queries
from dynlora.store.schema import DB_NAME
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


def _weights(setting: str, folder: Path) -> Weights:
    try:
        return read_weights(folder)
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
        content: Any = json.loads(read_plain(path / LABELS_NAME, MAX_BYTES) or "{}")
        names = {int(position): clean_text(str(name)) for position, name in content["id2label"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
    labels = [names[position] for position in sorted(names)]
    is_made_up = all(re.fullmatch(r"LABEL_\d+", name) for name in labels)  # transformers' own names say nothing
    return [] if is_made_up else labels


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))  # a copy: the file is only to be read


MAX_RANKS_BYTES = 16_000_000


def read_ranks(source: str) -> dict[str, int]:
    """Return ranks by module name.

    Args:
        source: a run's folder (the last ranks it recorded), a folder of PEFT's, or a JSON file: an object of ranks by
            module, what `dynlora compress --json` or `dynlora advise --json` prints, or an `adapter_config.json` with a
            rank for every module.

    Raises:
        ConfigError: when there is no such thing, or it says no ranks.
    """
    path = Path(os.path.expanduser(source))
    try:
        if (path / DB_NAME).is_file():
            return _of_run(source, path)
        if (path / CONFIG_NAME).is_file():
            return {module.name: module.rank for module in read_adapter(path).modules}
    except (AdapterError, CorruptRunError) as error:
        raise ConfigError(f"strategy.ranks_from={source}: {error}") from None
    return _of_file(source, path)


def _of_run(source: str, folder: Path) -> dict[str, int]:
    """Return the last ranks of a run."""
    summary = queries.run_summary(folder)
    if summary.ranks_are_sums:
        raise ConfigError(
            f"strategy.ranks_from={source}: an imported run whose ranks are sums over layers or families of modules; "
            "give a run that recorded each module"
        )
    return summary.ranks


def _of_file(source: str, path: Path) -> dict[str, int]:
    """Return the ranks of a JSON file."""
    text = read_plain(os.fspath(path), MAX_RANKS_BYTES)
    if text is None:
        raise ConfigError(
            f"strategy.ranks_from={source}: no run, PEFT folder or JSON file of ranks; `dynlora runs` lists the runs"
        )
    try:
        content: Any = jsontext.load_object(text)
    except CorruptRunError:
        content = {"": None}  # no rank
    chosen = content.get("chosen")
    ranks: Any = (
        chosen.get("ranks") if isinstance(chosen, dict) else content.get("ranks", content.get("rank_pattern", content))
    )
    if not isinstance(ranks, dict) or not all(_is_rank(rank) for rank in cast(Mapping[str, Any], ranks).values()):
        raise ConfigError(
            f"strategy.ranks_from={source}: is not a JSON object of ranks by module, each 0 to {MOST_RANK}; write "
            '{"module": rank}'
        )
    return {name.removeprefix("^").replace("\\.", "."): rank for name, rank in cast(dict[str, int], ranks).items()}


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_RANK
