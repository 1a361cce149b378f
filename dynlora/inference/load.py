"""From a run folder back to the trained model: predict, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dynlora import assets, strategies, tasks
from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.data_files.opening import Source, as_utf8, is_table
from dynlora.engine.adapt import adapt
from dynlora.engine.data.tables import read_table
from dynlora.engine.data.text_data import rows_to_continue, text_columns
from dynlora.engine.evaluation.evaluate import UNUSUAL
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates
from dynlora.engine.loop.adapter_state import checked_state, load_adapter_state, load_head_state, saved_sizes
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.engine.loop.hardware import autocast_context
from dynlora.engine.model.base_model import BaseModel, Weights, head_parameters, load_base
from dynlora.errors import ConfigError, DataError
from dynlora.jobs import environment
from dynlora.kinds.run_kind import kind_of_run
from dynlora.safe_files import why_not_a_file
from dynlora.tasks import WritingTask
from dynlora.training.inputs import read_data

PLACES = {"last": ("adapter", "checkpoint"), "best": ("adapter-best",)}
"""Where each choice of adapter lies; a run that never ended has its last one in the checkpoint."""


def load_run(folder: Path, which: str = "last") -> AdaptedModel:
    """Return the trained model of a run, in full precision on the CPU, in eval mode.

    Args:
        folder: of the run.
        which: last or best.

    Raises:
        ConfigError: when the run kept no such adapter.
        CorruptRunError: when it cannot be read.
    """
    environment.imported()
    config = kind_of_run(folder).model_config(folder)
    state = _trained_state(folder, which)
    task = task_of(state)
    weights = Weights(quantization=config.model.quantization)  # a quantised model is another function
    base = load_base(
        assets.resolve_model(config.model.name),
        task=task,
        seed=config.seed,
        weights=weights,
        layers=config.model.layers,
    )
    return adapted(base, config, state)


def adapted(base: BaseModel, config: RunConfig, state: Mapping[str, Any]) -> AdaptedModel:
    """Return a base model with a saved adapter and head on it, in eval mode.

    Args:
        base: model and head; its linear modules are replaced in place.
        config: of the run that was trained.
        state: as `checked_state` returns it.

    Raises:
        CorruptRunError: when the state is that of another model.
    """
    strategy = strategies.build(config.strategy.name, config.strategy.fields)
    adapters = adapt(
        base,
        strategy,
        rank=config.adapter.rank,
        lora_alpha=config.adapter.lora_alpha,
        dropout=0.0,
        targets=config.adapter.targets,
        total=config.train.max_steps(1),
        seed=config.seed,
        batches=lambda n: [],
        sizes=saved_sizes(state["adapters"]),
    )
    load_adapter_state(adapters, state["adapters"])
    load_head_state(head_parameters(base), state["head"])
    base.model.eval()
    context = autocast_context("fp32", torch.device("cpu"))
    return AdaptedModel(
        base=base,
        adapters=adapters,
        strategy=strategy,
        task=base.task,
        max_length=config.data.max_length,
        autocast=context,
        unusual=state.get("metrics", {}).get(UNUSUAL),
        step=state.get("step", 0),
        new_tokens=config.log.generate_max,
    )


def task_of(state: Mapping[str, Any]) -> tasks.Task:
    """Return the task that a saved adapter was trained for."""
    return tasks.build(state["task"], state["labels"], state.get("task_settings"))


def evaluate_run(
    folder: Path, *, split: str = "validation", baked: bool = False, which: str = "last"
) -> dict[str, Any]:
    """Return loss and metrics of a run's adapter on a split, with its gates or with their means.

    Raises:
        ConfigError: when there is no such split.
    """
    if split not in ("train", "validation"):
        raise ConfigError(f"--split {split}: must be train or validation")
    config, model = read_run_config(folder), load_run(folder, which)
    data = read_data(config)
    if baked:
        bake_gates(model, mean_gates(model, model.tokens(data.train_sample(GATE_ROWS, config.seed))))
    rows = data.train if split == "train" else data.held_out
    return {"split": split, "baked": baked, "rows": len(rows), "metrics": model.evaluate(rows)}


GATE_ROWS = 1024
"""Training rows whose gates are averaged for baking; held-out rows would leak into the exported adapter."""


def answers_of_file(folder: Path, path: Path, which: str = "last") -> list[dict[str, Any]]:
    """Return a run's predictions for the rows of a file, one row each; see `AdaptedModel.answers`.

    A run that writes texts continues the prompts of a table exactly as they stand in its training data: through the
    chat template where they are conversations, and with the line break they end in.

    Raises:
        ConfigError: when the file has no text.
        DataError: when it cannot be read or lacks the columns.
    """
    config, model = kind_of_run(folder).model_config(folder), load_run(folder, which)
    if isinstance(model.task, WritingTask) and is_table(path):
        return model.continued_rows(model.task, rows_to_continue(read_table(path, "--file "), config.data, model.task))
    texts, pairs = texts_of(path, config)
    if not texts:
        raise ConfigError(f"--file {path}: has no text; give a file with a text in each line, or a table")
    return model.answers(texts, pairs)


def texts_of(path: Path, config: RunConfig) -> tuple[list[str], list[str] | None]:
    """Return the texts of a file, and their second texts: a table as the data's, or one text a line.

    Raises:
        DataError: when the file cannot be read or lacks the columns.
    """
    if not is_table(path):
        if problem := why_not_a_file(path):
            raise DataError(f"--file {path}: {problem}")
        text = as_utf8(Source(path)).whole().decode("utf-8-sig")
        return [line for line in text.splitlines() if line.strip()], None
    table = read_table(path, "--file ")
    try:
        return text_columns(table, config.data)
    except DataError as error:
        raise DataError(f"--file {path}: {error}") from None


def _trained_state(folder: Path, which: str) -> dict[str, Any]:
    """Return the saved adapter and head of a run."""
    if which not in PLACES:
        raise ConfigError(f"--which {which}: must be last or best")
    models = (*kind_of_run(folder).models, "adapter-best")
    for name in PLACES[which]:
        if name not in models:
            continue  # the checkpoint of a run on its way may hold texts and an optimizer, and no adapter for use
        if find_checkpoint(folder / name) is not None:
            return checked_state(read_checkpoint(folder / name))
    raise ConfigError(f"run {folder.name}: has no {which} adapter; it was not saved, or no step has been trained yet")
