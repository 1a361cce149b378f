"""A small decoder trained here on made-up text, and random facts for it to learn: seeded, nothing downloaded.

The language has 64 symbols. A line is text of an order-one grammar, and half of the lines say a part of themselves
again, so that the decoder learns to look back. Facts are keys and values of two symbols each, drawn at random: 12
bits each, which no rule predicts.
"""

from __future__ import annotations

import json
import string
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models
from torch.nn import functional as F

from dynlora.engine.randomness import stream, stream_seed

SYMBOLS = string.ascii_letters + string.digits + "+/"
END, PAD = "<|end|>", "<|pad|>"
KEY, VALUE = 2, 2
BITS = VALUE * float(np.log2(len(SYMBOLS)))
"""Entropy of one value."""

WIDTH, INNER, LAYERS, HEADS = 32, 96, 4, 2
"""Sizes of the decoder; a component of an MLP module costs exactly two of an attention module."""

LINE, LINES = 24, 64
FOLLOWERS = 6
"""Symbols that may follow a symbol in the grammar."""


def tokenizer() -> Any:
    """Return a tokenizer with one token for each symbol."""
    vocabulary = {token: index for index, token in enumerate([END, PAD, *SYMBOLS])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.add_special_tokens([END, PAD])
    made.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=END,
        pad_token=PAD,
        model_max_length=LINE,
        model_input_names=["input_ids", "attention_mask"],
    )


def decoder() -> Any:
    """Return the decoder before training."""
    torch.manual_seed(stream_seed(0, "fact memory", "decoder"))
    return transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(
            vocab_size=len(SYMBOLS) + 2,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=LINE,
            eos_token_id=0,
            pad_token_id=1,
            bos_token_id=None,
            tie_word_embeddings=True,
            initializer_range=0.1,
        )
    )


def grammar() -> torch.Tensor:
    """Return which symbols follow which, (64, FOLLOWERS)."""
    draw = torch.rand(len(SYMBOLS), len(SYMBOLS), generator=stream(0, "fact memory", "grammar"))
    return draw.topk(FOLLOWERS).indices


def lines(step: int, follows: torch.Tensor) -> torch.Tensor:
    """Return one batch of text as tokens, (LINES, LINE)."""
    draw = stream(0, "fact memory", "text", step)
    text = torch.randint(len(SYMBOLS), (LINES, LINE), generator=draw)
    choice = torch.randint(FOLLOWERS, (LINES, LINE), generator=draw)
    for place in range(1, LINE):
        text[:, place] = follows[text[:, place - 1], choice[:, place]]
    half = LINES // 2
    text[:half, LINE // 2 :] = text[:half, : LINE // 2]
    return text + 2


def saved_decoder(folder: Path, steps: int) -> Path:
    """Train the decoder if `folder` does not hold it, and return the folder."""
    if (folder / "made.json").is_file():
        return folder
    model, follows, start = decoder(), grammar(), time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    loss = torch.zeros(())
    for step in range(steps):
        text = lines(step, follows)
        logits = model(input_ids=text[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    made = {"steps": steps, "loss": round(loss.item(), 4), "seconds": round(time.perf_counter() - start, 1)}
    (folder / "made.json").write_text(json.dumps(made), "utf-8")
    return folder


def saved_facts(folder: Path, n: int, seed: int) -> Path:
    """Write facts for a seed, the same for training and for judging, and return their folder."""
    rng = np.random.default_rng(stream_seed(seed, "fact memory", "facts"))
    keys = rng.choice(len(SYMBOLS) ** KEY, size=n, replace=False)
    values = rng.integers(len(SYMBOLS) ** VALUE, size=n)
    rows = (
        json.dumps({"prompt": spelled(key, KEY), "completion": spelled(value, VALUE)}) + "\n"
        for key, value in zip(keys.tolist(), values.tolist(), strict=True)
    )
    text = "".join(rows)
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("train", "validation"):
        (folder / f"{side}.jsonl").write_text(text, "utf-8")
    return folder


def spelled(number: int, length: int) -> str:
    """Return a number as that many symbols."""
    found = ""
    for _ in range(length):
        number, symbol = divmod(number, len(SYMBOLS))
        found += SYMBOLS[symbol]
    return found
