"""Batches: a pure function of seed, epoch and number; whole, of like length, padded no further than they must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynlora.engine.data.batches import (
    MULTIPLE,
    POOL,
    BatchOrder,
    Tokens,
    epoch_batches,
    padded_tokens,
    padded_width,
    sorted_batches,
    tokenize,
)
from dynlora.engine.data.text_data import Rows
from dynlora.tasks.classification import Classification
from tests.tiny import tiny_tokenizer

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80).map(np.array)


def tokens_of(lengths: list[int]) -> Tokens:
    """Return rows of these lengths, row i filled with i + 1."""
    features = [{"input_ids": [i + 1] * n, "attention_mask": [1] * n} for i, n in enumerate(lengths)]
    label = np.arange(len(lengths), dtype=np.int64)
    return Tokens(features, label, np.array(lengths), {"input_ids": 9, "attention_mask": 0})


@given(LENGTHS, st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_is_whole_batches_of_different_rows(length: np.ndarray, size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(length, size, seed, epoch)
    assert all(len(batch) == size for batch in batches)
    seen = np.concatenate(batches)
    if len(length) >= size:
        assert len(batches) == len(length) // size
        assert len(set(seen.tolist())) == len(seen)
    else:
        assert len(batches) == 1
        assert set(seen.tolist()) == set(range(len(length)))


@given(LENGTHS, st.integers(1, 9), st.integers(0, 5), st.lists(st.integers(0, 60), min_size=1, max_size=12))
def test_a_batch_is_a_function_of_its_number_alone(
    length: np.ndarray, size: int, seed: int, numbers: list[int]
) -> None:
    """Asked in any order, of any object: a resume in the middle of an epoch sees what an unbroken run sees."""
    order = BatchOrder(length, size, seed)
    for number in numbers:
        epoch, position = divmod(number, order.per_epoch)
        expected = epoch_batches(length, size, seed, epoch)[position]
        np.testing.assert_array_equal(order[number], expected)
        np.testing.assert_array_equal(BatchOrder(length, size, seed)[number], expected)


def test_epochs_and_seeds_differ() -> None:
    length = np.arange(1, 101)
    rows = {
        (seed, epoch): np.concatenate(epoch_batches(length, 10, seed, epoch)).tolist()
        for seed in range(3)
        for epoch in range(3)
    }
    assert len({tuple(order) for order in rows.values()}) == 9


def test_global_random_state_is_neither_read_nor_moved() -> None:
    length = np.arange(1, 50)
    np.random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # pyright: ignore
    first = np.concatenate(epoch_batches(length, 5, 0, 0))
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # pyright: ignore
    np.random.seed(2)
    np.testing.assert_array_equal(first, np.concatenate(epoch_batches(length, 5, 0, 0)))


def test_rows_of_a_batch_are_of_like_length() -> None:
    length = np.random.default_rng(0).integers(1, 129, 3000)
    grouped = sum(padded_tokens(length, batch) for batch in epoch_batches(length, 16, 0, 0))
    shuffled = np.random.default_rng(1).permutation(3000)[: 3000 // 16 * 16].reshape(-1, 16)
    assert grouped < 0.65 * sum(padded_tokens(length, batch) for batch in shuffled)
    assert POOL * 16 < 3000, "more than one pool"


def test_rows_left_over_get_their_turn_in_other_epochs() -> None:
    length = np.full(23, 5)
    seen = {row for epoch in range(12) for batch in epoch_batches(length, 10, 0, epoch) for row in batch.tolist()}
    assert seen == set(range(23))


@given(LENGTHS, st.integers(1, 20))
def test_evaluation_sees_every_row_once_longest_first(length: np.ndarray, size: int) -> None:
    batches = list(sorted_batches(length, size))
    rows = np.concatenate(batches)
    assert sorted(rows.tolist()) == list(range(len(length)))
    assert (np.diff(length[rows]) <= 0).all()
    assert all(len(batch) == size for batch in batches[:-1])


@pytest.mark.parametrize(("lengths", "width"), [([1], 8), ([8, 3], 8), ([9, 3], 16), ([0], 8), ([17, 40], 40)])
def test_widths_are_multiples(lengths: list[int], width: int) -> None:
    assert padded_width(np.array(lengths), range(len(lengths))) == width
    assert width % MULTIPLE == 0
    assert padded_tokens(np.array(lengths), range(len(lengths))) == width * len(lengths)


def test_padding_stands_behind_and_is_masked() -> None:
    batch = tokens_of([3, 5, 2]).batch([2, 0])
    assert batch["input_ids"].tolist() == [[3, 3, 9, 9, 9, 9, 9, 9], [1, 1, 1, 9, 9, 9, 9, 9]]
    assert batch["attention_mask"].sum(1).tolist() == [2, 3]
    assert batch["labels"].tolist() == [2, 0]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64


@pytest.mark.parametrize("segments", [True, False])
def test_texts_become_tokens(segments: bool) -> None:
    tokenizer = tiny_tokenizer(segments)
    rows = Rows(["great film", "awful " * 30], None, np.array([1, 0]), None)
    tokens = tokenize(tokenizer, rows, 12, Classification(("a", "b")))
    assert tokens.length.tolist() == [4, 12]
    assert tokens.features[0]["input_ids"] == tokenizer("great film")["input_ids"]
    assert tokens.features[1]["input_ids"][-1] == tokenizer.sep_token_id
    assert tokens.pad["input_ids"] == tokenizer.pad_token_id
    assert ("token_type_ids" in tokens.pad) == segments


def test_pairs_are_cut_together_and_told_apart() -> None:
    rows = Rows(["great " * 20, "a"], ["dull " * 20, "the end"], np.array([1, 0]), None)
    tokens = tokenize(tiny_tokenizer(True), rows, 15, Classification(("a", "b")))
    assert tokens.length.tolist() == [15, 6]
    assert set(tokens.features[0]["token_type_ids"]) == {0, 1}


def test_texts_are_cut_where_the_tokenizer_ends() -> None:
    rows = Rows(["great " * 500], None, np.array([1]), None)
    assert tokenize(tiny_tokenizer(True), rows, 8192, Classification(("a", "b"))).length.tolist() == [64]
