"""Advice before training: a few steps of plain LoRA, a look at the gradients, and the time that lower layers take.

Nothing is recorded and nothing is written. The head learns to read the model first: before it does, gradients point at
the last layers. Then the gradient of every frozen weight is sketched, of every other step into the same half.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dynlora.config import RunConfig, StrategyConfig
from dynlora.engine.allocation.suggested_ranks import RankRequest, Suggestion, component_gains, suggest
from dynlora.engine.data.batches import BatchOrder
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import Directions, GradientSketch
from dynlora.engine.model.modules import rank_limit
from dynlora.engine.recorder import NullRecorder
from dynlora.errors import ConfigError
from dynlora.jobs import helper_job
from dynlora.training.build import build_trainer, explained, make_accelerator
from dynlora.training.inputs import load_inputs
from dynlora.training.run import trainer_check

logger = logging.getLogger(__name__)

WARM_STEPS = 24
"""Steps before the look: enough for a new head to point somewhere."""

LOOK_STEPS = 16
"""Steps whose gradients are sketched, half of them into each half."""

GROWTH_LIMIT = 2.0
"""Largest suggested rank, in multiples of the uniform rank."""

CUTS = (0.25, 0.5, 0.75)
"""Parts of the layers, from the lowest up, that are tried without adapters."""

ROUNDS = 8
"""How often each of them is timed, in turn with all layers, on the same batches."""

TOLD_EVERY = 4
"""Steps between two messages about how far the look is."""

HELD_OUT = 64
"""Held-out examples that are loaded: nothing is evaluated."""

LEVELS = ((0.9, "high"), (0.7, "moderate"))
"""From which agreement of the halves on the budget confidence has a name."""


@dataclass(frozen=True)
class AdviceRequest:
    """What advice is asked for.

    Attributes:
        budget: part of uniform LoRA's parameters, 0 to 1.
        leave_out: whether families that may be left out get no rank.
        warm_steps: before the look.
        look_steps: that are sketched, 2 or more.
        is_timed: whether steps without the lowest layers are timed.
    """

    budget: float = 1.0
    leave_out: bool = False
    warm_steps: int = WARM_STEPS
    look_steps: int = LOOK_STEPS
    is_timed: bool = True


def advise(settings: RunConfig, request: AdviceRequest = AdviceRequest()) -> dict[str, Any]:
    """Return ranks that a short look suggests for a config, as plain values.

    Args:
        settings: of the run; its strategy is not used, the look is one at plain LoRA.
        request: budget and length of the look.

    Returns:
        ranks, scaling, parameters, budget, uniform_rank, task_type, modules (name, layer, kind, d_in, d_out,
        gain_share, rank), families, confidence (correlation, agreement, level), layers (each without_layers, of,
        modules, gain_share, step_time as a part of that with all, the middle one of the rounds, low and high its
        quartiles) and look (warm_steps, look_steps, rows, seconds).

    Raises:
        ConfigError, AssetError, DataError: where `train` would refuse, in the same sentence.
    """
    helper_job.tell(0, request.warm_steps + request.look_steps, "loading model and data")
    with explained(settings):
        return _look(settings, request)


def _look(settings: RunConfig, request: AdviceRequest) -> dict[str, Any]:
    start = time.perf_counter()
    trainer = probing_trainer(settings.model_copy(update={"strategy": StrategyConfig(name="lora")}))
    adapters, rank = trainer.adapters, settings.adapter.rank
    order = BatchOrder(trainer.tokens.length, settings.train.batch_size, settings.seed)
    adapters.over_processes = lambda value: value
    trainer.model.train()
    for index in range(request.warm_steps):
        trainer.probe_step(order)
        _tell(index + 1, request)
    halves = _halves(trainer, order, request)
    limits = [rank_limit(module.info, rank, rank, GROWTH_LIMIT) for module in adapters]
    infos = [module.info for module in adapters]
    rank_request = RankRequest(infos, rank, limits, int(request.budget * rank * sum(info.cost for info in infos)))
    _check_budget(rank_request, request)
    suggestion = _suggested(halves, rank_request, leave_out=request.leave_out)
    layers = []
    if request.is_timed:
        helper_job.tell(trainer.step, trainer.step, "timing steps without the lowest layers")
        logger.info("Timing steps without the lowest layers")
        layers = _layers(trainer, order, suggestion)
    rows = (request.warm_steps + request.look_steps) * settings.train.batch_size * settings.train.grad_accum
    return {
        **_document(suggestion, rank_request, adapters),
        "task_type": trainer.evaluation.task.peft_task_type,
        "layers": layers,
        "look": {
            "warm_steps": request.warm_steps,
            "look_steps": request.look_steps,
            "rows": rows,
            "seconds": time.perf_counter() - start,
        },
    }


def probing_trainer(settings: RunConfig) -> Trainer:
    """Return a trainer on the run's data, which records nothing and evaluates next to nothing.

    Raises:
        ConfigError, AssetError, DataError: where `train` would refuse, in the same sentence.
    """
    data = settings.data.model_copy(update={"max_eval": min(settings.data.max_eval or HELD_OUT, HELD_OUT)})
    log = settings.log.model_copy(update={"generate_rows": 0})
    inputs = load_inputs(settings.model_copy(update={"data": data, "log": log}))
    trainer_check(inputs)
    return build_trainer(inputs, NullRecorder(), make_accelerator())


def _check_budget(rank_request: RankRequest, request: AdviceRequest) -> None:
    """Refuse a budget that gives not even the smallest module a component.

    Raises:
        ConfigError: naming it.
    """
    if rank_request.budget < min(rank_request.costs):
        raise ConfigError(
            f"--budget {request.budget:g}: {rank_request.budget:,} parameters are less than one component has; "
            f"give at least {min(rank_request.costs) / (rank_request.rank * sum(rank_request.costs)):.2g}"
        )


def _tell(taken: int, request: AdviceRequest) -> None:
    """Say how many steps the look has taken, now and then; the trainer's own step ends with the run's last."""
    if taken % TOLD_EVERY == 0:
        steps = request.warm_steps + request.look_steps
        helper_job.tell(taken, steps, "looking at gradients")
        logger.info("Looking at gradients: step %d of %d", taken, steps)


def _halves(trainer: Trainer, order: BatchOrder, request: AdviceRequest) -> list[list[GradientSketch]]:
    """Take steps and return each module's sketch of the even and of the odd ones."""
    halves = [_sketches(trainer.adapters, trainer.step, name) for name in ("even", "odd")]
    for index in range(request.look_steps):
        for module, sketch in zip(trainer.adapters, halves[index % 2], strict=True):
            module.sketch = sketch
        trainer.probe_step(order)
        _tell(request.warm_steps + index + 1, request)
    for module in trainer.adapters:
        module.sketch = None
    return halves


def _sketches(adapters: Adapters, step: int, half: str) -> list[GradientSketch]:
    return [
        GradientSketch.empty(
            module.info.d_in,
            module.info.d_out,
            seed=adapters.seed,
            key=f"{module.info.name}/{step}/advice",
            device=module.lora_A.device,
            triplets=rank_limit(module.info, module.rank, module.rank, GROWTH_LIMIT),
        )
        for module in adapters
    ]


def _suggested(halves: Sequence[Sequence[GradientSketch]], rank_request: RankRequest, *, leave_out: bool) -> Suggestion:
    """Return what the sketches suggest."""

    def gains(sketches: Sequence[GradientSketch]) -> list[np.ndarray]:
        return [
            component_gains(_directions(sketch, n)) for sketch, n in zip(sketches, rank_request.limits, strict=True)
        ]

    whole = gains([_sum(pair) for pair in zip(*halves, strict=True)])
    each = [gains(half) for half in halves]
    suggestion = suggest(whole, each, rank_request)
    going = [family.name for family in suggestion.families if family.can_go]
    if not leave_out or not going or len(going) == len(suggestion.families):
        return suggestion
    return suggest(whole, each, replace(rank_request, left_out=going))


def _directions(sketch: GradientSketch, n: int) -> Directions:
    return sketch.directions(n, 1)


def _sum(sketches: Sequence[GradientSketch]) -> GradientSketch:
    """Return the sketch of the sum: both were drawn with the same Ω and Ψ."""
    first, second = sketches
    return replace(
        first,
        forward_sum=first.forward_sum + second.forward_sum,
        backward_sum=first.backward_sum + second.backward_sum,
    )


def _layers(trainer: Trainer, order: BatchOrder, suggestion: Suggestion) -> list[dict[str, Any]]:
    """Return what leaving the lowest layers without adapters saves of a step's time, and what gain is there."""
    layer = np.array([-1 if module.info.layer is None else module.info.layer for module in trainer.adapters])
    known = sorted(set(layer[layer >= 0].tolist()))
    cuts = sorted({known[round(part * len(known))] for part in CUTS if 0 < round(part * len(known)) < len(known)})
    below = [(layer >= 0) & (layer < cut) for cut in cuts]
    seconds = _timed(trainer, order, [np.zeros(len(layer), bool), *below])
    rows = []
    for position, (cut, without) in enumerate(zip(cuts, below, strict=True), 1):
        low, middle, high = np.quantile(seconds[:, position] / seconds[:, 0], (0.25, 0.5, 0.75))
        rows.append(
            {
                "without_layers": known.index(cut),
                "of": len(known),
                "modules": int(without.sum()),
                "gain_share": float(suggestion.gain[without].sum()),
                "step_time": float(middle),
                "low": float(low),
                "high": float(high),
            }
        )
    return rows


def _timed(trainer: Trainer, order: BatchOrder, choices: Sequence[np.ndarray]) -> np.ndarray:
    """Return the seconds of a step with each choice of modules left out, (rounds, choices), in turn on one batch."""
    seconds = np.zeros((ROUNDS, len(choices)))
    for turn in range(ROUNDS + 1):  # the first one warms up
        step = trainer.step
        for position in np.roll(np.arange(len(choices)), turn).tolist():
            trainer.step = step
            with _without(trainer.adapters, choices[position]):
                taken = trainer.probe_step(order)
            if turn:
                seconds[turn - 1, position] = taken
    return seconds


@contextmanager
def _without(adapters: Adapters, left_out: np.ndarray) -> Iterator[None]:
    """Turn modules off inside the block; where nothing below needs a gradient, the backward pass ends."""
    for module, is_out in zip(adapters, left_out, strict=True):
        module.enabled = not is_out
    try:
        yield
    finally:
        for module in adapters:
            module.enabled = True


def _document(suggestion: Suggestion, rank_request: RankRequest, adapters: Adapters) -> dict[str, Any]:
    """Return the suggestion as plain values."""
    level = next((name for least, name in LEVELS if suggestion.agreement >= least), "low")
    return {
        "ranks": {info.name: rank for info, rank in zip(rank_request.modules, suggestion.ranks, strict=True)},
        "scaling": {module.info.name: module.scaling for module in adapters},
        "parameters": suggestion.parameters,
        "budget": rank_request.budget,
        "uniform_rank": rank_request.rank,
        "families": [asdict(family) for family in suggestion.families],
        "confidence": {"correlation": suggestion.correlation, "agreement": suggestion.agreement, "level": level},
        "modules": [
            {
                "name": info.name,
                "layer": info.layer,
                "kind": info.kind,
                "d_in": info.d_in,
                "d_out": info.d_out,
                "rank": rank,
                "gain_share": float(share),
            }
            for info, rank, share in zip(rank_request.modules, suggestion.ranks, suggestion.gain, strict=True)
        ],
    }
