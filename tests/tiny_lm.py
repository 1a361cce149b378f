"""Tiny random decoders with a tokenizer of bytes, and texts that they can learn to write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.contracts import overridden
from dynlora.contracts.harness import tiny_decoder
from dynlora.contracts.tiny_runs import byte_tokenizer

DECODERS = ("llama", "qwen2", "gpt2", "gemma", "mistral")


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
