"""Losses that are not finite: after steps were taken the learning rate is to blame, before that a setting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dynlora.config import RunConfig, parse_config
from dynlora.engine.evaluation.evaluate import Predictions
from dynlora.errors import DivergedAtStart, TrainingDiverged

CAUSES = ("model.dropout", "model.dtype", "model.quantization", "adapter.alpha", "adapter.dropout", "train.precision")
"""Settings that can make numbers too large before anything is learned."""


def check_loss(config: RunConfig, loss: float, step: int) -> None:
    """Refuse a loss of a training step that is not finite.

    Raises:
        TrainingDiverged: naming the settings that can have caused it; `DivergedAtStart` before the first update.
    """
    if math.isfinite(loss):
        return
    if step <= 1:  # found before the first update
        raise _at_the_start(config, f"the loss of the first step is {loss}")
    raise TrainingDiverged(
        f"train.lr={config.train.lr}: the loss is {loss} at step {step}, which is not finite; lower train.lr, or set "
        "train.max_grad_norm=1"
    )


def check_start(config: RunConfig, predictions: Predictions) -> None:
    """Refuse a model whose losses or outputs on held-out examples are not finite before the first step.

    Raises:
        DivergedAtStart: naming the settings that can have caused it.
    """
    for name, values in (("loss", predictions.loss), ("output", predictions.output)):
        if not np.isfinite(values).all():
            raise _at_the_start(config, f"the {name} of the model on held-out examples is not finite at step 0")


def _at_the_start(config: RunConfig, problem: str) -> DivergedAtStart:
    """Return the error for numbers that are not finite before anything was learned."""
    usual, changed = parse_config({}), dict[str, Any]()
    for key in CAUSES:
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section), name)
        if value != getattr(getattr(usual, section), name):
            changed[key] = value
    if config.strategy.fields.get("start_from"):
        changed["strategy.start_from"] = config.strategy.fields["start_from"]
    given = ", ".join(f"{key}={value}" for key, value in changed.items())
    remedy = f"change {given}" if given else f"use another model than model.name={config.model.name}"
    return DivergedAtStart(f"{problem}, though nothing was learned yet; {remedy}")
