"""Tokens that were made before a run or a check asked for them; a process keeps them as long as it lives.

They are found again by all that they depend on: rows, task, tokenizer and the longest text. A file that was changed
meanwhile is other rows, and so other tokens.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from transformers import PreTrainedTokenizerBase

from dynlora.engine.data.batches import Tokens, tokenize
from dynlora.engine.data.text_data import TextData

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
