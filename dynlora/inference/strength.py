"""How strong a trained adapter should be: held-out loss and what is forgotten with its update scaled from 0 on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dynlora.analysis.retention import Retention
from dynlora.analysis.stats import per_token
from dynlora.engine.evaluation.evaluate import Predictions, summarise
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.evaluation.retention import GeneralText
from dynlora.errors import ConfigError
from dynlora.inference.session import Examined, check_strength, finite
from dynlora.tasks import WritingTask

MOST_STRENGTHS = 50


@dataclass(frozen=True)
class AtStrength:
    """A model whose adapter is multiplied by a number.

    Attributes:
        strength: that number; 0 is the base model with the trained head, 1 the adapter as it was trained.
        loss: mean on the held-out rows, of texts over their tokens.
        low, high: its 95 % interval over the rows.
        difference: of the loss to that at strength 1, on the same rows.
        difference_low, difference_high: its 95 % interval.
        metrics: of the task.
        retention: against the base model on general text.
    """

    strength: float
    loss: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    metrics: dict[str, float | None]
    retention: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @property
    def forgotten(self) -> Retention:
        """What was forgotten."""
        read = Retention.of(0, self.retention)
        assert read is not None, "measured here, and not read from anybody's run"
        return read

    @property
    def is_like_trained(self) -> bool:
        """Whether the interval of the difference to strength 1 includes 0."""
        return self.difference_low <= 0 <= self.difference_high


def checked_strengths(strengths: Sequence[float]) -> list[float]:
    """Return strengths in rising order, each once.

    Raises:
        ConfigError: for none, too many, or one out of range.
    """
    chosen = sorted(set(strengths))
    if not 0 < len(chosen) <= MOST_STRENGTHS:
        raise ConfigError(f"--strengths: {len(chosen)} strengths given; give 1 to {MOST_STRENGTHS}, such as 0,0.5,1")
    for one in chosen:
        check_strength(one, "--strengths ")
    return chosen


def strength_curve(examined: Examined, strengths: Sequence[float], rows: int) -> Iterator[AtStrength]:
    """Yield what the model is at each strength, on at most `rows` held-out rows that are the same at each."""
    model, sample = examined.model, examined.sample(rows)
    tokens = model.tokens(sample)
    text = GeneralText.of(model.base.tokenizer, model.task)
    trained = _sums(model, model.predictions(tokens))
    for strength in strengths:
        with model.adapters.scaled(strength):
            predictions = model.predictions(tokens)
            measured = text.measured(model.base.model, model.adapters, model.strategy.forward, model.autocast)
        sums, counts = _sums(model, predictions)
        loss, gap = per_token(sums, counts), per_token(sums - trained[0], counts)
        metrics = summarise(predictions, tokens.label, model.task)
        yield AtStrength(
            strength=strength,
            loss=loss["mean"],
            low=loss["low"],
            high=loss["high"],
            difference=gap["mean"],
            difference_low=gap["low"],
            difference_high=gap["high"],
            metrics={name: finite(value) for name, value in metrics.items()},
            retention=measured,
        )


def _sums(model: AdaptedModel, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of each row, summed over what counts in it, and how many that are: tokens, or the row itself."""
    if isinstance(model.task, WritingTask):
        return predictions.output[:, 0].astype(float), predictions.output[:, 2].astype(float)
    return predictions.loss.astype(float), np.ones(len(predictions.loss))


def best_of(curve: Sequence[AtStrength]) -> AtStrength:
    """Return the strength with the lowest held-out loss, of equal ones the weakest: it forgets least."""
    return min(curve, key=lambda one: (one.loss, one.strength))
