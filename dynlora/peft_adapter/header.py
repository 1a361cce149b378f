"""What an adapter folder says of itself: its configuration and the header of its tensors, no number read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dynlora.errors import AdapterError
from dynlora.peft_adapter.adapter_config import (
    CONFIG_NAME,
    FORMATS,
    MAX_BYTES,
    MOST_ALPHA,
    PREFIX,
    TENSORS_NAME,
    Settings,
    TensorFile,
    TensorInfo,
    read_object,
    settings_of,
    whole_number,
)
from dynlora.peft_adapter.read import PICKLES, check_shapes
from dynlora.peft_adapter.uniform import ForeignNames, Layout, read_names, split_names
from dynlora.safe_files import read_plain

MLX_NAME = "adapters.safetensors"
"""What mlx-lm calls its file of tensors."""

REPLACED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of `init_lora_weights` after which the base model's weights are others than before."""


NO_ADAPTERS = {
    "adapter.gguf": "is read by llama.cpp and Ollama alone; give the adapter that it was made of",
    "dynlora_adapter.json": "says an adapter with its gates, which only dynlora.load reads; export it for an engine",
    "config.json": "says a whole model, which is served without an adapter; give an adapter",
}
"""Files of exports that no engine reads as a LoRA beside a model, and why."""


@dataclass(frozen=True)
class AdapterHeader:
    """An adapter as its configuration and its file's header describe it.

    Attributes:
        folder: where it is.
        config: of `adapter_config.json`; empty where there is none.
        names: the tensors' names, read.
        infos: type and shape of each tensor.
        file: name of the file that holds them.
        has_mark: whether the configuration begins with a byte order mark, which PEFT does not read.
    """

    folder: Path
    config: Mapping[str, Any]
    names: ForeignNames
    infos: Mapping[str, TensorInfo]
    file: str = TENSORS_NAME
    has_mark: bool = False

    @property
    def layout(self) -> Layout:
        """Whose format the tensors are named in."""
        return self.names.layout

    @property
    def peft_type(self) -> str:
        """PEFT's name of the method; LORA where there is no configuration."""
        return str(self.config.get("peft_type") or "LORA").upper()

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Stored rank by module; only modules with both factors."""
        axis = 1 if self.layout == "mlx" else 0
        return {
            name: self.infos[module.lora_A].shape[axis]
            for name, module in self.names.modules.items()
            if module.lora_A and module.lora_B and len(self.infos[module.lora_A].shape) > axis
        }

    @cached_property
    def settings(self) -> Settings | None:
        """The configuration, read; None where the method is no product of two factors, or there is none."""
        return settings_of(self.config) if self.config and self.peft_type in FORMATS else None

    @cached_property
    def scalings(self) -> dict[str, float]:
        """Scaling s that PEFT gives each module; empty where it is not known."""
        return {} if self.settings is None else self.settings.scalings(self.ranks)

    @cached_property
    def missing(self) -> dict[str, list[int]]:
        """Layers that lack a module of a type which other layers have, by type."""
        parts = split_names(self.ranks).values()
        layers: dict[str, set[int]] = {}
        kinds: dict[tuple[str, str], set[int]] = {}
        for stack, layer, kind in parts:
            if layer is not None:
                layers.setdefault(stack, set()).add(layer)
                kinds.setdefault((stack, kind), set()).add(layer)
        return {
            kind: sorted(layers[stack] - present) for (stack, kind), present in kinds.items() if layers[stack] - present
        }

    def number(self, key: str, default: float) -> float:
        """Return a number of the configuration, the default where it is missing or none."""
        value = self.config.get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_ALPHA
        return float(value) if is_number else default


def expected_header(
    ranks: Mapping[str, int], scalings: Mapping[str, float], rank: int, lora_alpha: float
) -> AdapterHeader:
    """Return the header that an adapter will have when it is exported as it was trained.

    Args:
        ranks: by module; those of rank 0 are left out.
        scalings: s by module, lora_alpha / rank where one is missing.
        rank: r of the configuration.
        lora_alpha: of the configuration.
    """
    own = {f"^{re.escape(name)}": (name, rank) for name, rank in ranks.items() if rank > 0}
    usual = lora_alpha / rank
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": whole_number(lora_alpha),
        "target_modules": [name for name, _ in own.values()],
        "rank_pattern": {key: own_rank for key, (_, own_rank) in own.items()},
        "alpha_pattern": {key: scalings.get(name, usual) * own_rank for key, (name, own_rank) in own.items()},
    }
    shapes = {f"{PREFIX}{name}.lora_A.weight": (own_rank, 1) for name, own_rank in own.values()}
    shapes |= {f"{PREFIX}{name}.lora_B.weight": (1, own_rank) for name, own_rank in own.values()}
    infos = {name: TensorInfo("F32", shape, 0, 4 * max(shape)) for name, shape in shapes.items()}
    return AdapterHeader(Path(), config, read_names(infos), infos)


def read_header(folder: str | os.PathLike[str]) -> AdapterHeader:
    """Read configuration and header of an adapter folder of PEFT, mlx-lm, kohya or diffusers.

    Raises:
        AdapterError: when there is no safetensors file, more than one, or one of the files is damaged.
    """
    path = Path(folder)
    file = tensors_of(path)
    config = read_object(path / CONFIG_NAME) if os.path.lexists(path / CONFIG_NAME) else {}
    has_mark = (read_plain(path / CONFIG_NAME, MAX_BYTES) or "").startswith("\ufeff")
    with TensorFile(file) as tensors:
        names = read_names(tensors.infos)
        if names.layout == "peft":
            check_shapes(names.modules, tensors.infos)
        return AdapterHeader(path, config, names, dict(tensors.infos), file.name, has_mark)


def tensors_of(folder: Path) -> Path:
    """Return the safetensors file of an adapter folder.

    Raises:
        AdapterError: when there is none, or it cannot be told which.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder}: not a folder; give the folder that holds the adapter's .safetensors file")
    for name in (TENSORS_NAME, MLX_NAME):
        if os.path.lexists(folder / name):
            return folder / name
    files = sorted(item for item in folder.iterdir() if item.suffix == ".safetensors")
    is_model = any(item.name.startswith("model") for item in files)  # else config.json may be anything's
    for name, why in NO_ADAPTERS.items():
        if os.path.lexists(folder / name) and (is_model or name != "config.json"):
            raise AdapterError(f"{folder}: {name} {why}")
    if len(files) == 1:
        return files[0]
    pickle = next((item.name for item in sorted(folder.iterdir()) if item.name.endswith(PICKLES)), None)
    if not files and pickle:
        raise AdapterError(
            f"{folder}: {pickle} is a pickle, which can run code when it is read; save the adapter as safetensors"
        )
    raise AdapterError(
        f"{folder}: holds {len(files)} .safetensors files; give a folder with one, named {TENSORS_NAME} by PEFT"
    )
