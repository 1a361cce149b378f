"""Tiny random models of twenty architectures, made from their configs: two blocks, a width of 32, no dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import VOCABULARY, WIDTH, tiny_tokenizer
from tests.tiny_lm import byte_tokenizer

WORDS = 60
"""Tokens of a model that reads the harness's rows."""

PAD, BEGIN, END = 0, 1, 2

_BLOCKS: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
}
_STILL: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_T5: dict[str, Any] = {
    "d_model": WIDTH,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "dropout_rate": 0.0,
    "decoder_start_token_id": PAD,
    "initializer_factor": 1.0,
}
_GROUPED = {**_BLOCKS, "num_key_value_heads": 1}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {**_BLOCKS, **_STILL}),
    "roberta": ("RobertaConfig", {**_BLOCKS, **_STILL}),
    "distilbert": (
        "DistilBertConfig",
        {
            "dim": WIDTH,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 48,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "seq_classif_dropout": 0.0,
        },
    ),
    "deberta_v2": (
        "DebertaV2Config",
        {
            **_BLOCKS,
            **_STILL,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "pooler_dropout": 0.0,
        },
    ),
    "albert": ("AlbertConfig", {**_BLOCKS, "embedding_size": 16, "classifier_dropout_prob": 0.0}),
    "electra": ("ElectraConfig", {**_BLOCKS, **_STILL, "embedding_size": 16}),
    "modernbert": ("ModernBertConfig", {**_BLOCKS, "local_attention": 32}),
    "bart": (
        "BartConfig",
        {
            "d_model": WIDTH,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "decoder_start_token_id": END,
            "forced_eos_token_id": END,
        },
    ),
    "t5": ("T5Config", _T5),
    "umt5": ("UMT5Config", _T5),
    "gpt2": (
        "GPT2Config",
        {
            "n_embd": WIDTH,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 256,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", _BLOCKS),
    "llama": ("LlamaConfig", _GROUPED),
    "mistral": ("MistralConfig", _GROUPED),
    "mixtral": ("MixtralConfig", {**_GROUPED, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "gemma": ("GemmaConfig", {**_GROUPED, "head_dim": 16}),
    "phi": ("PhiConfig", _BLOCKS),
    "mamba": (
        "MambaConfig",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "state_size": 4,
            "expand": 2,
            "conv_kernel": 3,
            "time_step_rank": 4,
        },
    ),
}
"""Class of the config and what makes it tiny, by architecture."""

CLASSIFIERS = tuple(name for name in CONFIGS if name != "mamba")
"""Those that transformers can classify with."""

ENCODERS_THAT_WRITE = ("bert", "roberta", "electra")
"""Those that transformers puts a head for writing on although a token sees those after it."""

WRITERS = ("gpt2", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "gemma", "phi", "mamba", "bart")
"""Those that transformers can write with, a token seeing only those before it."""


def tiny_config_of(architecture: str, *, words: int = WORDS, **values: Any) -> Any:
    """Return the config of a tiny model; `values` replace its settings."""
    import transformers

    name, settings = CONFIGS[architecture]
    special = {"pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END, "vocab_size": words}
    return getattr(transformers, name)(**{"initializer_range": 0.1, **special, **settings, **values})


def tiny_classifier(architecture: str, seed: int = 0) -> Any:
    """Return a tiny random model with a new head for two classes."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = tiny_config_of(architecture, num_labels=2)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def tiny_writer(architecture: str, seed: int = 0) -> Any:
    """Return a tiny random model with its own head for writing."""
    import torch
    import transformers

    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(tiny_config_of(architecture))


def save_classifier(architecture: str, folder: Path, seed: int = 0, **values: Any) -> Path:
    """Write a tiny model without a head, and a tokenizer of words, as a folder."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = tiny_config_of(architecture, words=len(VOCABULARY), **{"bos_token_id": 2, "eos_token_id": 3, **values})
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tiny_tokenizer(architecture == "bert").save_pretrained(folder)
    return folder


def save_writer(architecture: str, folder: Path, seed: int = 0, **values: Any) -> Path:
    """Write a tiny model with its head for writing, and a tokenizer of bytes, as a folder."""
    import torch
    import transformers

    torch.manual_seed(seed)
    special = {"words": 259, "bos_token_id": 2, "eos_token_id": 0, "pad_token_id": 1}
    config = tiny_config_of(architecture, **{**special, **values})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
