"""A tiny random Llama with a byte-level tokenizer as a GGUF file, and the package it comes in."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.assets import gguf_llama
from dynlora.assets.catalog import EmbeddedModel
from dynlora.assets.hub import sha256_of
from tests.packages_on_disk import pin_for, sha256, wheel_bytes

NAME = "tiny-llama"
GGUF = "tiny.Q4_1.gguf"
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("Ġ t", "h e", "Ġt he", "Ġ Ġ", "i n")
LAYERS, WIDTH, HEADS, KV_HEADS, INNER = 2, 64, 4, 2, 96


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Of the shape that the real one has."""


def save_tiny_gguf(path: Path, *, seed: int = 0, **facts: Any) -> Path:
    """Write a GGUF file: matrices in Q4_1, the embedding in Q8_0, norms in float32, as in the real one.

    Args:
        path: File to write.
        seed: Of the weights.
        facts: `architecture`, `tokenizer`, `splitter`, `extra` (name of one more tensor), `layers` (told, not
            written) and `norm` (mean of the norms' weights), where they should differ.
    """
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    writer = gguf.GGUFWriter(path, facts.get("architecture", "llama"))
    writer.add_block_count(facts.get("layers", LAYERS))
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = [*CONTROL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model(facts.get("tokenizer", "gpt2"))
    writer.add_tokenizer_pre(facts.get("splitter", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in CONTROL else 1 for token in tokens])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    rng = np.random.default_rng(seed)
    for name, shape in _shapes(len(tokens)).items():
        values = rng.normal(facts.get("norm", 1.0) if len(shape) == 1 else 0.0, 0.1, shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if name.startswith("token") else gguf.GGMLQuantizationType.Q4_1
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    if extra := facts.get("extra"):
        writer.add_tensor(extra, np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    key_width = WIDTH // HEADS * KV_HEADS
    block: dict[str, tuple[int, ...]] = {
        "attn_norm": (WIDTH,),
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (key_width, WIDTH),
        "attn_v": (key_width, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_norm": (WIDTH,),
        "ffn_gate": (INNER, WIDTH),
        "ffn_up": (INNER, WIDTH),
        "ffn_down": (WIDTH, INNER),
    }
    layers = {f"blk.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in block.items()}
    return {"token_embd.weight": (vocabulary, WIDTH), **layers, "output_norm.weight": (WIDTH,)}


def embedded_gguf(data: bytes) -> tuple[bytes, EmbeddedModel]:
    """Return a wheel that holds a GGUF file, and the catalogue's entry for it."""
    wheel = wheel_bytes({f"tiny/{GGUF}": data})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / GGUF).write_bytes(data)
        gguf_llama.convert(Path(folder) / GGUF, Path(folder))
        converted = {name: sha256_of(Path(folder) / name) for name in gguf_llama.FILES}
    return wheel, EmbeddedModel(
        name=NAME,
        hub_id="owner/tiny-llama",
        package=pin_for(wheel, {GGUF: sha256(data)}),
        licence="MIT",
        description="tiny",
        size=1,
        converted=converted,
    )
