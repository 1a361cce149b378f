"""An adapter as GGUF, which llama.cpp and Ollama load beside a base model in GGUF.

llama.cpp scales each update by alpha / the rank of its tensor, so the adapter is given in the uniform form, where this
is 1. Names are those of the base model's tensors in GGUF; the rows of B of queries and keys are in GGUF's order of a
head's rows, as its converter of the base model turns them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dynlora.errors import ConfigError, NotMergeableError
from dynlora.inference.forms import UNIFORM, Form
from dynlora.peft_adapter.loaded_adapter import base_config
from dynlora.peft_adapter.uniform import UniformAdapter, split_names
from dynlora.text import printable

if TYPE_CHECKING:
    from dynlora.engine.evaluation.export import AdapterFacts
    from dynlora.engine.evaluation.inference import AdaptedModel
    from dynlora.peft_adapter.loaded_adapter import LoadedAdapter


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


class Gguf(Form):
    """One file, beside a base model in GGUF."""

    name, order, format, ranks = "gguf", 20, "gguf", UNIFORM
    engines, goes_to = ("llama.cpp",), "llama.cpp"
    help = "The adapter as GGUF, beside a base model in GGUF; for Llama models."
    is_adapter, library = True, "llama.cpp"

    def suits(self, *, generates: bool) -> bool:
        """It is for models that write texts."""
        return generates

    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Write the adapter in the uniform form."""
        from dynlora.engine.evaluation.export import uniform_adapter

        adapter = uniform_adapter(model)
        if facts.blocks is not None or model.base.head:
            what = "a trained head" if model.base.head else "some blocks of its base model only"
            raise NotMergeableError(
                f"--format gguf: the adapter has {what}, which GGUF does not hold; use --format merged"
            )
        base = model.base.model.config.to_dict()
        check_gguf(base, adapter.factors)
        folder.mkdir(parents=True, exist_ok=True)
        write_gguf(adapter, base, folder / GGUF_NAME, facts.title)

    def convert(self, adapter: LoadedAdapter, folder: Path, base: str, title: str) -> dict[str, Any]:
        """Write the adapter in the uniform form; the base model's config.json must be on this machine."""
        adapter.check_nothing_else(self.format)
        whole, written = adapter.uniform(base)
        config = base_config(base)
        if config is None:
            raise ConfigError(
                f"--base: the base model {base[:200] or 'of the adapter'} is not on this machine, and --format gguf "
                "needs its config.json; give the folder that holds it"
            )
        write_gguf(whole, config, folder / GGUF_NAME, title)
        return written

    def commands(self, base: str, word: str, rank: int) -> list[str]:
        """Return that of llama.cpp."""
        return [f"llama-server -m BASE.gguf --lora {GGUF_NAME}  # BASE.gguf: {base} in GGUF"]


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
