"""An adapter with its gates as a folder, and back on any transformers base: what no format of PEFT holds.

The folder has safetensors and JSON alone: the saved adapter, the settings that rebuild its modules, the tokenizer.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from dynlora import assets
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import as_made
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import adapter_state, checked_state
from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.engine.model.base_model import BaseModel, head_parameters, load_base, load_tokenizer
from dynlora.engine.model.gates import Gates
from dynlora.engine.strategy import Strategy
from dynlora.errors import AdapterError, ConfigError, CorruptRunError, NotMergeableError
from dynlora.inference.load import adapted, task_of
from dynlora.safe_files import path_of
from dynlora.store.record import Record
from dynlora.text import printable

SETTINGS_NAME = "dynlora_adapter.json"
STATE = "adapter"
"""Folder of the saved adapter."""

KEPT = {"model", "adapter", "strategy", "train", "seed"}
"""Sections of a run's settings that rebuild its modules; none names a place of the machine but the base model."""


class GatedAdapter(Record):
    """What rebuilds an adapter with its gates.

    Attributes:
        base: hub id or folder of the base model.
        settings: sections of the run's settings.
    """

    VERSION: ClassVar[int] = 1

    base: str
    settings: dict[str, Any]


def write_gated(model: AdaptedModel, folder: Path, config: RunConfig, base: str) -> None:
    """Write an adapter with its gates.

    Args:
        model: as it was trained.
        folder: that is made.
        config: of the run.
        base: hub id or folder of the base model.

    Raises:
        NotMergeableError: when the method's answer is not that of one forward.
    """
    if type(model.strategy).forward is not Strategy.forward:
        raise NotMergeableError(
            f"--format gated: {config.strategy.name} combines several forwards, which a module does not; use merged"
        )
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key in KEPT}
    task = model.task
    state = {
        "step": model.step,
        "adapters": adapter_state(model.adapters),
        "head": head_parameters(model.base),
        "labels": list(task.labels),
        "task": task.name,
        **({"task_settings": more} if (more := task.settings()) else {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / STATE, state)
    GatedAdapter(base=base, settings=settings).write(folder / SETTINGS_NAME)
    model.base.model.config.to_json_file(folder / "config.json")
    model.base.tokenizer.save_pretrained(folder)


def load_gated(folder: str | Path, base: Any = None) -> Any:
    """Return a transformers model with an exported adapter and its gates on it, in eval mode.

    It works under a forward, `generate`, `pipeline` and `Trainer.predict`. Adapters of PEFT cannot be mixed with it in
    one batch.

    Args:
        folder: that `dynlora export --format gated` wrote.
        base: a transformers model to put it on, whose linear modules are replaced in place; None loads the one that the
            folder names.

    Raises:
        AdapterError: when the folder holds no such adapter, or it belongs to another base model.
        AssetError: when the base model cannot be loaded.
        ConfigError: when `base` is no model.
    """
    path = path_of("folder", folder)
    if not isinstance(base, nn.Module | None):
        raise ConfigError(f"base={printable(base)}: must be a transformers model; load it, or leave base out")
    written = GatedAdapter.read(path / SETTINGS_NAME)
    if written is None:
        raise AdapterError(
            f"{path}: holds no {SETTINGS_NAME}; give a folder that `dynlora export ID --format gated` wrote"
        )
    try:
        config = parse_config({**as_made(written.settings), "data": {"name": "sentiment4"}})
        state = checked_state(read_checkpoint(path / STATE))
        model = adapted(_base(path, written, config, state, base), config, state)
    except (ConfigError, CorruptRunError) as error:
        raise AdapterError(f"{path}: {error}") from None
    network: Any = model.base.model
    gates = model.adapters.gates
    network.register_forward_pre_hook(functools.partial(_refuse, gates), with_kwargs=True)
    if gates is not None and gates.is_causal and network.can_generate():
        network.generate = _generating(network, gates)
    return network


def _base(path: Path, written: GatedAdapter, config: RunConfig, state: dict[str, Any], model: Any) -> BaseModel:
    """Return the base model with the head of the adapter's task."""
    task = task_of(state)
    if model is None:
        folder = assets.cached_model_folder(written.base) or assets.resolve_model(written.base)
        return load_base(folder, task=task, seed=config.seed, layers=config.model.layers)
    head = sorted({name.rpartition(".")[0] for name in state["head"]})
    known = dict(model.named_modules())
    if missing := [name for name in head if name not in known]:
        raise AdapterError(f"{path}: the base model has no module {missing[0]}; load it with the adapter's task")
    model.requires_grad_(False)
    return BaseModel(model, load_tokenizer(path), head, path, task)


def _refuse(gates: Gates | None, _model: nn.Module, _args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
    """Refuse a forward whose gates would be wrong.

    Raises:
        ConfigError: naming the argument.
    """
    if inputs.get("adapter_names") is not None:
        raise ConfigError(
            "adapter_names: a gated adapter cannot share a batch with others; run each batch with one adapter"
        )
    cache = inputs.get("past_key_values")
    is_continued = cache is not None and cache.get_seq_length() > 0
    if is_continued and gates is not None and gates.is_causal and not gates.is_writing:
        raise ConfigError(
            "past_key_values: the gates need the tokens before; call model.generate, or give the whole text at once"
        )


def _generating(model: Any, gates: Gates) -> Any:
    """Return `generate` of a model whose gates follow each text while it is written."""
    generate = model.generate

    @functools.wraps(generate)
    def carrying(*args: Any, **options: Any) -> Any:
        settings = options.get("generation_config") or model.generation_config
        beams = options.get("num_beams") or getattr(settings, "num_beams", None) or 1
        if beams > 1:
            raise ConfigError(f"num_beams={beams}: the gates follow one text each; use num_beams=1")
        with gates.writing():
            return generate(*args, **options)

    return carrying
