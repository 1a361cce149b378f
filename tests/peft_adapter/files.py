"""Adapter folders as PEFT writes them, and files in the safetensors format that no library would write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64"}


def raw_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a file with this header and these bytes, its first eight bytes saying `length` when given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor_file(tensors: Mapping[str, np.ndarray], **more: tuple[str, tuple[int, ...], bytes]) -> bytes:
    """Return a file of arrays; `more` holds tensors as (type, shape, bytes), such as bfloat16."""
    entries = {name: (TYPES[value.dtype.name], value.shape, value.tobytes()) for name, value in tensors.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in (entries | more).items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return raw_file(header, data)


def bfloat16(values: np.ndarray) -> bytes:
    """Return numbers as bfloat16, cut off: the upper halves of their float32."""
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def lora(module: str, r: int, d_in: int, d_out: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the factors of one module as PEFT names them."""
    draw = np.random.default_rng(seed)
    name = f"base_model.model.{module}"
    return {
        f"{name}.lora_A.weight": draw.standard_normal((r, d_in)).astype("<f4"),
        f"{name}.lora_B.weight": draw.standard_normal((d_out, r)).astype("<f4"),
    }


def write_adapter(folder: Path, tensors: Mapping[str, np.ndarray] | bytes, **settings: object) -> Path:
    """Write an adapter folder; its configuration says LoRA, rank 4, alpha 8 unless `settings` say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "some/model"} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    content = tensors if isinstance(tensors, bytes) else tensor_file(tensors)
    (folder / "adapter_model.safetensors").write_bytes(content)
    return folder


def small_adapter(folder: Path, layers: int = 3, **settings: object) -> Path:
    """Write an adapter of two kinds of modules in some layers, of unequal ranks, and a head."""
    tensors: dict[str, np.ndarray] = {"base_model.model.classifier.weight": np.zeros((2, 8), "<f4")}
    for layer in range(layers):
        for i, kind in enumerate(("attention.self.query", "output.dense")):
            tensors |= lora(f"bert.encoder.layer.{layer}.{kind}", 1 + layer + i, 8, 6, seed=10 * layer + i)
    return write_adapter(folder, tensors, **settings)
