"""Means over tokens with intervals over texts: tokens of one text are not independent, texts are."""

from __future__ import annotations

import math

import numpy as np

from dynlora.kinds.intervals import Z


def per_token(sums: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Return the mean over tokens of sums over texts, with its 95 % interval over the texts.

    mean = Σ s_i / Σ n_i; its variance is that of a ratio: n / (n - 1) · Σ (s_i - mean · n_i)² / (Σ n_i)².

    Args:
        sums: over the tokens of each text, (n,); of a paired difference, sums of differences.
        counts: tokens of each text, (n,).
    """
    tokens, texts = float(counts.sum()), len(sums)
    mean = float(sums.sum()) / max(1.0, tokens)
    residual = float(np.square(sums - mean * counts).sum())
    reach = Z * math.sqrt(residual * texts / (texts - 1)) / max(1.0, tokens) if texts > 1 else math.inf
    low, high = (mean - reach, mean + reach) if math.isfinite(reach) else (mean, mean)
    return {"mean": mean, "low": low, "high": high, "texts": texts, "tokens": tokens}
