"""Answers and labels of data as a task reads them, and metrics of predictions against the truth."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from scipy import stats

from dynlora.data_files.examples import MOST_LABEL, is_empty, is_infinite
from dynlora.errors import DataError


def confusion(label: np.ndarray, prediction: np.ndarray, n_labels: int) -> np.ndarray:
    """Return counts (n_labels, n_labels): rows are the truth, columns the prediction."""
    cells = label.astype(np.int64) * n_labels + prediction.astype(np.int64)
    return np.bincount(cells, minlength=n_labels * n_labels).reshape(n_labels, n_labels)


def classification_metrics(label: np.ndarray, prediction: np.ndarray, n_labels: int) -> dict[str, float]:
    """Return accuracy, Matthews' correlation, macro F1 and, for two classes, F1 of class 1; 0 where undefined.

    All are taken from one confusion table C, as `sklearn.metrics` defines them; each of its functions would make the
    table again, and an evaluation asks for every input group.
    F1_k = 2 C_kk / (Σ_j C_kj + Σ_i C_ik); Matthews = (n Σ_k C_kk - t·p) / √((n² - p·p)(n² - t·t)), t and p the sums of
    rows and columns.

    Args:
        label: true classes, (n,).
        prediction: predicted classes, (n,).
        n_labels: number of classes.
    """
    counts = confusion(label, prediction, n_labels).astype(float)
    truth, predicted, right, n = counts.sum(1), counts.sum(0), np.diag(counts), counts.sum()
    f1 = np.divide(2 * right, truth + predicted, out=np.zeros(n_labels), where=truth + predicted > 0)
    spread = (n * n - predicted @ predicted) * (n * n - truth @ truth)
    metrics = {
        "accuracy": float(np.mean(label == prediction)),
        "macro_f1": float(np.mean(f1)),
        "matthews": float((n * right.sum() - truth @ predicted) / np.sqrt(spread)) if spread else 0.0,
    }
    if n_labels == 2:
        metrics["f1"] = float(f1[1])
    return metrics


BINS = 15
"""Equal parts of confidence that the calibration error looks at."""


def calibration_metrics(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Return how far probabilities, (n, n_labels), can be taken at their word; both are zero at best.

    ece: expected calibration error, Σ_bins fraction of rows · |accuracy - mean confidence|, the confidence being the
    highest probability. brier: mean over rows of Σ_k (p_k - [k is the label])², between 0 and 2.
    """
    confidence, right = probability.max(1), probability.argmax(1) == label
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)  # rows · (accuracy - mean confidence)
    truth = np.arange(probability.shape[1]) == label[:, None]
    return {
        "ece": float(np.abs(gaps).sum() / len(label)),
        "brier": float(np.mean(((probability - truth) ** 2).sum(1))),
    }


def regression_metrics(label: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Return Pearson's and Spearman's correlation and the mean squared error; 0 where a side is constant."""
    defined = not (_constant(label) or _constant(prediction))
    return {
        "pearson": float(stats.pearsonr(label, prediction)[0]) if defined else 0.0,  # pyright: ignore
        "spearman": float(stats.spearmanr(label, prediction)[0]) if defined else 0.0,  # pyright: ignore
        "mse": float(np.mean((label.astype(float) - prediction) ** 2)),
    }


def _constant(values: np.ndarray) -> bool:
    """Say whether all values are one: correlations are undefined then."""
    return bool(np.all(values == values[:1]))


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
