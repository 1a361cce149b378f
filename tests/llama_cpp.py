"""The real llama.cpp: logits of a model in GGUF with and without a LoRA, and a small random Llama written as GGUF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dynlora.inference.forms.gguf import BLOCK
from dynlora.peft_adapter.uniform import Update


@contextmanager
def _loaded(base: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Lend the library and a model."""
    from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

    ffi, lib = get_ffi(), cast("Any", get_lib())
    quiet = ffi.callback("void(enum ggml_log_level, const char *, void *)", lambda level, text, data: None)
    lib.llama_log_set(quiet, ffi.NULL)
    lib.llama_backend_init()
    params = lib.llama_model_default_params()
    params.use_extra_bufts = False  # as the file holds the numbers, not repacked for the processor
    model = lib.llama_model_load_from_file(str(base).encode(), params)
    assert model != ffi.NULL, f"llama.cpp does not load {base}"
    try:
        yield ffi, lib, model
    finally:
        lib.llama_model_free(model)


def logits(base: Path, tokens: Sequence[int], lora: Path | None = None) -> NDArray[np.float32]:
    """Return what llama.cpp gives after each token, (n, vocabulary).

    Args:
        base: model in GGUF.
        tokens: ids of one text.
        lora: adapter in GGUF, or none.
    """
    with _loaded(base) as (ffi, lib, model):
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(32, len(tokens))
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0  # fp32
        params.flash_attn_type = 0  # which computes in half precision
        context = lib.llama_init_from_model(model, params)
        if lora is not None:
            adapter = lib.llama_adapter_lora_init(model, str(lora).encode())
            assert adapter != ffi.NULL, f"llama.cpp does not load {lora}"
            lib.llama_set_adapters_lora(
                context, ffi.new("struct llama_adapter_lora *[]", [adapter]), 1, ffi.new("float[]", [1.0])
            )
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, 1
        assert lib.llama_decode(context, batch) == 0
        vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        rows = [
            np.frombuffer(ffi.buffer(lib.llama_get_logits_ith(context, place), 4 * vocabulary), np.float32).copy()
            for place in range(len(tokens))
        ]
        lib.llama_batch_free(batch)
        lib.llama_free(context)
    return np.stack(rows)


def write_base(state: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any], path: Path) -> None:
    """Write the weights of a transformers Llama as GGUF in fp32, without a tokenizer."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    blocks = BLOCK | {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for name, values in state.items():
        module = name.removesuffix(".weight")
        if module in outer:
            writer.add_tensor(f"{outer[module]}.weight", values)
            continue
        _, _, layer, block = module.split(".", 3)
        writer.add_tensor(f"blk.{layer}.{blocks[block]}.weight", in_gguf_order(values, block, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_as_its_converter(updates: Mapping[str, Update], alpha: float, config: Mapping[str, Any], path: Path) -> None:
    """Write what llama.cpp's convert_lora_to_gguf.py makes of an export as trained: true ranks, and one alpha.

    Args:
        updates: by module.
        alpha: `lora_alpha` of the adapter's configuration.
        config: of the base model.
        path: of the new file.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, (lora_A, lora_B, _) in updates.items():
        if len(lora_A):
            layer, block = name.removeprefix("model.layers.").split(".", 1)
            tensor = f"blk.{layer}.{BLOCK[block]}.weight"
            writer.add_tensor(f"{tensor}.lora_a", np.ascontiguousarray(lora_A, np.float32))
            writer.add_tensor(
                f"{tensor}.lora_b", np.ascontiguousarray(in_gguf_order(lora_B, block, config), np.float32)
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_gguf_order(values: NDArray[np.float32], block: str, config: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return a weight's rows as llama.cpp's converter orders them: of queries and keys by pairs of a head."""
    if not block.endswith(("q_proj", "k_proj")):
        return values
    heads = config["num_attention_heads" if block.endswith("q_proj") else "num_key_value_heads"]
    return np.ascontiguousarray(values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape))
