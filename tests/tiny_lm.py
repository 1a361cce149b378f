"""Tiny random decoders with a tokenizer of bytes, and texts that they can learn to write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.contracts import overridden
from dynlora.contracts.harness import tiny_decoder

END, PAD, BEGIN = "<|end|>", "<|pad|>", "<|begin|>"

TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""A chat template that marks the assistant's turns, and writes a line break after the end of each."""

DECODERS = ("llama", "qwen2", "gpt2", "gemma", "mistral")


def byte_tokenizer(*, pad_is_end: bool = False, begins: bool = False, template: str | None = TEMPLATE) -> Any:
    """Return a tokenizer with a token for each byte.

    Args:
        pad_is_end: the padding token is the end token.
        begins: each text is preceded by a token of its own.
        template: of conversations.
    """
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([END, PAD, BEGIN, *letters])}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    made.add_special_tokens([END, PAD, BEGIN])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    if begins:
        made.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, vocabulary[BEGIN])]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=END,
        pad_token=END if pad_is_end else PAD,
        bos_token=BEGIN,
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.chat_template = template
    return tokenizer


def save_tiny_lm(folder: Path, architecture: str = "llama", **tokenizer: Any) -> Path:
    """Write a tiny decoder and its tokenizer as a folder."""
    tiny_decoder(architecture).save_pretrained(folder)
    byte_tokenizer(**tokenizer).save_pretrained(folder)
    return folder


def tiny_problems(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return rows prompt, completion, answer and difficulty: a letter said once or twice."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        letter, times = str(rng.choice(list("abc"))), int(rng.integers(1, 3))
        rows.append(
            {
                "prompt": f"{letter}{times}:",
                "completion": f"{letter * times} #### {times}",
                "answer": str(times),
                "difficulty": ("once", "twice")[times - 1],
            }
        )
    return rows


def save_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def save_problems(folder: Path) -> Path:
    """Write train.jsonl (120 rows) and validation.jsonl (40 rows) and return their folder."""
    save_lines(folder / "train.jsonl", tiny_problems(120, seed=1))
    save_lines(folder / "validation.jsonl", tiny_problems(40, seed=2))
    return folder


def lm_values(model: Path, data: Path, **overrides: Any) -> dict[str, Any]:
    """Return the plain values of a 12-step run; `train__lr=1` sets train.lr, `seed=3` sets seed."""
    values: dict[str, Any] = {
        "model": {"name": str(model)},
        "data": {"path": str(data), "max_length": 48},
        "adapter": {"rank": 4},
        "train": {"steps": 12, "batch_size": 8, "lr": 2e-2, "precision": "fp32"},
        "log": {"every": 5, "eval_every": 6, "generate_rows": 6, "generate_max": 12},
    }
    return overridden(values, overrides)
