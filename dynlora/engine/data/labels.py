"""What the labels say: the task and the names of the classes; every refusal says what to change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from dynlora.config import DataConfig
from dynlora.errors import DataError

MAX_LABELS = 1000


def task_and_classes(config: DataConfig, train: Dataset, held_out: Dataset) -> tuple[str, list[str]]:
    """Return the task and the names of the classes."""
    label = config.label
    values = usable_labels(train, label, "training") + usable_labels(held_out, label, "held-out")
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    fractional = numeric and any(not float(value).is_integer() for value in values)
    task = config.task if config.task != "auto" else ("regression" if fractional else "classification")
    if task == "regression":
        if not numeric:
            raise DataError(f"data.task=regression: data.label={label} holds text; give a column of numbers")
        return task, []
    if fractional:
        raise DataError(f"data.task=classification: data.label={label} holds fractions; use data.task=regression")
    kinds = sorted(set(values), key=lambda value: (str(type(value)), value))
    if len(set(usable_labels(train, label, "training"))) < 2:
        raise DataError(
            f"data.label={label}: the training rows hold one class only ({kinds[0]}); at least two are needed"
        )
    if len(kinds) > MAX_LABELS:
        raise DataError(
            f"data.label={label}: {len(kinds):,} different values are too many for classes (at most {MAX_LABELS}); "
            "name another column, or use data.task=regression"
        )
    _refuse_half_numbers(label, kinds)
    names = getattr(train.features.get(label), "names", None)
    found = [str(names[kind]) if names and isinstance(kind, int) else label_text(kind) for kind in kinds]
    return task, list(dict.fromkeys(found))


def _refuse_half_numbers(label: str, kinds: Sequence[Any]) -> None:
    """Refuse fractions among which some text stands, such as NA: they would be taken for so many classes."""
    numbers = [kind for kind in kinds if isinstance(kind, str) and _number(kind) is not None]
    words = [kind for kind in kinds if isinstance(kind, str) and _number(kind) is None]
    if words and len(numbers) > len(words) and any(not float(number).is_integer() for number in numbers):
        raise DataError(f"data.label={label}: holds numbers and the text {words[0][:40]!r}; fix or drop such rows")


def _number(text: str) -> float | None:
    """Return the finite number a text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def label_text(value: Any) -> str:
    """Return a class as text; 1.0 from a CSV with gaps reads as 1."""
    return str(int(value)) if isinstance(value, float) else str(value)


def usable_labels(table: Dataset, label: str, split: str) -> list[Any]:
    """Return the labels of the rows, refusing gaps and GLUE's hidden -1."""
    values = table[label][:]
    for number, value in enumerate(values):
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            raise DataError(f"data.label={label}: {split} row {number + 1} has none; fill it or drop the row")
        if not isinstance(value, int | float | str):
            raise DataError(
                f"data.label={label}: {split} row {number + 1} holds a {type(value).__name__}; give text or numbers"
            )
    classes = getattr(table.features.get(label), "names", None)
    if values and (all(value == -1 for value in values) or (classes and any(value == -1 for value in values))):
        raise DataError(f"data.label={label}: {split} rows are -1, a hidden label; use a split that has labels")
    return list(values)
