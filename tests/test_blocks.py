"""Which blocks are used: one spelling for what people write, numbers and words from it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.blocks import in_words, numbers_of, parse_blocks, spans_of, spelled
from dynlora.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "stored", "numbers", "words"),
    [
        (None, None, None, None),
        ("", None, None, None),
        (3, 3, [0, 1, 2], "the first 3 blocks"),
        ("3", 3, [0, 1, 2], "the first 3 blocks"),
        (1, 1, [0], "the first block"),
        ("7-7", "7-7", [7], "block 7"),
        ([7], "7-7", [7], "block 7"),
        ("29, 0-2 ,10", "0-2,10,29", [0, 1, 2, 10, 29], "the blocks 0-2,10,29"),
        ([4, 0, 1], "0-1,4", [0, 1, 4], "the blocks 0-1,4"),
    ],
)
def test_blocks_have_one_spelling(value: Any, stored: Any, numbers: Any, words: Any) -> None:
    spellings = parse_blocks(value)
    assert spellings == stored
    if spellings is not None:
        assert (numbers_of(spellings), in_words(spellings), parse_blocks(spellings)) == (numbers, words, spellings)


@given(st.sets(st.integers(0, 60), min_size=1))
def test_the_spelling_gives_the_numbers_back(numbers: set[int]) -> None:
    text = spelled(list(numbers))
    assert parse_blocks(text) == text
    assert numbers_of(text) == sorted(numbers)
    assert all(one[1] < other[0] for one, other in zip(spans_of(text), spans_of(text)[1:], strict=False))


@pytest.mark.parametrize("value", [0, "-3", "2-1", "1,,2", "first", "1.5", 1.5, [], ["a"], "1,1", "0-3,2", "9" * 9])
def test_what_names_no_blocks_is_one_sentence(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^model\.layers=.*; "):
        parse_blocks(value)
