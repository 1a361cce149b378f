"""From a config to a trainer that is ready to start: data, model, strategy, adapters, optimizer, evaluation."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from dynlora import assets, strategies
from dynlora.config import PROBE_ROWS, RunConfig
from dynlora.config_files import with_absolute_paths
from dynlora.engine.adapt import adapt
from dynlora.engine.data import groups
from dynlora.engine.data.batches import BatchOrder, Tokens, calibration_batches, tokenize
from dynlora.engine.data.held_back import HeldBack, set_apart
from dynlora.engine.data.text_data import Rows, TextData, load_data
from dynlora.engine.evaluation.evaluate import Evaluation
from dynlora.engine.evaluation.generate import LONGEST, Limits
from dynlora.engine.evaluation.held_out_part import sample
from dynlora.engine.evaluation.written import Prompts
from dynlora.engine.loop.adapter_state import load_adapter_state, load_head_state, saved_sizes
from dynlora.engine.loop.checkpoint import load_optimizer_state, moved
from dynlora.engine.loop.hardware import autocast_context, resolve_precision
from dynlora.engine.loop.optimizer import build_optimizer
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel, head_parameters, load_base
from dynlora.engine.recorder import NullRecorder, Recorder
from dynlora.engine.strategy import Batch, Strategy
from dynlora.errors import AssetError, ConfigError
from dynlora.tasks import WritingTask

logger = logging.getLogger(__name__)

CALIBRATION_BATCHES = 8
"""Training batches that fix the gates' standardisation."""


@dataclass(frozen=True)
class Inputs:
    """What a run is made of, checked, before anything is trained or written.

    Attributes:
        config: the settings.
        strategy: the method with its fields.
        data: labelled text.
        base: model, tokenizer and head, unadapted.
        total: optimizer steps.
    """

    config: RunConfig
    strategy: Strategy
    data: TextData
    base: BaseModel
    total: int


def load_inputs(config: RunConfig) -> Inputs:
    """Load and check everything a config names.

    Raises:
        ConfigError, AssetError, DataError: one sentence that names what is wrong and what to change.
    """
    config = with_absolute_paths(config)
    strategy = strategies.build(config.strategy.name, config.strategy.fields)
    if config.train.epochs is None:
        strategy.check(config.train.max_steps(0), config.adapter.rank)
    data = read_data(config)
    total = config.train.max_steps(len(data.train))
    strategy.check(total, config.adapter.rank)
    _check_batch(config)
    base = load_base(
        assets.resolve_model(config.model.name),
        task=data.task,
        seed=config.seed,
        dropout=config.model.dropout,
    )
    if isinstance(data.task, WritingTask):
        data.task.check_tokenizer(base.tokenizer, data.train)
    return Inputs(config, strategy, data, base, total)


def read_data(config: RunConfig) -> TextData:
    """Return the rows a config names, both sides.

    Raises:
        AssetError, DataError: one sentence that names what is wrong and what to change.
    """
    embedded = None if config.data.path else assets.DATASETS.get(config.data.name or "")
    names = embedded.label_names if embedded is not None and config.data.label == "label" else ()
    return load_data(config.data, data_folder(config), config.seed, names)


def data_folder(config: RunConfig) -> Path:
    """Return the folder or file the rows lie in."""
    return Path(config.data.path).expanduser() if config.data.path else assets.resolve_data(config.data.name or "")


def build_trainer(
    inputs: Inputs, recorder: Recorder, accelerator: Accelerator, state: Mapping[str, Any] | None = None
) -> Trainer:
    """Put the adapters in and return a trainer at step 0, or at the step of a saved `state`.

    Args:
        inputs: what `load_inputs` returned; the base model is adapted in place.
        recorder: takes what the trainer emits.
        accelerator: device and processes.
        state: of a checkpoint.
    """
    config, base, data = inputs.config, inputs.base, inputs.data
    precision = resolve_precision(config.train.precision, accelerator.device)
    autocast = autocast_context(precision, accelerator.device)
    base.model.to(accelerator.device)  # pyright: ignore
    _say(recorder, f"Tokenizing {len(data.train) + len(data.held_out):,} texts")
    encoded = tokenize(base.tokenizer, data.train, config.data.max_length, data.task)
    _check_tokens(base, encoded)
    for note in encoded.notes:
        recorder.log("warning", f"Training data: {note}")
    everything = usable(encoded)
    tokens, reserve = set_apart(everything, inputs.strategy.reserved_share(), config.seed)
    evaluation, position = _evaluation(inputs, tokens, autocast, is_kept=type(recorder) is not NullRecorder)
    _say(recorder, "Adding the adapters")
    adapters = put_adapters(inputs, tokens, accelerator, None if state is None else saved_sizes(state["adapters"]))
    if state is not None:
        load_adapter_state(adapters, state["adapters"])
    for note in adapters.notes:
        recorder.log("info", note)
    model = accelerator.prepare_model(base.model)
    inputs.strategy.attach_held_back(
        HeldBack(model, inputs.strategy.forward, reserve, config.train.batch_size, autocast, data.task)
    )
    head = head_parameters(base)
    optimizer = build_optimizer(inputs.strategy, adapters, head.values(), config.train)
    if state is not None:
        load_head_state(head, state["head"])
        load_optimizer_state(optimizer, state["optimizer"])
        inputs.strategy.load_state_dict(moved(state["strategy"], accelerator.device))
    else:
        inputs.strategy.start(adapters)
    evaluation.define(recorder, len(adapters), position, adapters.gates is not None)
    trainer = Trainer(
        config=config,
        model=model,
        adapters=adapters,
        strategy=inputs.strategy,
        optimizer=optimizer,
        tokens=tokens,
        evaluation=evaluation,
        accelerator=accelerator,
        autocast=autocast,
        recorder=recorder,
        total=inputs.total,
    )
    if state is not None:
        trainer.step, trainer.best, trainer.metrics = state["step"], state["best"], state["metrics"]
        trainer.timing.train_s = state["train_s"]
    return trainer


def _check_tokens(base: BaseModel, tokens: Tokens) -> None:
    """Refuse tokens that the model has no embedding for: the tokenizer is another model's.

    Raises:
        AssetError: naming the highest.
    """
    known = len(base.model.get_input_embeddings().weight)  # pyright: ignore[reportArgumentType]
    highest = max(max(row["input_ids"], default=0) for row in tokens.features) if tokens.features else 0
    if max(highest, tokens.pad["input_ids"]) >= known:
        raise AssetError(
            f"model.name={base.folder}: its tokenizer gives token {max(highest, tokens.pad['input_ids']):,}, and the "
            f"model has embeddings for {known:,}; save the tokenizer that the model was trained with in its folder"
        )


def _say(recorder: Recorder, words: str) -> None:
    """Say what happens before the first step, at once: it can take long."""
    recorder.log("info", words)
    recorder.commit()


def put_adapters(
    inputs: Inputs, tokens: Tokens | None, accelerator: Accelerator, sizes: Mapping[str, tuple[int, int]] | None
) -> Adapters:
    """Put the strategy's adapters into the base model, and calibrate their gates where they are new."""
    config, base = inputs.config, inputs.base

    def batches(n: int) -> list[Batch]:
        """Return the first n batches of training."""
        if tokens is None:
            return []
        order = BatchOrder(tokens.length, config.train.batch_size, config.seed)
        return [tokens.batch(order[index], accelerator.device) for index in range(n)]

    def probe_batches(n: int) -> list[Batch]:
        """Return n batches of rows that a method may look at before training."""
        return [] if tokens is None else list(calibration_batches(tokens, n, config.seed, accelerator.device))

    adapters = adapt(
        base,
        inputs.strategy,
        rank=config.adapter.rank,
        lora_alpha=config.adapter.lora_alpha,
        dropout=config.adapter.dropout,
        targets=config.adapter.targets,
        total=inputs.total,
        seed=config.seed,
        batches=probe_batches,
        sizes=sizes,
    )
    if adapters.gates is not None and sizes is None:
        adapters.gates.calibrate(base.model, [dict(batch) for batch in batches(CALIBRATION_BATCHES)])
    return adapters


def make_accelerator() -> Accelerator:
    """Return device and processes as `accelerate launch` or the machine has them.

    Several processes on a machine without accelerators talk through gloo: accelerate needs to be told.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerator(
        cpu=several and not torch.accelerator.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def _evaluation(inputs: Inputs, train: Tokens, autocast: Any, *, is_kept: bool) -> tuple[Evaluation, np.ndarray]:
    """Return the held-out side ready to evaluate, and the probe set's place in the plane, (n_probe, 2).

    The place costs a look at each example: where nothing is kept it is left at zero.
    """
    config, base, data = inputs.config, inputs.base, inputs.data
    everything = tokenize(base.tokenizer, data.held_out, config.data.max_length, data.task)
    tokens, held_out = usable(everything), data.held_out.take(usable_rows(everything))
    names, group = _groups(inputs, train, tokens, held_out, autocast)
    probe = groups.probe_rows(tokens.label, group, PROBE_ROWS, config.seed)
    looked_at = sample(probe, group, len(tokens), config.log.eval_rows, config.seed)
    evaluation = Evaluation(
        tokens, held_out.text, held_out.text_pair, group, names, data.task, probe, data.metric, looked_at,
        _prompts(inputs, held_out, group),
    )  # fmt: skip
    if not is_kept:
        return evaluation, np.zeros((len(probe), 2))
    return evaluation, groups.plane(groups.embed(base.model, tokens, probe, 64, autocast))


def _prompts(inputs: Inputs, held_out: Rows, group: np.ndarray | None) -> Prompts | None:
    """Return the prompts that a model which writes texts continues at each evaluation, as many of each group."""
    config, task, tokenizer = inputs.config, inputs.data.task, inputs.base.tokenizer
    if not isinstance(task, WritingTask) or not config.log.generate_rows:
        return None
    rows = groups.probe_rows(np.zeros(len(held_out)), group, config.log.generate_rows, config.seed)
    limits = Limits(config.log.generate_max, min(tokenizer.model_max_length, LONGEST))
    return Prompts.of_rows(held_out, rows, tokenizer, task, limits)


def usable_rows(tokens: Tokens) -> np.ndarray:
    """Return the rows that have a label which counts: a completion may have been cut off."""
    return np.arange(len(tokens)) if tokens.targets is None else np.flatnonzero(tokens.label > 0)


def usable(tokens: Tokens) -> Tokens:
    """Return the rows that there is something to learn from, or to judge by."""
    return tokens if tokens.targets is None else tokens.take(usable_rows(tokens))


def _groups(
    inputs: Inputs, train: Tokens, tokens: Tokens, held_out: Rows, autocast: Any
) -> tuple[list[str], np.ndarray | None]:
    """Return the input groups' names and the index of each held-out row's group."""
    config = inputs.config
    if config.data.group_by == "clusters":
        sample = groups.probe_rows(train.label, None, 4 * PROBE_ROWS, config.seed)
        clusters = groups.fit_clusters(groups.embed(inputs.base.model, train, sample, 64, autocast), config.seed)
        everything = np.arange(len(tokens))
        member = clusters.predict(groups.embed(inputs.base.model, tokens, everything, 64, autocast))
        return [f"cluster {index + 1}" for index in range(clusters.n_clusters)], np.asarray(member)
    return named_groups(held_out)


def named_groups(rows: Rows) -> tuple[list[str], np.ndarray | None]:
    """Return the names of the groups that rows say they are in, in a natural order, and the index of each row's."""
    if rows.group is None:
        return [], None
    names = sorted(set(rows.group), key=_natural)
    index = {name: position for position, name in enumerate(names)}
    return names, np.array([index[name] for name in rows.group])


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a sort key that reads digits as numbers: 2 before 10, numbers before words."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part]


def _check_batch(config: RunConfig) -> None:
    """Refuse a batch that does not divide over the processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.train.batch_size % processes:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size}: must be a multiple of the {processes} processes; raise it"
        )
