"""What held-out examples lose at each size of the adapter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynlora.analysis.stats import bootstrap_interval
from dynlora.engine.compress.components import METHODS, within_budget
from dynlora.engine.compress.plain import Truncatable
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.evaluate import Predictions, summarise
from dynlora.engine.randomness import stream_seed

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
"""Sizes of the adapter that are looked at, as fractions of its parameters."""

COMPARED = (0.8, 0.5, 0.25, 0.1, 0.05, 0.02)
"""Those of them at which the other ways to choose are measured: a size costs a pass over the held-out examples."""


@dataclass(frozen=True)
class Worth:
    """The loss of a size of the adapter on some rows.

    Attributes:
        loss: mean over the rows.
        difference: `loss` less that of the whole adapter.
        low, high: 95 % bootstrap interval of `difference` over the rows, paired.
        metrics: of the rows.
    """

    loss: float
    difference: float
    low: float
    high: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Rows:
    """Held-out examples, halved: a size is chosen on one half and reported on the other.

    Attributes:
        tokens: all of them.
        choosing: positions of the rows that a size is chosen on.
        reporting: positions of the others.
    """

    tokens: Tokens
    choosing: np.ndarray
    reporting: np.ndarray

    @classmethod
    def halved(cls, tokens: Tokens, seed: int) -> Rows:
        """Halve rows by a keyed draw."""
        order = np.random.default_rng(stream_seed(seed, "halves of held-out examples")).permutation(len(tokens))
        middle = len(order) // 2
        return cls(tokens, np.sort(order[:middle]), np.sort(order[middle:]))


@dataclass
class Curve:
    """Measures sizes of one adapter, each on all held-out examples at once.

    Attributes:
        adapter: its components.
        rows: held-out examples.
        seed: of the keyed draws.
        whole: predictions of the whole adapter.
    """

    adapter: Truncatable
    rows: Rows
    seed: int
    whole: Predictions

    @classmethod
    def of(cls, adapter: Truncatable, rows: Rows, seed: int) -> Curve:
        """Measure the whole adapter."""
        adapter.keep([np.arange(size) for size in adapter.sizes])
        return cls(adapter, rows, seed, adapter.model.predictions(rows.tokens))

    def keep(self, method: str, share: float) -> list[np.ndarray]:
        """Leave the components of a size in the model, and return their positions by module."""
        order = METHODS[method](self.adapter.tables, self.seed)
        chosen = within_budget(order, self.adapter.tables, round(share * self.adapter.parameters))
        self.adapter.keep(chosen)
        return chosen

    def measured(self, method: str, share: float) -> Measured:
        """Return the loss of a size; the model keeps it until the next one is measured."""
        adapter, chosen = self.adapter, self.keep(method, share)
        ranks = tuple(len(one) for one in chosen)
        predictions = self.whole if list(ranks) == adapter.sizes else adapter.model.predictions(self.rows.tokens)
        return Measured(self, method, share, adapter.parameters_of(chosen), ranks, predictions)

    @property
    def whole_size(self) -> Measured:
        """The whole adapter, as if it were a size of its own."""
        parameters = self.adapter.parameters
        return Measured(self, "global", 1.0, parameters, tuple(self.adapter.sizes), self.whole)


@dataclass(frozen=True)
class Measured:
    """One size of the adapter, with what the model says of every row.

    Attributes:
        curve: it belongs to.
        method: which components were kept: one of `orders.METHODS`.
        share: of the adapter's parameters that was allowed, 0 to 1.
        parameters: that are kept.
        ranks: of each module.
        predictions: for all rows.
    """

    curve: Curve
    method: str
    share: float
    parameters: int
    ranks: tuple[int, ...]
    predictions: Predictions

    def on(self, rows: np.ndarray) -> Worth:
        """Return the loss of the size on some of the rows."""
        task = self.curve.adapter.model.task
        compressed, whole = self.predictions.take(rows), self.curve.whole.take(rows)
        difference = compressed.loss.astype(float) - whole.loss
        low, high = bootstrap_interval(difference)
        metrics = summarise(compressed, self.curve.rows.tokens.label[rows], task)
        return Worth(float(compressed.loss.mean()), float(difference.mean()), low, high, metrics)
