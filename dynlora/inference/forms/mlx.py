"""The adapter as mlx-lm loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from dynlora.errors import NotMergeableError
from dynlora.inference.forms import UNIFORM, Form
from dynlora.peft_adapter.adapter_config import CONFIG_NAME
from dynlora.peft_adapter.read import MLX_NAME
from dynlora.peft_adapter.uniform import UniformAdapter, split_names

if TYPE_CHECKING:
    from dynlora.engine.evaluation.export import AdapterFacts
    from dynlora.engine.evaluation.inference import AdaptedModel
    from dynlora.peft_adapter.loaded_adapter import LoadedAdapter


class Mlx(Form):
    """`adapters.safetensors` and `adapter_config.json` of mlx-lm."""

    name, order, format, ranks = "mlx", 40, "mlx", UNIFORM
    engines, goes_to = ("mlx",), "MLX"
    help = "The adapter as mlx-lm loads it."
    is_adapter, generates, library = True, True, "mlx"

    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Write the adapter in the uniform form, and the tokenizer."""
        from dynlora.engine.evaluation.export import save_texts, uniform_adapter

        adapter = uniform_adapter(model)
        folder.mkdir(parents=True, exist_ok=True)
        write_mlx(adapter, folder, facts.base_name)
        save_texts(model, folder)

    def convert(self, adapter: LoadedAdapter, folder: Path, base: str, title: str) -> dict[str, Any]:
        """Write the adapter in the uniform form."""
        adapter.check_nothing_else(self.format)
        whole, written = adapter.uniform(base)
        write_mlx(whole, folder, base)
        return written

    def commands(self, base: str, word: str, rank: int) -> list[str]:
        """Return that of mlx-lm."""
        prompt = json.dumps("Your text")
        return [f"mlx_lm.generate --model {base} --adapter-path {word} --prompt {prompt}"]


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
