"""Advice before training: ranks by a look at the gradients, and a learning rate by range tests; nothing is kept.

Nothing is recorded and nothing is written. The head learns to read the model first: before it does, gradients point at
the last layers. Then the gradient of every frozen weight is sketched, of every other step into the same half.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from dynlora.analysis.advice import ALIKE, CLEAR, RateCurve, batch_noise, level, mean_curve, span, suggested_rate
from dynlora.config import RunConfig, StrategyConfig
from dynlora.engine.allocation.suggested_ranks import RankRequest, Suggestion, component_gains, suggest
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
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import GradientSketch
from dynlora.engine.model.modules import rank_limit
from dynlora.engine.recorder import NullRecorder
from dynlora.errors import ConfigError
from dynlora.jobs import helper_job
from dynlora.tasks import WritingTask
from dynlora.tasks.classification import Classification
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
        return [component_gains(sketch.directions(n)) for sketch, n in zip(sketches, rank_request.limits, strict=True)]

    whole = gains([_sum(pair) for pair in zip(*halves, strict=True)])
    each = [gains(half) for half in halves]
    suggestion = suggest(whole, each, rank_request)
    going = [family.name for family in suggestion.families if family.can_go]
    if not leave_out or not going or len(going) == len(suggestion.families):
        return suggestion
    return suggest(whole, each, replace(rank_request, left_out=going))


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
