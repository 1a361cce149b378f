"""Metrics of predictions against the truth; arrays in, numbers out."""

from __future__ import annotations

import numpy as np
from scipy import stats


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
