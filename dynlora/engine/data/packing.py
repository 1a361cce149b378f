"""Several texts in one sequence, so that little of a batch is padding; each text still sees itself only.

A packed row has no attention mask: its positions start again at 0 with every text, and from these transformers makes a
block-diagonal causal mask. The first token of a text has no label, as nothing of its own text is before it. Padding has
position 0 throughout, so that each padding token is a text of its own.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, insort
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from dynlora.engine.data.batches import Tokens, tokenize
from dynlora.engine.data.text_data import TextData
from dynlora.errors import ConfigError

_kept: dict[str, Future[Tokens]] = {}


def encoded(tokenizer: PreTrainedTokenizerBase, data: TextData, side: str, max_length: int) -> Tokens:
    """Return the rows of a side, train or held_out, as tokens: those that are kept or being made, else new ones."""
    if _kept and (tokens := _kept.get(_key(tokenizer, data, side, max_length))) is not None:
        with suppress(Exception):  # what failed is tried again, and its error told where it is asked for
            return tokens.result()
    return tokenize(tokenizer, getattr(data, side), max_length, data.task)


def make(tokenizer: PreTrainedTokenizerBase, data: TextData, side: str, max_length: int) -> None:
    """Make the tokens of a side and keep them for `encoded`; whoever asks meanwhile waits for them."""
    key = _key(tokenizer, data, side, max_length)
    if key in _kept:
        return
    _kept[key] = made = Future[Tokens]()
    try:
        made.set_result(tokenize(tokenizer, getattr(data, side), max_length, data.task))
    except Exception as error:
        made.set_exception(error)


def forget() -> None:
    """Keep nothing."""
    _kept.clear()


def _key(tokenizer: PreTrainedTokenizerBase, data: TextData, side: str, max_length: int) -> str:
    """Return what the tokens of a side depend on; a tokenizer that cannot be written down is one object."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole: Any = id(tokenizer)
    if backend is not None:  # how it cuts and pads is what its last caller set, and is set again by each
        written = json.loads(backend.to_str())
        whole = {name: part for name, part in written.items() if name not in ("truncation", "padding")}
    parts = [
        data.digest,
        side,
        repr(data.task),
        min(max_length, tokenizer.model_max_length),
        type(tokenizer).__name__,
        tokenizer.pad_token_id,
        tokenizer.pad_token_type_id,
        tokenizer.special_tokens_map,
        tokenizer.model_input_names,
        tokenizer.chat_template,
        whole,
    ]
    return hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()


def pack(tokens: Tokens, width: int) -> Tokens:
    """Return texts packed into sequences of at most `width` tokens, the longest first, each where it fits best.

    Args:
        tokens: with a label for each token, none longer than `width`.
        width: most tokens of a sequence.
    """
    made: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is free in each sequence that is not full, and which it is; ascending
    for row in np.argsort(-tokens.length, kind="stable").tolist():
        length = int(tokens.length[row])
        index = bisect_left(room, (length, -1))
        if index == len(room):
            made.append([row])
            free, sequence = width - length, len(made) - 1
        else:
            free, sequence = room.pop(index)
            made[sequence].append(row)
            free -= length
        if free:
            insort(room, (free, sequence))
    return _joined(tokens, made)


def _joined(tokens: Tokens, made: list[list[int]]) -> Tokens:
    """Return the rows of each sequence one after the other."""
    features, targets = [], []
    labels = tokens.targets or []
    for rows in made:
        ids = [token for row in rows for token in tokens.features[row]["input_ids"]]
        positions = [position for row in rows for position in range(int(tokens.length[row]))]
        features.append({"input_ids": ids, "position_ids": positions})
        targets.append([label for row in rows for label in labels[row]])
    counts = np.array([tokens.label[rows].sum() for rows in made], dtype=np.int64)
    lengths = np.array([len(feature["input_ids"]) for feature in features])
    pad = {"input_ids": tokens.pad["input_ids"], "position_ids": 0}
    return Tokens(features, counts, lengths, pad, targets, tokens.notes)


@torch.no_grad()
def check_packing(model: nn.Module) -> None:
    """Refuse a model that lets the texts of one sequence see each other; found out by trying.

    Raises:
        ConfigError: naming the model and the remedy.
    """
    device = next(model.parameters()).device
    one, other = torch.tensor([[5, 6, 7]], device=device), torch.tensor([[6, 5, 4, 3]], device=device)
    both, places = torch.cat([one, other], 1), torch.tensor([[0, 1, 2, 0, 1, 2, 3]], device=device)
    training = model.training
    model.eval()
    try:
        apart = torch.cat([model(input_ids=one).logits, model(input_ids=other).logits], 1)
        packed = model(input_ids=both, position_ids=places, use_cache=False).logits
    except TypeError:  # it has no positions to be given
        packed = apart = None
    finally:
        model.train(training)
    scale = 0.0 if apart is None else float(apart.float().abs().max())
    if packed is None or apart is None or float((packed - apart).float().abs().max()) > TOLERANCE * scale:
        raise ConfigError(
            f"data.packing=true: in {type(model).__name__} the texts of one sequence would see each other; set it to "
            "false"
        )


TOLERANCE = 0.02
"""Largest difference that rounding makes, of the largest logit; texts that see each other differ by far more."""
