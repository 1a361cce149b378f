"""Turn a Llama in GGUF into a plain transformers folder: config.json, model.safetensors and a tokenizer.

Every byte that is written follows from the GGUF file alone, not from the version of a library that happens to be
installed. So the result is pinned by digest, like files that are fetched as they are. That is also why neither torch
nor transformers is asked. transformers reads GGUF too, but 5.24 refuses to save what it has read, and its tokenizer
splits digits and spaces otherwise than the model was trained with.

De-quantised numbers are kept as float16: half the room of float32, and off from it by at most a 2000th of each number,
where the 4-bit rounding they come out of is off by up to a 30th of its block's range.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dynlora.errors import AssetError

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")
"""What `convert` writes."""

_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names in GGUF -> names in transformers."""

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SPLITTERS: Mapping[str, dict[str, Any]] = {
    "gpt-2": _BYTES,
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTES]},
}
"""How text is split before merging, by what GGUF calls it."""

_CHAT_TEMPLATE = "tokenizer.chat_template"
"""How a conversation is written down; models without one only continue texts."""

_CONTROL = 3
"""GGUF's type of a token that stands for no text."""


def convert(source: Path, target: Path) -> None:
    """Write the model in a GGUF file as a transformers folder.

    Args:
        source: The GGUF file: architecture llama, a byte-level BPE vocabulary.
        target: Existing folder; `FILES` are written into it.

    Raises:
        AssetError: The file is none that this can convert.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(source)
        facts = {name: field.contents() for name, field in reader.fields.items()}
        documents = {
            "config.json": _config(facts, is_tied=all(tensor.name != "output.weight" for tensor in reader.tensors)),
            "tokenizer.json": _tokenizer(facts),
            "tokenizer_config.json": _tokenizer_config(facts),
        }
        with (target / WEIGHTS).open("xb") as file:
            _write_weights(reader, documents["config.json"], file)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise AssetError(f"{source.name} is not a Llama in GGUF that can be converted ({error}): report it.") from error
    for name, document in documents.items():
        text = json.dumps(document, ensure_ascii=False, indent=None if name == "tokenizer.json" else 2)
        (target / name).write_text(text + "\n", encoding="utf-8")


def _config(facts: Mapping[str, Any], *, is_tied: bool) -> dict[str, Any]:
    """Return the config as transformers writes it for a Llama; what GGUF does not say is left to its defaults."""
    if facts["general.architecture"] != "llama":
        raise ValueError(f"its architecture is {facts['general.architecture']}")
    heads = facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": facts.get("llama.attention.head_count_kv", heads),
        "max_position_embeddings": facts["llama.context_length"],
        # GGUF holds these two in float32: the shortest number that rounds to it is the one that was meant.
        "rms_norm_eps": float(str(np.float32(facts["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": float(str(np.float32(facts.get("llama.rope.freq_base", 10_000.0)))),
        "hidden_act": "silu",
        "tie_word_embeddings": is_tied,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",  # to compute in: whoever does not ask for another gets what dynlora itself trains
    }


def _tokenizer(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokenizer as the library tokenizers reads it."""
    if facts["tokenizer.ggml.model"] != "gpt2" or facts.get("tokenizer.ggml.add_bos_token", False):
        raise ValueError("its tokenizer is not a byte-level BPE without a BOS token")
    if facts["tokenizer.ggml.pre"] not in _SPLITTERS:
        raise ValueError(f"its tokenizer splits text by {facts['tokenizer.ggml.pre']}")
    tokens = facts["tokenizer.ggml.tokens"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": tokens[index], **plain}
            for index, kind in enumerate(facts["tokenizer.ggml.token_type"])
            if kind == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": _SPLITTERS[facts["tokenizer.ggml.pre"]],
        "post_processor": None,
        "decoder": _BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in facts["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what transformers adds to the tokenizer: class, special tokens, longest text and chat template."""
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    tokens = facts["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": facts["llama.context_length"],
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        **{
            name: tokens[facts[f"tokenizer.ggml.{key}_token_id"]]
            for name, key in names.items()
            if f"tokenizer.ggml.{key}_token_id" in facts
        },
        **({"chat_template": facts[_CHAT_TEMPLATE]} if _CHAT_TEMPLATE in facts else {}),
    }


def _write_weights(reader: GGUFReader, config: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write all tensors as safetensors, one after the other: no more than one is in memory at a time.

    The format is written by hand, since its digest is pinned: a library may order or pad otherwise one day.
    """
    tensors = dict(sorted((_new_name(tensor.name), tensor) for tensor in reader.tensors))
    if missing := set(_expected(config)) ^ set(tensors):
        raise ValueError(f"its tensors are not those of a Llama: {', '.join(sorted(missing)[:3])}")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 2 * int(tensor.n_elements)
        shape = [int(size) for size in reversed(tensor.shape)]  # GGUF names the fastest dimension first
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name, tensor in tensors.items():
        file.write(_values(name, tensor, config).tobytes())


def _values(name: str, tensor: ReaderTensor, config: Mapping[str, Any]) -> np.ndarray:
    """Return a tensor's numbers as float16, rows of queries and keys in the order transformers has them in."""
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type)
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        # GGUF turns neighbouring rows into one another, transformers a head's first half into its second.
        values = values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    if not (np.abs(values) <= np.finfo(np.float16).max).all():
        raise ValueError(f"{name} has numbers beyond float16")
    return values.astype("<f2")


def _new_name(name: str) -> str:
    """Return a tensor's name in transformers.

    Raises:
        ValueError: It is no tensor of a Llama.
    """
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _BLOCK and parts[3] == "weight":
        return f"model.layers.{int(parts[1])}.{_BLOCK[parts[2]]}.weight"
    if len(parts) == 2 and parts[0] in _OUTER and parts[1] == "weight":
        return f"{_OUTER[parts[0]]}.weight"
    raise ValueError(f"it has a tensor {name}")


def _expected(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the tensors that a model of this config has."""
    for part in _OUTER.values():
        if part != "lm_head" or not config["tie_word_embeddings"]:
            yield f"{part}.weight"
    for layer in range(config["num_hidden_layers"]):
        yield from (f"model.layers.{layer}.{part}.weight" for part in _BLOCK.values())
