"""An adapter with its gates as a folder, and back on any transformers base: what no format of PEFT holds.

The folder has safetensors and JSON alone: the saved adapter, the settings that rebuild its modules, the tokenizer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from dynlora import assets
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import as_made
from dynlora.engine.data.text_data import TextData
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import adapter_state, checked_state, load_head_state
from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.base_model import BaseModel, head_parameters, load_base, load_tokenizer
from dynlora.engine.model.gates import Gates
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, find_modules
from dynlora.engine.strategy import Strategy
from dynlora.errors import AdapterError, ConfigError, CorruptRunError, NotMergeableError
from dynlora.inference.session import adapted, task_of
from dynlora.peft_adapter.adapter_config import PREFIX, TENSORS_NAME, TensorFile
from dynlora.peft_adapter.read import AdaptedModule, Factors, read_adapter, read_factors
from dynlora.safe_files import path_of
from dynlora.store.record import Record
from dynlora.text import printable
from dynlora.training.inputs import load_inputs


def load_folder(folder: Path, config: RunConfig) -> tuple[AdaptedModel, TextData]:
    """Return the base model of a configuration with the adapter of a folder on it, and the configuration's rows.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`, LoRA or AdaLoRA.
        config: names the base model and the data; a head that the adapter lacks is the base model's own.

    Raises:
        AdapterError: when the folder holds no such adapter, or it does not fit the base model.
        AssetError, ConfigError, DataError: as `load_inputs` does.
    """
    adapter = read_adapter(folder)
    for note in adapter.notes:
        raise AdapterError(f"{folder.name}: {note} Such an adapter cannot be compressed; merge it with PEFT instead")
    inputs = load_inputs(config)
    base = inputs.base
    base.model.to(torch.float32)  # pyright: ignore
    infos = {info.name: info for info in find_modules(base.model, None, base.head)}
    with TensorFile(folder / TENSORS_NAME) as tensors:
        factors = read_factors(tensors)
        modules = [_module(base, infos, module, factors[module.name]) for module in adapter.modules]
        _load_head(base, tensors)
    strategy = Strategy()
    strategy.attach_task(inputs.data.task)
    adapters = Adapters(
        modules,
        budget=sum(module.rank * module.info.cost for module in modules),
        reference_rank=max(module.rank for module in modules),
        seed=config.seed,
    )
    base.model.eval()
    model = AdaptedModel(
        base,
        adapters,
        strategy,
        inputs.data.task,
        config.data.max_length,
        new_tokens=config.log.generate_max,
    )
    return model, inputs.data


@torch.no_grad()
def _module(base: BaseModel, infos: Mapping[str, ModuleInfo], module: AdaptedModule, factors: Factors) -> LoraLinear:
    """Put one module's update in its place."""
    info = infos.get(module.name)
    if info is None or (info.d_in, info.d_out) != (module.d_in, module.d_out):
        kind = (
            "is not a linear module of a block" if info is None else f"has {info.d_in} inputs and {info.d_out} outputs"
        )
        raise AdapterError(
            f"{TENSORS_NAME}: module {module.name[:200]} {kind} in the base model; name the adapter's own base with "
            "--set model.name="
        )
    lora_A, lora_B, scaling = factors.update(module.scaling)
    rank = len(lora_A)
    made = LoraLinear(base.model.get_submodule(info.name), info, rank=rank, max_rank=max(1, rank), scaling=scaling)
    made.lora_A[:rank].copy_(_tensor(lora_A))
    made.lora_B[:, :rank].copy_(_tensor(lora_B))
    replace_module(base.model, info.name, made)
    return made


def _load_head(base: BaseModel, tensors: TensorFile) -> None:
    """Take the head that was trained with the adapter, where the file has one."""
    head = head_parameters(base)
    names = {name: PREFIX + name for name in head if PREFIX + name in tensors.infos}
    if not names:
        return
    state: dict[str, Any] = {name: _tensor(tensors.read(place)) for name, place in names.items()}
    try:
        load_head_state(head, state)
    except (CorruptRunError, RuntimeError, ValueError):
        raise AdapterError(
            f"{TENSORS_NAME}: its head does not fit the labels of the data; give the data it was trained on"
        ) from None


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))  # a copy: the file is only to be read


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
