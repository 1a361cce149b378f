"""Rows on their way to a model: as texts, as tokens with their labels, and as prompts to continue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class TextRows(Protocol):
    """Rows of one side of the data, as `engine/data/text_data.py` has them."""

    @property
    def text(self) -> list[str]:
        """First texts, or what is before a completion."""
        ...

    @property
    def text_pair(self) -> list[str] | None:
        """Second texts, or completions."""
        ...

    @property
    def fields(self) -> Mapping[str, list[Any]]:
        """What else a task needs of each row, by name."""
        ...


@dataclass(frozen=True)
class EncodedRows:
    """Rows as tokens.

    Attributes:
        features: per row, what the model takes: input_ids, attention_mask and maybe token_type_ids.
        targets: per row, the label of each token; None for a task with one label a row.
        counts: how many labels of each row count in the loss, (n,); None for one a row.
        notes: what a person should know, in sentences.
    """

    features: list[dict[str, list[int]]]
    targets: list[list[int]] | None = None
    counts: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What a model continues.

    Attributes:
        ids: its tokens.
        text: for reading.
        expected: what the data has after it.
    """

    ids: list[int]
    text: str
    expected: str
