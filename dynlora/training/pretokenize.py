"""What can be done for a run or a check before it is asked for: texts become tokens while a process waits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dynlora.assets import DATASETS, MODELS, resolve_model
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import with_absolute_paths
from dynlora.engine.data import kept_tokens
from dynlora.engine.model.base_model import load_tokenizer
from dynlora.training.inputs import read_data

MAX_BYTES = 64 * 2**20
"""Size of a file, or of the files of a folder, up to which its texts become tokens before they are asked for."""


def make_tokens(values: Mapping[str, Any], *, is_wanted: Callable[[], bool]) -> None:
    """Make tokens of the data that a configuration names, where nothing has to be fetched for that.

    Args:
        values: of the configuration; those of model and data, and the seed, matter.
        is_wanted: asked between the parts of the work whether to go on.

    Raises:
        DynloraError: where the configuration, its model or its data cannot be used.
    """
    config = with_absolute_paths(parse_config(values))
    kept_tokens.forget()  # those of data that nobody looks at any more
    if not _is_at_hand(config):
        return
    data = read_data(config)
    tokenizer = load_tokenizer(resolve_model(config.model.name))
    for side in ("train", "held_out"):
        if is_wanted():
            kept_tokens.make(tokenizer, data, side, config.data.max_length)


def _is_at_hand(config: RunConfig) -> bool:
    """Say whether model and data lie on this machine and the data is small: nobody has asked for anything yet."""
    model, name = config.model.name, config.data.name or ""
    is_embedded = model in MODELS and MODELS[model].folder.is_dir()
    if not is_embedded and not (Path(os.path.expanduser(model)) / "config.json").is_file():
        return False
    if config.data.path is None:
        return name in DATASETS and DATASETS[name].folder.is_dir()
    path = Path(os.path.expanduser(config.data.path))
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) <= MAX_BYTES
