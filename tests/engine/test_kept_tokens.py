"""Tokens that were made ahead are those that would be made; anything they depend on makes them others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynlora.engine.data import packing
from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.text_data import TextData
from dynlora.engine.model.base_model import load_tokenizer
from dynlora.training.inputs import read_data
from tests.tiny import tiny_config

LENGTH = 16


pytestmark = pytest.mark.usefixtures("no_kept_tokens")


@pytest.fixture
def data(tiny_bert: Path, tiny_data: Path) -> TextData:
    return read_data(tiny_config(tiny_bert, tiny_data))


def same(one: Tokens, other: Tokens) -> bool:
    """Say whether two sides have the same tokens and labels."""
    return one.features == other.features and np.array_equal(one.label, other.label) and one.pad == other.pad


def test_what_was_made_is_found_by_another_tokenizer_of_the_same_folder(tiny_bert: Path, data: TextData) -> None:
    fresh = packing.encoded(load_tokenizer(tiny_bert), data, "train", LENGTH)
    maker = load_tokenizer(tiny_bert)
    for side in ("train", "held_out"):
        packing.make(maker, data, side, LENGTH)
    asker = load_tokenizer(tiny_bert)
    asker("some text", truncation=True, max_length=3)  # leaves its limit in the tokenizer
    tokens = packing.encoded(asker, data, "train", LENGTH)
    assert tokens is packing.encoded(load_tokenizer(tiny_bert), data, "train", LENGTH)
    assert same(tokens, fresh)
    assert tokens is not packing.encoded(asker, data, "held_out", LENGTH)


@pytest.mark.parametrize("other", ["length", "rows", "task", "tokenizer", "padding"])
def test_whatever_is_different_makes_other_tokens(tiny_bert: Path, data: TextData, other: str) -> None:
    packing.make(load_tokenizer(tiny_bert), data, "train", LENGTH)
    kept = packing.encoded(load_tokenizer(tiny_bert), data, "train", LENGTH)
    tokenizer: Any = load_tokenizer(tiny_bert)
    length, wanted = LENGTH, data
    if other == "length":
        length = 4
    elif other == "rows":
        wanted = replace(data, train=data.train.take(np.arange(5)), digest="of the five")
    elif other == "task":
        wanted = replace(data, task=replace(data.task, labels=("b", "a")))  # pyright: ignore[reportCallIssue]
    elif other == "tokenizer":
        tokenizer.add_tokens(["film"])
    else:
        tokenizer.pad_token_id = 3
    assert packing.encoded(tokenizer, wanted, "train", length) is not kept


def test_what_failed_ahead_is_tried_again(tiny_bert: Path, data: TextData, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Tokens:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(packing, "tokenize", fail)
        packing.make(load_tokenizer(tiny_bert), data, "train", LENGTH)
        with pytest.raises(MemoryError):
            packing.encoded(load_tokenizer(tiny_bert), data, "train", LENGTH)
    assert len(packing.encoded(load_tokenizer(tiny_bert), data, "train", LENGTH)) == len(data.train)
