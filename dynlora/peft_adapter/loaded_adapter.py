"""The numbers of an adapter that anyone trained, read from its files with numpy: as PEFT has them, or uniform."""

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
from dynlora.errors import AdapterError, NotMergeableError
from dynlora.peft_adapter.adapter_config import CONFIG_NAME, PREFIX, TENSORS_NAME, TensorFile, read_object, whole_number
from dynlora.peft_adapter.engines import LLAMA_KINDS
from dynlora.peft_adapter.read import REPLACED_BASE, AdapterHeader, read_weights, tensors_of
from dynlora.peft_adapter.uniform import (
    ForeignModule,
    UniformAdapter,
    Update,
    own_components,
    shapes_in_every_layer,
    short_targets,
    uniform,
)
from dynlora.text import printable

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

    @property
    def base_name(self) -> str:
        """Hub id or folder of the base model; empty where the adapter does not say."""
        return str(self.config.get("base_model_name_or_path") or "")

    def check_nothing_else(self, format: str) -> None:
        """Refuse an adapter with tensors that were trained in full, which a format does not hold.

        Raises:
            NotMergeableError: naming the first of them.
        """
        if self.rest:
            raise NotMergeableError(
                f"--format {format}: the adapter holds {len(self.rest)} tensors trained in full, such as "
                f"{next(iter(self.rest))[:200]}, which this format does not; merge it with PEFT's merge_and_unload"
            )

    def uniform(self, base: str) -> tuple[UniformAdapter, dict[str, Any]]:
        """Return the adapter with one rank for all modules, and what an export says of it.

        Args:
            base: folder or name of the base model; where it is on this machine, its config says how many layers it has.
        """
        shapes = {module: update.shape for module, update in self.updates.items()}
        layers = (base_config(base) or {}).get("num_hidden_layers")
        whole = uniform(self.updates, shapes_in_every_layer(shapes, layers if isinstance(layers, int) else None))
        return whole, {
            "rank": whole.rank,
            "modules": len(whole.factors),
            "padded": len(whole.padded),
            "filled": len(whole.filled),
            "layers_known": isinstance(layers, int),
        }

    def write_peft(
        self, folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], base: str
    ) -> None:
        """Write tensors as PEFT loads them, with what else the source's configuration says.

        Args:
            folder: that exists.
            settings: of PEFT, in the place of the source's.
            tensors: factors, by PEFT's names.
            base: hub id or folder of the base model.
        """
        shaped = {self._named(name): self._shaped(name, tensor) for name, tensor in tensors.items()}
        shaped |= {PREFIX + name: tensor for name, tensor in self.rest.items()}
        rest = {key: value for key, value in self.config.items() if key not in REPLACED}
        config = {"task_type": None, **rest, **settings, "base_model_name_or_path": base, "inference_mode": True}
        config["bias"] = self.config.get("bias", "none")
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in shaped.items()}, folder / TENSORS_NAME)
        (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2), "utf-8")

    def _shaped(self, name: str, tensor: NDArray[Any]) -> NDArray[Any]:
        """Return a factor in the shape that PEFT has it in: that of a convolution has its kernel."""
        module, _, factor = name.removeprefix(PREFIX).rpartition(".lora_")
        kernel = self.kernels.get(module)
        if kernel is None:
            return tensor
        return tensor.reshape(len(tensor), -1, *(kernel if factor.startswith("A") else (1,) * len(kernel)))

    def _named(self, name: str) -> str:
        """Return the name of a factor as PEFT has it."""
        module, _, factor = name.removeprefix(PREFIX).rpartition(".lora_")
        return f"{PREFIX}{module}.lora_embedding_{factor[0]}" if module in self.embeddings else name

    def own_ranks(self) -> dict[str, Any]:
        """Return PEFT's settings of an adapter whose modules keep their ranks and scalings."""
        ranks = {f"^{re.escape(module)}": len(update.lora_A) for module, update in self.updates.items()}
        alphas = {f"^{re.escape(module)}": u.scaling * len(u.lora_A) for module, u in self.updates.items()}
        largest = max(ranks.values())
        return {
            "peft_type": "LORA",
            "r": largest,
            "lora_alpha": largest,
            "lora_dropout": 0.0,
            "use_rslora": False,
            "rank_pattern": ranks,
            "alpha_pattern": {key: whole_number(alpha) for key, alpha in alphas.items()},
            "target_modules": list(self.updates),
        }

    def factors(self) -> dict[str, NDArray[Any]]:
        """Return lora_A, (rank, d_in), and lora_B, (d_out, rank), of each module by PEFT's name."""
        return {
            f"{PREFIX}{module}.lora_{letter}.weight": factor
            for module, update in self.updates.items()
            for letter, factor in zip("AB", update[:2], strict=True)
        }

    def targets(self, whole: UniformAdapter) -> Any:
        """Return `target_modules`: those given where they name types, last names in a Llama, else every module."""
        given = self.config.get("target_modules")
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


def load_adapters(folder: Path, header: AdapterHeader) -> dict[str, LoadedAdapter]:
    """Return the adapter of each part of a pipeline, by its name; one without a name where there are no parts.

    Args:
        folder: of PEFT, mlx-lm, or with one .safetensors file of kohya or diffusers.
        header: of it.

    Raises:
        AdapterError: when the folder holds no adapter that is a sum of s · B A.
    """
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
