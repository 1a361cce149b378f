"""How much there is to learn beyond the base model: the base's loss with a fitted head, less what is chance."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from torch import nn

from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.held_back import embed
from dynlora.engine.randomness import stream_seed

FOLDS = 4
"""Parts of the rows: a head is fitted on the others and judged on each."""


@dataclass(frozen=True)
class ToLearn:
    """What one example holds on average.

    Attributes:
        nats: loss of the base model per example.
        irreducible: part of that which repeated texts with different labels show to be chance; at least.
    """

    nats: float
    irreducible: float


def sampled(n: int, most: int, seed: int) -> np.ndarray:
    """Return positions of at most `most` of n rows."""
    return np.random.default_rng(stream_seed(seed, "to learn")).permutation(n)[:most]


def labels_to_learn(model: nn.Module, tokens: Tokens, rows: np.ndarray, autocast: Callable[[], Any]) -> ToLearn | None:
    """Return what classes hold beyond a linear head on the frozen model; None with too few rows of too few classes.

    A head that loses more than the frequencies of the classes do is overfitted: then their entropy counts.

    Args:
        model: the base, its adapters off.
        tokens: all training examples.
        rows: those to look at.
        autocast: makes the precision's context.
    """
    label = tokens.label[rows]
    if len(rows) < 2 * FOLDS or len(set(label.tolist())) < 2:
        return None
    features = embed(model, tokens, rows, 64, autocast)
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    classes = len(set(tokens.label.tolist()))
    losses = [
        _head_losses(features[fit], label[fit], features[judge], label[judge], classes)
        for fit, judge in KFold(FOLDS).split(features)
    ]
    share = np.unique(label, return_counts=True)[1] / len(label)
    entropy = -float((share * np.log(share)).sum())
    return ToLearn(min(float(np.concatenate(losses).mean()), entropy), label_noise(tokens))


def _head_losses(
    fitted: np.ndarray, label: np.ndarray, judged: np.ndarray, truth: np.ndarray, classes: int
) -> np.ndarray:
    """Return the loss of each judged row; a class that was not fitted has a chance as of one more row, (n,)."""
    known = sorted(set(label.tolist()))
    if len(known) > 1:
        share = LogisticRegression(C=0.1, max_iter=200).fit(fitted, label).predict_proba(judged)
    else:
        share = np.ones((len(judged), 1))
    place = {one: column for column, one in enumerate(known)}
    unseen = 1 / (len(label) + 1) if len(known) < classes else 0.0
    of = np.array([place.get(one, -1) for one in truth.tolist()])
    chance = np.where(of >= 0, (1 - unseen) * share[np.arange(len(of)), of], unseen / max(1, classes - len(known)))
    return -np.log(np.clip(chance, 1e-12, 1.0))


def label_noise(tokens: Tokens) -> float:
    """Return the conditional entropy of the label where a text is there several times, per example, in nats."""
    labels: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for feature, label in zip(tokens.features, tokens.label.tolist(), strict=True):
        labels[tuple(feature["input_ids"])][label] += 1
    nats = 0.0
    for counts in labels.values():
        if len(counts) > 1:
            n = np.array(list(counts.values()), dtype=float)
            nats -= float((n * np.log(n / n.sum())).sum())
    return nats / max(1, len(tokens))


def texts_to_learn(loss: np.ndarray, counted: np.ndarray) -> ToLearn:
    """Return what texts hold beyond the base model; how much of it is chance is not known.

    Args:
        loss: of each row, mean over the tokens that count, (n,).
        counted: tokens of each row that count, (n,).
    """
    return ToLearn(float((loss * counted).mean()), 0.0)


BITS_PER_PARAMETER = 2.0
"""What an adapter holds, about ("LoRA Without Regret", 2025); a rule of thumb.

`benchmarks/rank_capacity.py`: too much for random facts, of which 300 steps taught 0.54 bits a parameter at most, and
not too much for three tasks with classes, where rank 4 gained nothing over rank 1. No one number fits both.
"""

ROOMY = 0.5
"""Part of its capacity up to which an adapter is ample."""

AMPLE, TIGHT, TOO_SMALL = "ample", "tight", "too small"


def bits_to_learn(nats: float, irreducible: float, examples: int) -> float:
    """Return what a data set holds beyond the base model.

    Args:
        nats: loss of the base model per example.
        irreducible: part of it that is chance.
        examples: of the data set.
    """
    return max(0.0, nats - irreducible) * examples / math.log(2)


def capacity_bits(parameters: int) -> float:
    """Return what adapters with so many parameters hold."""
    return BITS_PER_PARAMETER * parameters


def verdict(bits: float, parameters: int) -> str:
    """Return whether adapters hold so many bits: ample, tight or too small."""
    capacity = capacity_bits(parameters)
    if bits <= ROOMY * capacity:
        return AMPLE
    return TIGHT if bits <= capacity else TOO_SMALL
