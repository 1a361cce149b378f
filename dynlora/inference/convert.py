"""An adapter folder of anyone's in another form: read with numpy, no model loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dynlora import assets
from dynlora.errors import AdapterError, ConfigError, NotMergeableError
from dynlora.peft_adapter.adapter_config import CONFIG_NAME, PREFIX, TENSORS_NAME, TensorFile, read_object, whole_number
from dynlora.peft_adapter.engines import LLAMA_KINDS
from dynlora.peft_adapter.forms import AS_TRAINED, Form
from dynlora.peft_adapter.gguf_lora import GGUF_NAME, write_gguf, write_mlx
from dynlora.peft_adapter.read import REPLACED_BASE, AdapterHeader, read_header, read_weights, tensors_of
from dynlora.peft_adapter.serving_text import modelfile
from dynlora.peft_adapter.uniform import (
    ForeignModule,
    UniformAdapter,
    Update,
    own_components,
    peft_tensors,
    shapes_in_every_layer,
    short_targets,
    uniform,
)
from dynlora.text import printable
from dynlora.training.folder_work import staged

REPLACED = ("init_r", "target_r", "peft_type", "exclude_modules", "layers_to_transform", "layers_pattern")
"""Settings of a source that do not hold for what is written: its method, and which modules it has."""


@dataclass(frozen=True)
class LoadedAdapter:
    """The numbers of an adapter for one model.

    Attributes:
        updates: by module.
        kernels: of convolutions, (height, width), by module.
        rest: tensors that are no factor, by name without PEFT's prefix.
        config: of PEFT; empty where there was none.
        embeddings: modules that are embeddings, whose factors PEFT names in another way.
    """

    updates: dict[str, Update]
    kernels: dict[str, tuple[int, ...]]
    rest: Mapping[str, NDArray[Any]]
    config: Mapping[str, Any]
    embeddings: frozenset[str] = frozenset()


def convert(folder: Path, out: Path, form: Form, base: str | None = None) -> dict[str, Any]:
    """Write an adapter folder in another form; nothing is left at `out` unless all could be written.

    Args:
        folder: of PEFT, mlx-lm, or with one .safetensors file of kohya or diffusers.
        out: a new or empty folder, or a new file that ends in .zip.
        form: to write; merged needs the model and is refused.
        base: folder or name of the base model; None for the one that the adapter names.

    Returns:
        folder, form, layout, rank, modules, padded and filled; where a file held parts of a pipeline, those of each.

    Raises:
        AdapterError: when the folder holds no adapter that is a sum of s · B A.
        ConfigError: when `out` is taken, or the form needs the base model.
        NotMergeableError: when the form cannot hold the adapter.
        StorageError: when `out` cannot be written.
    """
    if form.format == "merged":
        raise ConfigError("--format merged: needs the base model's weights; use PEFT's merge_and_unload")
    header = read_header(folder)
    parts = _load(folder, header)
    document: dict[str, Any] = {"folder": str(out), "form": form.name, "layout": header.layout}
    with staged(out) as staging:
        if len(parts) == 1:
            (adapter,) = parts.values()
            return document | _write(adapter, staging, form, base, folder.name)
        written = {}
        for part, adapter in parts.items():
            (staging / part).mkdir()
            written[part] = _write(adapter, staging / part, form, base, part)
        return document | {"parts": written}


def _load(folder: Path, header: AdapterHeader) -> dict[str, LoadedAdapter]:
    """Return the adapter of each part of a pipeline, by its name."""
    init = str(header.config.get("init_lora_weights") or "").lower()
    if init.startswith(REPLACED_BASE):
        raise AdapterError(
            f"{folder}: init_lora_weights={init} changed the base model's weights, and the adapter belongs to those; "
            "save it with PEFT's path_initial_model_for_weight_conversion first"
        )
    if header.layout == "peft" and header.config:
        weights = read_weights(folder)
        places = {name: one.lora_A for name, one in header.names.modules.items()}
        kernels = {name: shape for name, place in places.items() if (shape := header.infos[place].shape[2:])}
        embeddings = frozenset(name for name, place in places.items() if ".lora_embedding_" in place)
        return {"": LoadedAdapter(dict(weights.updates), kernels, weights.rest, header.config, embeddings)}
    if header.names.others:
        raise AdapterError(
            f"{folder}: holds {len(header.names.others)} tensors that are no factors of a LoRA, such as "
            f"{printable(header.names.others[0])}; merge it with the program that trained it"
        )
    parts: dict[str, LoadedAdapter] = {}
    with TensorFile(tensors_of(folder)) as tensors:
        for module in header.names.modules.values():
            if not (module.lora_A and module.lora_B):
                raise AdapterError(f"{folder}: module {module.name[:200]} lacks a factor; save the adapter again")
            update, kernel = _update(header, tensors, module)
            adapter = parts.setdefault(module.part, LoadedAdapter({}, {}, {}, {}))
            adapter.updates[module.name] = update
            if kernel:
                adapter.kernels[module.name] = kernel
    if not parts:
        raise AdapterError(f"{folder}: none of its tensors is a factor of a LoRA; give a LoRA adapter")
    return parts


def _update(header: AdapterHeader, tensors: TensorFile, module: ForeignModule) -> tuple[Update, tuple[int, ...]]:
    """Return a module's update, and the kernel of a convolution."""
    lora_A, lora_B = tensors.read(module.lora_A), tensors.read(module.lora_B)
    if header.layout == "mlx":
        lora_A, lora_B = lora_A.T, lora_B.T
    kernel = lora_A.shape[2:]
    lora_A, lora_B = lora_A.reshape(len(lora_A), -1), lora_B.reshape(len(lora_B), -1)
    if lora_B.shape[1] != len(lora_A):
        raise AdapterError(f"{header.folder}: the factors of module {module.name[:200]} do not fit each other")
    alpha = float(tensors.read(module.alpha).ravel()[0]) if module.alpha else _alpha(header, len(lora_A))
    own = own_components(lora_A, lora_B)
    return Update(lora_A[own], lora_B[:, own], alpha / max(len(lora_A), 1)), kernel


def _alpha(header: AdapterHeader, rank: int) -> float:
    """Return alpha of a module without one of its own: mlx-lm keeps a scale for all, others are unscaled."""
    scale = (header.config.get("lora_parameters") or {}).get("scale", 1.0) if header.layout == "mlx" else 1.0
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise AdapterError(f"{CONFIG_NAME}: lora_parameters.scale is no number; save the adapter again")
    return float(scale) * rank


def _write(adapter: LoadedAdapter, folder: Path, form: Form, base: str | None, title: str) -> dict[str, Any]:
    """Write one adapter, and return what was written."""
    name = base or str(adapter.config.get("base_model_name_or_path") or "")
    config = base_config(name)
    if form.ranks == AS_TRAINED:
        _write_peft(folder, adapter, _own_ranks(adapter), _factors(adapter), name)
        return {"rank": max(len(one.lora_A) for one in adapter.updates.values()), "modules": len(adapter.updates)}
    shapes = {module: update.shape for module, update in adapter.updates.items()}
    layers = (config or {}).get("num_hidden_layers")
    whole = uniform(adapter.updates, shapes_in_every_layer(shapes, layers if isinstance(layers, int) else None))
    if form.format == "peft":
        settings = {**whole.config(), "target_modules": _targets(adapter, whole)}
        _write_peft(folder, adapter, settings, peft_tensors(whole, PREFIX), name)
    else:
        _check_rest(adapter, form)
        if form.format == "mlx":
            write_mlx(whole, folder, name)
        elif config is None:
            raise ConfigError(
                f"--base: the base model {name[:200] or 'of the adapter'} is not on this machine, and --format gguf "
                "needs its config.json; give the folder that holds it"
            )
        else:
            write_gguf(whole, config, folder / GGUF_NAME, title)
            if "ollama" in form.engines:
                (folder / "Modelfile").write_text(
                    modelfile(name, GGUF_NAME, None, "the base model was not read"), "utf-8"
                )
    return {
        "rank": whole.rank,
        "modules": len(whole.factors),
        "padded": len(whole.padded),
        "filled": len(whole.filled),
        "layers_known": isinstance(layers, int),
    }


def _check_rest(adapter: LoadedAdapter, form: Form) -> None:
    if adapter.rest:
        raise NotMergeableError(
            f"--format {form.format}: the adapter holds {len(adapter.rest)} tensors trained in full, such as "
            f"{next(iter(adapter.rest))[:200]}, which this format does not; merge it with PEFT's merge_and_unload"
        )


def _write_peft(
    folder: Path, adapter: LoadedAdapter, settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], base: str
) -> None:
    """Write an adapter as PEFT loads it, with what else the source's configuration says."""
    shaped = {
        _named(name, adapter.embeddings): _shaped(name, tensor, adapter.kernels) for name, tensor in tensors.items()
    }
    shaped |= {PREFIX + name: tensor for name, tensor in adapter.rest.items()}
    rest = {key: value for key, value in adapter.config.items() if key not in REPLACED}
    config = {"task_type": None, **rest, **settings, "base_model_name_or_path": base, "inference_mode": True}
    config["bias"] = adapter.config.get("bias", "none")
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in shaped.items()}, folder / TENSORS_NAME)
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2), "utf-8")


def _shaped(name: str, tensor: NDArray[Any], kernels: Mapping[str, tuple[int, ...]]) -> NDArray[Any]:
    """Return a factor in the shape that PEFT has it in: that of a convolution has its kernel."""
    module, _, factor = name.removeprefix(PREFIX).rpartition(".lora_")
    kernel = kernels.get(module)
    if kernel is None:
        return tensor
    return tensor.reshape(len(tensor), -1, *(kernel if factor.startswith("A") else (1,) * len(kernel)))


def _named(name: str, embeddings: frozenset[str]) -> str:
    """Return the name of a factor as PEFT has it."""
    module, _, factor = name.removeprefix(PREFIX).rpartition(".lora_")
    return f"{PREFIX}{module}.lora_embedding_{factor[0]}" if module in embeddings else name


def _own_ranks(adapter: LoadedAdapter) -> dict[str, Any]:
    """Return PEFT's settings of an adapter whose modules keep their ranks and scalings."""
    ranks = {f"^{re.escape(module)}": len(update.lora_A) for module, update in adapter.updates.items()}
    alphas = {f"^{re.escape(module)}": u.scaling * len(u.lora_A) for module, u in adapter.updates.items()}
    largest = max(ranks.values())
    return {
        "peft_type": "LORA",
        "r": largest,
        "lora_alpha": largest,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "rank_pattern": ranks,
        "alpha_pattern": {key: whole_number(alpha) for key, alpha in alphas.items()},
        "target_modules": list(adapter.updates),
    }


def _factors(adapter: LoadedAdapter) -> dict[str, NDArray[Any]]:
    return {
        f"{PREFIX}{module}.lora_{letter}.weight": factor
        for module, update in adapter.updates.items()
        for letter, factor in zip("AB", update[:2], strict=True)
    }


def _targets(adapter: LoadedAdapter, whole: UniformAdapter) -> Any:
    """Return `target_modules`: those given where they name types, last names in a Llama, else every module."""
    given = adapter.config.get("target_modules")
    if isinstance(given, list) and given and not set(given) & set(whole.factors):
        return given
    short = short_targets(whole.factors, ())
    return short if set(short) <= set(LLAMA_KINDS) else list(whole.factors)


def base_config(name: str) -> dict[str, Any] | None:
    """Return `config.json` of a base model that is on this machine, None where it is not; nothing is fetched.

    Args:
        name: folder, name of a built-in model or its id on the hub, or an id in the hub's cache.
    """
    folder = assets.cached_model_folder(name) if name else None
    return None if folder is None else read_object(folder / "config.json")
