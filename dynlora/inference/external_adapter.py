"""An adapter that was trained elsewhere: a folder of PEFT's on a base model and rows that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynlora.config import RunConfig
from dynlora.engine.data.text_data import TextData
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import load_head_state
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.base_model import BaseModel, head_parameters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, find_modules
from dynlora.engine.strategy import Strategy
from dynlora.errors import AdapterError, CorruptRunError
from dynlora.peft_adapter.adapter_config import PREFIX
from dynlora.peft_adapter.read import AdaptedModule, Factors, read_adapter, read_factors
from dynlora.peft_adapter.safetensors import TENSORS_NAME, TensorFile
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
        nullcontext,
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
