"""A learning rate before training: a range test on the user's model, data, method and rank, two where in doubt.

Nothing is recorded and nothing is written. Capacity does not move meanwhile.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from dynlora.analysis.advice import ALIKE, CLEAR, RateCurve, batch_noise, level, mean_curve, span, suggested_rate
from dynlora.config import RunConfig
from dynlora.engine.data.batches import BatchOrder
from dynlora.engine.evaluation.to_learn import (
    bits_to_learn,
    capacity_bits,
    labels_to_learn,
    sampled,
    texts_to_learn,
    verdict,
)
from dynlora.engine.loop.optimizer import is_head_of_own_rate, is_of_head, set_peak
from dynlora.engine.loop.trainer import Trainer
from dynlora.jobs import helper_job
from dynlora.tasks import WritingTask
from dynlora.tasks.classification import Classification
from dynlora.training.advice import TOLD_EVERY, probing_trainer
from dynlora.training.build import explained

LOWEST, HIGHEST = 3e-5, 1.0
"""First and last rate."""

STEPS, STEPS_OF_LARGE = 90, 45
"""Steps of a test, and of one of a large model, whose steps take long."""

LARGE = 50_000_000
"""Parameters from which on a model is large."""

WINDOW = 5
"""Steps of the means that say whether training broke for good."""

NOISE_SHARE = 0.1
"""Least fall or climb that counts beside the noise, as a part of the first mean."""


def usual_steps(model: nn.Module) -> int:
    """Return the steps of a test of a model."""
    return STEPS if sum(parameter.numel() for parameter in model.parameters()) < LARGE else STEPS_OF_LARGE


def rates_of(steps: int) -> list[float]:
    """Return the rates of a test."""
    return np.geomspace(LOWEST, HIGHEST, steps).tolist()


def range_test(trainer: Trainer, rates: Sequence[float], on_step: Callable[[int], None]) -> RateCurve:
    """Return the loss of each step; what follows a break is left out, and a loss that is not finite is the last one.

    The trainer's schedule has to be constant, and its `total` beyond the test; it trains no run afterwards.

    Args:
        trainer: at step 0.
        rates: that train.lr has at each step; 0 leaves the adapters as they are.
        on_step: told the number of steps taken.
    """
    order = BatchOrder(trainer.tokens.length, trainer.config.train.batch_size, trainer.config.seed)
    trainer.adapters.over_processes = lambda value: value
    trainer.model.train()
    losses: list[float] = []
    for rate in rates:
        set_peak(trainer.optimizer, trainer.config.train, rate)
        trainer.probe_step(order)
        losses.append(trainer.loss)
        on_step(len(losses))
        if not math.isfinite(trainer.loss) or _is_hopeless(losses):
            break
    return RateCurve(tuple(rates[: len(losses)]), tuple(losses))


def _is_hopeless(losses: Sequence[float]) -> bool:
    """Say whether training broke for good: a loss that fell is above its start again, or one that never did is far."""
    if len(losses) < 3 * WINDOW:
        return False
    means = np.convolve(losses, np.ones(WINDOW) / WINDOW, "valid")
    least = max(NOISE_SHARE * means[0], CLEAR * batch_noise(np.asarray(losses)) / math.sqrt(WINDOW))
    fell = means[0] - means.min() > least
    return bool(means[-1] > means[0] + (0.0 if fell else least))


logger = logging.getLogger(__name__)

LATER = 10
"""Length of the run that a test pretends to be the start of, in tests: no method moves capacity within a tenth."""

LABELS, TEXTS = 1024, 64
"""Training examples that a head is fitted on, and texts whose loss is taken."""

MOST_LOSS = 1e30
"""Larger losses, and NaN, are no numbers to draw."""


def advise_rate(settings: RunConfig, steps: int | None = None) -> dict[str, Any]:
    """Return the learning rate that range tests suggest for a config, as plain values of a `RateAnswer`.

    Args:
        settings: of the run; its train.lr, length and schedule are not used.
        steps: of a test; None for what suits the model.

    Raises:
        ConfigError, AssetError, DataError: where `train` would refuse, in the same sentence.
    """
    start = time.perf_counter()
    helper_job.tell(0, 0, "loading model and data")
    with explained(settings):
        capacity, curve = _capacity_and_test(settings, steps)
        curves = [curve]
        if (between := span(curves)) is None or between[1] > ALIKE * between[0]:
            curves.append(_test(_trainer(settings, steps, 1), settings, steps, 1))
    suggestion, between = suggested_rate(mean_curve(curves)), span(curves)
    if suggestion.rate is not None and suggestion.breaks is None and between is None:
        suggestion = replace(suggestion, rate=None, why="flat")  # nothing breaks, and a half does not fall: chance
    taken = sum(len(curve.rates) + len(curve.control) for curve in curves)
    return {
        "rate": suggestion.rate,
        "why": suggestion.why,
        "low": between[0] if between else None,
        "high": between[1] if between else None,
        "level": level(between),
        "steepest": suggestion.steepest,
        "lowest": suggestion.lowest,
        "breaks": suggestion.breaks,
        "default": settings.train.lr,
        "tests": [
            {
                "seed": settings.seed + number,
                "rates": list(curve.rates),
                **{
                    name: [loss if abs(loss) < MOST_LOSS else None for loss in losses]
                    for name, losses in (("losses", curve.losses), ("control", curve.control))
                },
            }
            for number, curve in enumerate(curves)
        ],
        "look": {
            "method": settings.strategy.name,
            "rank": settings.adapter.rank,
            "steps": taken,
            "rows": taken * settings.train.batch_size * settings.train.grad_accum,
            "seconds": time.perf_counter() - start,
        },
        "capacity": capacity,
    }


def _capacity_and_test(settings: RunConfig, steps: int | None) -> tuple[dict[str, Any] | None, RateCurve]:
    """Return whether the rank is enough, and the first range test; the model is gone afterwards."""
    trainer = _trainer(settings, steps, 0)
    helper_job.tell(0, 0, "measuring what is to be learned")
    return _capacity(trainer), _test(trainer, settings, steps, 0)


def _capacity(trainer: Trainer) -> dict[str, Any] | None:
    """Return whether the rank is enough, as a `RankCapacity`; None where the loss is not in nats."""
    tokens, seed = trainer.tokens, trainer.config.seed
    task, model = trainer.evaluation.task, trainer.accelerator.unwrap_model(trainer.model)
    with trainer.adapters.disabled():
        if isinstance(task, WritingTask):
            rows = sampled(len(tokens), TEXTS, seed)
            some = tokens.take(rows)
            known = texts_to_learn(trainer.predictions(some).loss, some.label)
        elif isinstance(task, Classification):
            rows = sampled(len(tokens), LABELS, seed)
            known = labels_to_learn(model, tokens, rows, trainer.autocast)
        else:
            known = None
    if known is None:
        return None
    count = trainer.adapters.adapter_parameter_count()
    bits, parameters = bits_to_learn(known.nats, known.irreducible, len(tokens)), count["active"] + count["gate"]
    return {
        "nats": known.nats,
        "irreducible": known.irreducible,
        "examples": len(tokens),
        "bits": bits,
        "parameters": parameters,
        "capacity": capacity_bits(parameters),
        "verdict": verdict(bits, parameters),
    }


def _test(trainer: Trainer, settings: RunConfig, steps: int | None, number: int) -> RateCurve:
    """Return the range test with this number, 0 for the first, with a control unless the head has the adapters' rate.

    Args:
        trainer: at step 0; the control has one of its own.
        settings: of the run.
        steps: of a test; None for what suits the model.
        number: of the test.
    """
    steps = steps or usual_steps(trainer.model)
    groups, config = trainer.optimizer.param_groups, trainer.config.train
    has_control = all(is_head_of_own_rate(group, config) for group in groups if is_of_head(group))
    parts = ["range test", "control"] if has_control else ["range test"]

    def tell(part: int) -> Callable[[int], None]:
        phase = parts[part] + (" with another seed" if number else "")
        before, total = (number * len(parts) + part) * steps, (number + 1) * len(parts) * steps

        def on_step(taken: int) -> None:
            if taken % TOLD_EVERY == 0:
                helper_job.tell(before + taken, total, phase)
                logger.info("%s: step %d of %d", phase.capitalize(), taken, steps)

        return on_step

    curve = range_test(trainer, rates_of(steps), tell(0))
    if not has_control:
        return curve
    count, alone = len(curve.rates), _trainer(settings, steps, number)
    _cut_before_head(alone)
    control = range_test(alone, [0.0] * count, tell(1)).losses
    return replace(curve, control=(*control, *[math.nan] * (count - len(control))))


def _cut_before_head(trainer: Trainer) -> None:
    """Let no gradient through below the output layer: a control needs none there, and takes half of the time.

    Where no head learns all are computed: some methods read them at every step.
    """
    config = trainer.config.train
    groups = [group for group in trainer.optimizer.param_groups if is_head_of_own_rate(group, config)]
    own = {id(parameter) for group in groups for parameter in group["params"]}
    for module in trainer.model.modules():
        if any(id(parameter) in own for parameter in module.parameters(recurse=False)):
            module.register_forward_pre_hook(_detached)


def _detached(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a layer's inputs without their graph."""
    return tuple(value.detach() if isinstance(value, Tensor) else value for value in inputs)


def _trainer(settings: RunConfig, steps: int | None, number: int) -> Trainer:
    """Return a trainer for the range test with this number, at a constant rate and the start of a long run."""
    training = {"steps": LATER * max(STEPS, steps or 0), "epochs": None, "warmup": 0.0, "schedule": "constant"}
    fields = {**settings.strategy.fields, "lr_backoff": 0.0}  # it would hide the rate that breaks training
    strategy = type(settings.strategy).model_validate({**fields, "name": settings.strategy.name})
    tested = settings.model_copy(
        update={
            "seed": settings.seed + number,
            "train": settings.train.model_copy(update=training),
            "strategy": strategy,
        }
    )
    return probing_trainer(tested)
