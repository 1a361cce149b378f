"""What a run is made of, loaded and checked before anything is trained or written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynlora import assets, strategies
from dynlora.assets import DATASETS, MODELS, resolve_model
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import with_absolute_paths
from dynlora.engine.data import packing
from dynlora.engine.data.batches import LOOK, Tokens, calibration_batches, tokenize
from dynlora.engine.data.packing import check_packing, pack
from dynlora.engine.data.text_data import TextData, load_data
from dynlora.engine.loop.hardware import resolve_precision
from dynlora.engine.model.base_model import BaseModel, Weights, load_base, load_tokenizer
from dynlora.engine.model.modules import find_modules
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError
from dynlora.jobs import environment
from dynlora.jobs.environment import process_number
from dynlora.tasks import Task, WritingTask
from dynlora.training.initial_adapter import read_ranks, read_start


@dataclass(frozen=True)
class Inputs:
    """What a run is made of, checked, before anything is trained or written.

    Attributes:
        config: the settings.
        strategy: the method with its fields.
        data: labelled text.
        base: model, tokenizer and head, unadapted.
        total: optimizer steps.
        start: where the adapter that the run starts from is kept, if not where the settings say.
        began_in: bf16 or fp32, which a run that is resumed began in.
    """

    config: RunConfig
    strategy: Strategy
    data: TextData
    base: BaseModel
    total: int
    start: Path | None = None
    began_in: str | None = None
    _tokens: dict[str, Tokens] = field(default_factory=dict[str, Tokens], repr=False, compare=False)

    def precision(self, device: torch.device) -> str:
        """Return the precision that a device computes in, bf16 or fp32."""
        return precision_of(self.config, device, self.began_in)

    def encoded(self, side: str) -> Tokens:
        """Return the rows of a side, train or held_out, as tokens; they are made once."""
        if side not in self._tokens:
            length = self.config.data.max_length
            self._tokens[side] = packing.encoded(self.base.tokenizer, self.data, side, length)
        return self._tokens[side]

    def sequences(self, tokens: Tokens) -> Tokens:
        """Return what a forward pass takes a number of: rows, or several of them packed into one sequence."""
        if not self.config.data.packing:
            return tokens
        return pack(tokens, min(self.config.data.max_length, self.base.tokenizer.model_max_length))


def load_inputs(
    config: RunConfig, start: Path | None = None, began_in: str | None = None, like: Inputs | None = None
) -> Inputs:
    """Load and check everything a config names.

    Args:
        config: the settings.
        start: where the adapter that the run starts from is kept, if not where the settings say.
        began_in: bf16 or fp32, which a run that is resumed began in.
        like: of another run of the same sweep, whose model and data are taken where the settings name the same. The
            head is that of the other seed then, so these inputs are for a check alone.

    Raises:
        ConfigError, AssetError, DataError: one sentence that names what is wrong and what to change.
    """
    environment.imported()
    config = with_absolute_paths(config)
    strategy = strategies.build(config.strategy.name, config.strategy.fields)
    if (source := strategy.ranks_source()) is not None:
        strategy.attach_ranks(partial(read_ranks, source))
    if (source := strategy.start_source()) is not None:
        strategy.attach_start(partial(read_start, source, start))
    if config.train.epochs is None:
        strategy.check(config.train.max_steps(0), config.adapter.rank)
    shared = like if like is not None and _same_sources(config, like.config) else None
    data = shared.data if shared and shared.config.seed == config.seed else read_data(config)
    total = config.train.max_steps(len(data.train))
    strategy.check(total, config.adapter.rank)
    _check_batch(config)
    base = _base(config, data.task, began_in) if shared is None else replace(shared.base, task=data.task)
    if shared is None or data is not shared.data:
        data, base = _prepared(config, data, base)
    if isinstance(data.task, WritingTask):
        data.task.check_tokenizer(base.tokenizer, data.train)
    if config.data.packing:
        _check_packing(data.task, base)
    inputs = Inputs(config, strategy, data, base, total, start, began_in)
    if config.train.epochs is None or not isinstance(data.task, WritingTask):
        return inputs
    total = config.train.max_steps(len(inputs.sequences(usable(inputs.encoded("train")))))
    strategy.check(total, config.adapter.rank)
    return replace(inputs, total=total)


def _same_sources(config: RunConfig, other: RunConfig) -> bool:
    """Say whether two configs name the same data and load the same model."""
    first, second = ((one.model, one.data, one.train.precision) for one in (config, other))
    return first == second


def _base(config: RunConfig, task: Task, began_in: str | None) -> BaseModel:
    """Return the model that a config names, with the head of its task."""
    return load_base(
        assets.resolve_model(config.model.name),
        task=task,
        seed=config.seed,
        dropout=config.model.dropout,
        weights=weights_of(config, began_in),
        layers=config.model.layers,
    )


def _prepared(config: RunConfig, data: TextData, base: BaseModel) -> tuple[TextData, BaseModel]:
    """Return data and model with the task as it is once the model is known."""

    def modules() -> list[str]:
        """Return the names of the modules that can be adapted."""
        return [module.name for module in find_modules(base.model, None, base.head)]

    def batches(n: int) -> list[Any]:
        """Return n batches of training texts."""
        rows = data.train_sample(n * LOOK, config.seed)
        return calibration_batches(tokenize(base.tokenizer, rows, config.data.max_length, data.task), n, config.seed)

    task = data.task.prepared(base.model, modules, batches)
    return (data, base) if task is data.task else (replace(data, task=task), replace(base, task=task))


def _check_packing(task: Task, base: BaseModel) -> None:
    """Refuse packing where rows are no texts to be written, or the model would mix them up.

    Raises:
        ConfigError: one sentence that says why.
    """
    if not isinstance(task, WritingTask):
        raise ConfigError(
            f"data.packing=true: packs the texts of language models, and in data.task={task.name} each text has a "
            "label of its own; set it to false"
        )
    check_packing(base.model)


def precision_of(config: RunConfig, device: torch.device, began_in: str | None = None) -> str:
    """Return what a config's steps compute in: where the choice is ours, what a resumed run began in."""
    if began_in is not None and config.train.precision == "auto":
        return began_in
    return resolve_precision(config.train.precision, device, config.model.dtype)


def weights_of(config: RunConfig, began_in: str | None = None) -> Weights:
    """Return how a config's frozen weights are kept."""
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    compute = precision_of(config, device, began_in)
    return Weights(DTYPES[config.model.dtype], config.model.quantization, DTYPES[compute])


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def read_data(config: RunConfig) -> TextData:
    """Return the rows a config names, both sides.

    Raises:
        AssetError, DataError: one sentence that names what is wrong and what to change.
    """
    embedded = None if config.data.path else assets.DATASETS.get(config.data.name or "")
    names = embedded.label_names if embedded is not None and config.data.label == "label" else ()
    return load_data(config.data, data_folder(config), config.seed, names)


def data_folder(config: RunConfig) -> Path:
    """Return the folder or file the rows are in."""
    return (
        Path(os.path.expanduser(config.data.path)) if config.data.path else assets.resolve_data(config.data.name or "")
    )


def usable_rows(tokens: Tokens) -> np.ndarray:
    """Return the rows that have a label which counts: a completion may have been cut off."""
    return np.arange(len(tokens)) if tokens.targets is None else np.flatnonzero(tokens.label > 0)


def usable(tokens: Tokens) -> Tokens:
    """Return the rows that there is something to learn from, or to judge by."""
    return tokens if tokens.targets is None else tokens.take(usable_rows(tokens))


def _check_batch(config: RunConfig) -> None:
    """Refuse a batch that does not divide over the processes."""
    processes = max(1, process_number("WORLD_SIZE", 1))
    if config.train.batch_size % processes:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size}: must be a multiple of the {processes} processes; raise it"
        )


MAX_BYTES = 64 * 2**20
"""Size of a file, or of the files of a folder, up to which its texts become tokens before they are asked for."""


def make_tokens(values: Mapping[str, Any], *, is_wanted: Callable[[], bool]) -> None:
    """Make tokens of the data that a configuration names, where nothing has to be fetched for that.

    Args:
        values: of the configuration; those of model and data, and the seed, matter.
        is_wanted: asked between the parts of the work whether to continue.

    Raises:
        DynloraError: where the configuration, its model or its data cannot be used.
    """
    config = with_absolute_paths(parse_config(values))
    packing.forget()  # those of data that nobody looks at any more
    if not _is_at_hand(config):
        return
    data = read_data(config)
    tokenizer = load_tokenizer(resolve_model(config.model.name))
    for side in ("train", "held_out"):
        if is_wanted():
            packing.make(tokenizer, data, side, config.data.max_length)


def _is_at_hand(config: RunConfig) -> bool:
    """Say whether model and data are on this machine and the data is small: nobody has asked for anything yet."""
    model, name = config.model.name, config.data.name or ""
    is_embedded = model in MODELS and MODELS[model].folder.is_dir()
    if not is_embedded and not (Path(os.path.expanduser(model)) / "config.json").is_file():
        return False
    if config.data.path is None:
        return name in DATASETS and DATASETS[name].folder.is_dir()
    path = Path(os.path.expanduser(config.data.path))
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) <= MAX_BYTES
