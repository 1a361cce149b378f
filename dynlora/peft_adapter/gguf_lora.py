"""An adapter as GGUF, which llama.cpp and Ollama load beside a base model in GGUF.

llama.cpp scales each update by alpha / the rank of its tensor, so the adapter is given in the uniform form, where this
is 1. Names are those of the base model's tensors in GGUF; the rows of B of queries and keys are in GGUF's order of a
head's rows, as its converter of the base model turns them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dynlora.errors import NotMergeableError
from dynlora.peft_adapter.adapter_config import CONFIG_NAME
from dynlora.peft_adapter.read import MLX_NAME
from dynlora.peft_adapter.uniform import UniformAdapter, split_names
from dynlora.text import printable


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


GGUF_NAME = "adapter.gguf"

ARCHITECTURES = {"llama": "llama", "mistral": "llama"}
"""GGUF's architecture by `model_type` of transformers."""

BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Names of a block's modules in transformers -> in GGUF."""


def check_gguf(base: Mapping[str, Any], modules: Mapping[str, Any]) -> None:
    """Refuse what cannot be written as GGUF.

    Args:
        base: `config.json` of the base model.
        modules: with an adapter, by name.

    Raises:
        NotMergeableError: for another architecture, or modules outside of its blocks.
    """
    kind = str(base.get("model_type"))
    if kind not in ARCHITECTURES:
        raise NotMergeableError(
            f"--format gguf: the base model is of type {kind[:60]}, not {' or '.join(ARCHITECTURES)}; "
            "use --format merged and convert the model with llama.cpp's convert_hf_to_gguf.py"
        )
    for name, (_, layer, block) in split_names(modules).items():
        if layer is None or block not in BLOCK:
            raise NotMergeableError(
                f"--format gguf: module {name[:200]} is not one of {', '.join(BLOCK)} in a block; use --format merged"
            )


def write_gguf(adapter: UniformAdapter, base: Mapping[str, Any], path: Path, name: str) -> None:
    """Write an adapter as a GGUF LoRA.

    Args:
        adapter: in the uniform form.
        base: `config.json` of the base model.
        path: of the new file.
        name: of the adapter, for people.

    Raises:
        NotMergeableError: as `check_gguf` does.
    """
    from gguf import GGUFWriter

    check_gguf(base, adapter.factors)
    writer = GGUFWriter(path, ARCHITECTURES[base["model_type"]])
    writer.add_type("adapter")
    writer.add_name(printable(name, 200))
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(adapter.rank))
    for module, (_, layer, block) in split_names(adapter.factors).items():
        lora_A, lora_B = adapter.factors[module]
        tensor = f"blk.{layer}.{BLOCK[block]}.weight"
        writer.add_tensor(f"{tensor}.lora_a", np.ascontiguousarray(lora_A, np.float32))
        writer.add_tensor(f"{tensor}.lora_b", np.ascontiguousarray(_rows(lora_B, block, base), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rows(lora_B: NDArray[Any], block: str, base: Mapping[str, Any]) -> NDArray[Any]:
    """Return the rows of B in GGUF's order: of queries and keys, a head's two halves are interleaved."""
    if not block.endswith(("q_proj", "k_proj")):
        return lora_B
    heads = base.get("num_attention_heads")
    if block.endswith("k_proj"):
        heads = base.get("num_key_value_heads") or heads
    if type(heads) is not int or heads < 1 or len(lora_B) % (2 * heads):
        raise NotMergeableError(
            f"--format gguf: {len(lora_B)} rows of {block} are not whole heads of the base model, which has "
            f"{printable(heads)}; give the adapter's own base with --base"
        )
    return lora_B.reshape(heads, 2, -1, lora_B.shape[1]).swapaxes(1, 2).reshape(lora_B.shape)
