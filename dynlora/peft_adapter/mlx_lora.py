"""An adapter as mlx-lm loads it: `mlx_lm.generate --adapter-path FOLDER`.

One rank and one scale for all modules, so the adapter is given in the uniform form and the scale is 1. mlx-lm
multiplies from the left: a is A transposed, (d_in, R), and b is B transposed, (R, d_out).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dynlora.errors import NotMergeableError
from dynlora.peft_adapter.adapter_config import CONFIG_NAME
from dynlora.peft_adapter.header import MLX_NAME
from dynlora.peft_adapter.module_names import split_names
from dynlora.peft_adapter.uniform import UniformAdapter


def write_mlx(adapter: UniformAdapter, folder: Path, base_name: str) -> None:
    """Write `adapters.safetensors` and `adapter_config.json` of mlx-lm.

    Args:
        adapter: in the uniform form; every module of a type in every layer.
        folder: where to; exists.
        base_name: what mlx-lm loads the base model by.

    Raises:
        NotMergeableError: when a module is outside of the blocks, where mlx-lm's keys do not reach.
    """
    keys: dict[str, None] = {}
    layers = 0
    for name, (_, layer, kind) in split_names(adapter.factors).items():
        if layer is None:
            raise NotMergeableError(f"--format mlx: module {name[:200]} is outside of the blocks; use --format merged")
        keys[kind] = None
        layers = max(layers, layer + 1)
    config: dict[str, Any] = {
        "model": base_name,
        "fine_tune_type": "lora",
        "num_layers": layers,
        "lora_parameters": {"rank": adapter.rank, "scale": 1.0, "dropout": 0.0, "keys": list(keys)},
    }
    tensors = {
        f"{module}.lora_{letter}": np.ascontiguousarray(factor.T)
        for module, factors in adapter.factors.items()
        for letter, factor in zip("ab", factors, strict=True)
    }
    save_file(tensors, folder / MLX_NAME)
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2), "utf-8")
