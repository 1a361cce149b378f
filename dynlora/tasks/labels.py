"""A column of labels: checked values of both sides, before a task makes numbers of them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from dynlora.data_files.examples import MOST_LABEL, is_empty, is_infinite
from dynlora.errors import DataError

MARKERS = ("####", "The answer is", "the answer is", "Answer:", "answer:")
"""What is before an answer; the last one in a text counts."""

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")


def is_right(answer: str, written: str) -> bool:
    """Say whether a text gives the right answer.

    A number: the first one after the last marker, or the last one of a text without markers, has its value. Else the
    text after the last marker, or the whole, is the same but for case, punctuation at the ends and white space.
    """
    right, given = number(answer), answer_in(written)
    if right is not None:
        return given is not None and number(given) == right
    return normalised(tail(written)) == normalised(answer)


def tail(written: str) -> str:
    """Return what follows the last marker, or the whole text."""
    places = [(written.rfind(marker) + len(marker), marker) for marker in MARKERS if marker in written]
    return written[max(places)[0] :] if places else written


def answer_in(written: str) -> str | None:
    """Return the number that a text gives as its answer, None without one."""
    after = tail(written)
    numbers = _NUMBER.findall(after)
    if not numbers:
        return None
    return numbers[0] if len(after) < len(written) else numbers[-1]


def number(text: str) -> float | None:
    """Return the value of a text that is one number, such as 1,234 or 3/4 or 50%; None for any other."""
    text = text.strip().strip("$€£ ").rstrip(".").strip()
    if not _NUMBER.fullmatch(text):
        return None
    share = 100.0 if text.endswith("%") else 1.0
    above, _, below = text.rstrip("%").replace(",", "").partition("/")
    if below and float(below) == 0:
        return None
    return float(above) / (float(below) if below else 1.0) / share


def normalised(text: str) -> str:
    """Return a text in small letters, with single spaces, without punctuation at its ends."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(" .,;:!?\"'`*()[]")


@dataclass(frozen=True)
class LabelColumn:
    """The labels of both sides.

    Attributes:
        name: of the column.
        train, held_out: usable values: text or finite numbers.
        class_names: what whole numbers mean, where the data says so.
    """

    name: str
    train: list[Any]
    held_out: list[Any]
    class_names: list[str] | None

    @classmethod
    def read(cls, name: str, train: Dataset, held_out: Dataset) -> LabelColumn:
        """Return the column of two tables.

        Raises:
            DataError: for a gap, a hidden label, or a value that is neither text nor a number.
        """
        sides = (usable_labels(train, name, "training"), usable_labels(held_out, name, "held-out"))
        return cls(name, *sides, getattr(train.features.get(name), "names", None))

    @property
    def values(self) -> list[Any]:
        """The values of both sides."""
        return self.train + self.held_out

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    @property
    def is_fractional(self) -> bool:
        """Whether all values are numbers, and some are fractions."""
        return self.is_numeric and any(not float(value).is_integer() for value in self.values)


def label_text(value: Any) -> str:
    """Return a class as text; 1.0 from a CSV with gaps reads as 1."""
    return str(int(value)) if isinstance(value, float) else str(value)


def finite_number(text: str) -> float | None:
    """Return the finite number a text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def refuse_mixed_numbers(label: str, kinds: Sequence[Any]) -> None:
    """Refuse fractions with some text among them, such as NA: each would be taken for a class.

    Raises:
        DataError: naming the text.
    """
    numbers = [kind for kind in kinds if isinstance(kind, str) and finite_number(kind) is not None]
    texts = [kind for kind in kinds if isinstance(kind, str) and finite_number(kind) is None]
    if texts and len(numbers) > len(texts) and any(not float(number).is_integer() for number in numbers):
        raise DataError(f"data.label={label}: has numbers and the text {texts[0][:40]!r}; correct or remove such rows")


def usable_labels(table: Dataset, label: str, split: str) -> list[Any]:
    """Return the labels of the rows, refusing gaps and GLUE's hidden -1.

    Raises:
        DataError: naming the first row that cannot be used.
    """
    values = table[label][:]
    for number, value in enumerate(values):
        if is_infinite(value):
            row = f"{split} row {number + 1}"
            problem = f"{row} is {value}, not a finite number, or beyond {MOST_LABEL:g}"
            raise DataError(f"data.label={label}: {problem}; correct or remove it")
        if is_empty(value):
            raise DataError(f"data.label={label}: {split} row {number + 1} has no label; fill it or remove the row")
        if not isinstance(value, int | float | str):
            raise DataError(
                f"data.label={label}: {split} row {number + 1} is a {type(value).__name__}; give text or numbers"
            )
    classes = getattr(table.features.get(label), "names", None)
    if values and (all(value == -1 for value in values) or (classes and any(value == -1 for value in values))):
        raise DataError(f"data.label={label}: {split} rows are -1, a hidden label; use a split that has labels")
    return list(values)
