"""Which blocks of a model are used: the first k, or those with given numbers; without torch."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated

from pydantic import BeforeValidator

from dynlora.errors import ConfigError
from dynlora.text import as_text, printable

Blocks = int | str
"""`15` for the first fifteen, or numbers from 0 such as `0-4,10,27-29`."""

_PART = re.compile(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?")


def parse_blocks(value: object) -> Blocks | None:
    """Return a value as what is stored: a number of blocks, or their numbers in their one spelling.

    Args:
        value: a whole number, a text of numbers and ranges, a list of numbers, or None.

    Raises:
        ConfigError: when it is none of these, counts no block, or names one twice.
    """
    if value is None or value == "":
        return None
    text = ",".join(map(as_text, value)) if isinstance(value, list | tuple) else as_text(value).strip()
    count = re.fullmatch(r"[+-]?\d{1,6}", text)
    if count and not isinstance(value, list | tuple):
        if int(text) < 1:
            raise ConfigError(f"model.layers={value}: must be at least 1; leave it out to use all blocks")
        return int(text)
    numbers: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ConfigError(
                f"model.layers={printable(text)}: must be a whole number, the first so many blocks, or numbers of "
                "blocks such as 0-4,10,27-29; leave it out to use all"
            )
        numbers += range(first, last + 1)
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"model.layers={printable(text)}: names a block twice; give each once")
    return spelled(numbers)


def spelled(numbers: list[int]) -> str:
    """Return numbers of blocks in their one spelling, such as `0-4,10`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    ranges = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"{ranges}-{ranges}" if ranges.isdigit() else ranges


def spans_of(blocks: Blocks) -> list[tuple[int, int]]:
    """Return the half-open ranges of the numbers of blocks, in order: `0-4,10` gives (0, 5), (10, 11)."""
    if isinstance(blocks, int):
        return [(0, blocks)]
    ends = [(int(first), int(last or first) + 1) for first, last in _PART.findall(blocks)]
    assert all(one[1] <= other[0] for one, other in pairwise(ends)), blocks
    return ends


def numbers_of(blocks: Blocks) -> list[int]:
    """Return the numbers of the blocks, in order."""
    return [number for first, end in spans_of(blocks) for number in range(first, end)]


def in_words(blocks: Blocks) -> str:
    """Return blocks for people, such as "the first 15 blocks" or "the blocks 0-4,10"."""
    if isinstance(blocks, int):
        return "the first block" if blocks == 1 else f"the first {blocks} blocks"
    first, _, last = blocks.partition("-")
    return f"block {first}" if first == last else f"the blocks {blocks}"


SomeBlocks = Annotated[str | int | None, BeforeValidator(parse_blocks)]
"""A setting that says which blocks; None for all."""

SOME_BLOCKS = (
    "Use some blocks of the model only: a number, its first so many, or the numbers of blocks from 0, such as "
    "0-4,10,27-29. Empty: all."
)
"""What the setting means."""
