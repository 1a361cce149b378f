"""Tiny random transformers with a word tokenizer as model folders, and a small text that can be learned from."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.config import RunConfig, parse_config
from dynlora.contracts import overridden

GOOD = ("great", "lovely", "superb")
BAD = ("awful", "dull", "broken")
PLAIN = ("the", "a", "film", "story", "was", "is", "and", "very", "plot", "cast", "music", "end")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = (*SPECIAL, *GOOD, *BAD, *PLAIN)
WIDTH = 32


def save_tiny(architecture: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny random `bert`, `distilbert`, `llama` or `gpt2` with its tokenizer as a safetensors folder."""
    import torch
    import transformers

    common: dict[str, Any] = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, "initializer_range": 0.1}
    causal = {**common, "bos_token_id": 2, "eos_token_id": 3}
    layers: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": WIDTH}
    small = {"intermediate_size": 48, "max_position_embeddings": 64}
    configs: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
        "bert": lambda: transformers.BertConfig(**layers, **small, **common),
        "distilbert": lambda: transformers.DistilBertConfig(
            dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=64, **common
        ),
        "llama": lambda: transformers.LlamaConfig(**layers, **small, num_key_value_heads=1, **causal),
        "gpt2": lambda: transformers.GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, n_positions=64, **causal),
    }
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(configs[architecture]())
    model.save_pretrained(folder)
    tiny_tokenizer(architecture == "bert").save_pretrained(folder)
    return folder


def tiny_tokenizer(segments: bool) -> Any:
    """Return a tokenizer of whole words: [CLS] text [SEP] and, for pairs, text [SEP]."""
    import tokenizers
    import transformers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    words = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    words.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=names,
    )


def tiny_rows(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return rows text, label (good or bad) and domain (short or long); the words tell the label."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        label, domain = str(rng.choice(["bad", "good"])), str(rng.choice(["short", "long"]))
        count = int(rng.integers(2, 5) if domain == "short" else rng.integers(6, 11))
        telling = rng.choice(GOOD if label == "good" else BAD, size=count - count // 3)
        words = rng.permutation([*telling, *rng.choice(PLAIN, size=count // 3)])
        rows.append({"text": " ".join(map(str, words)), "label": label, "domain": domain})
    return rows


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV, the keys of the first as its header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def save_data(folder: Path) -> Path:
    """Write train.csv (200 rows) and validation.csv (80 rows) and return their folder."""
    write_csv(folder / "train.csv", tiny_rows(200, seed=1))
    write_csv(folder / "validation.csv", tiny_rows(80, seed=2))
    return folder


def tiny_values(model: Path, data: Path, **overrides: Any) -> dict[str, Any]:
    """Return the plain values of a 20-step run; `train__lr=1` sets train.lr, `seed=3` sets seed."""
    values: dict[str, Any] = {
        "model": {"name": str(model)},
        "data": {"path": str(data), "max_length": 16},
        "adapter": {"rank": 2},
        "train": {"steps": 20, "batch_size": 8, "lr": 2e-2, "precision": "fp32"},
        "log": {"every": 5, "eval_every": 10},
    }
    return overridden(values, overrides)


def tiny_config(model: Path, data: Path, **overrides: Any) -> RunConfig:
    """Return the config of a 20-step run; see `tiny_values`.

    It has a checkpoint every ten steps; one every other step, the usual tenth, takes a sixth of a short run's time.
    """
    values = tiny_values(model, data, **overrides)
    if values["train"].get("steps", 0) <= 100:
        values["log"].setdefault("checkpoint_every", 10)
    return parse_config(values)


def tiny_arguments(model: Path, data: Path, *overrides: str) -> list[str]:
    """Return the same as `--set` arguments of the command line; later ones win."""
    sets = [f"{s}.{k}={v}" for s, values in tiny_values(model, data).items() for k, v in values.items()]
    return [part for item in (*sets, *overrides) for part in ("--set", item)]
