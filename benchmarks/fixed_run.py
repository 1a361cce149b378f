"""One run of a strategy on any data, in this process and without a run folder: the loss of each held-out row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynlora.config import parse_config
from dynlora.engine.loop.first_steps import TrainingDiverged
from dynlora.engine.loop.step_signals import spectrum
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.recorder import NullRecorder
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.inputs import load_inputs

NEVER = 10**6


class _NoKeeper:
    """Keeps nothing: a benchmark has no run folder."""

    def checkpoint(self, trainer: Any) -> None:
        """Drop it."""

    def best(self, trainer: Any, metrics: dict[str, float]) -> None:
        """Drop it."""


def quiet(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's values with looks on the way left out."""
    return {**values, "log": {"every": NEVER, "eval_every": NEVER, "checkpoint_every": NEVER, "generate_rows": 0}}


def set_scales(trainer: Trainer, scales: Sequence[float]) -> None:
    """Give each module's learned scale 2σ(c) a value from 0 to 2, in the order of the modules."""
    for module, scale in zip(trainer.adapters, scales, strict=True):
        if module.scale_logit is None:
            raise ValueError(f"{module.info.name} learns no scale; set strategy.scale=learned")
        with torch.no_grad():
            module.scale_logit.copy_(torch.tensor(scale / 2).logit())


def trained(values: Mapping[str, Any], *, scales: Sequence[float] | None = None) -> tuple[Trainer, float]:
    """Return a trainer at its last step and the seconds of its steps.

    Args:
        values: of the config.
        scales: with which each module's learned scale starts, instead of one.

    Raises:
        TrainingDiverged: when the loss became no number.
    """
    trainer = build_trainer(load_inputs(parse_config(quiet(values))), NullRecorder(), make_accelerator())
    if scales is not None:
        set_scales(trainer, scales)
    evaluation = trainer.evaluation
    held_out, probe, group = evaluation.tokens, evaluation.probe, evaluation.group
    evaluation.tokens, evaluation.probe = held_out.take(np.arange(2)), np.arange(2)
    evaluation.group, evaluation.sample = None, None
    start = time.perf_counter()
    trainer.train(_NoKeeper())
    seconds = time.perf_counter() - start
    evaluation.tokens, evaluation.probe, evaluation.group = held_out, probe, group
    return trainer, seconds


def measured(
    values: Mapping[str, Any], *, by_token: bool = False, scales: Sequence[float] | None = None
) -> dict[str, Any]:
    """Train a run and return every held-out row's loss in nats, whether it is right, ranks, parameters and seconds.

    With them what reacting to the input gains, None without gates, the learned scales, and ‖ΔW‖_F of every module.

    Args:
        values: of the config.
        scales: with which each module's learned scale starts, instead of one.
        by_token: the rows are texts: their loss is summed over their tokens, and right is who has every token right.
    """
    try:
        trainer, seconds = trained(values, scales=scales)
    except TrainingDiverged:
        return {"diverged": True}
    predictions = trainer.predictions(trainer.evaluation.tokens)
    if not np.isfinite(predictions.loss).all():
        return {"diverged": True}
    loss, right = predictions.loss, predictions.prediction == trainer.evaluation.tokens.label
    if by_token:
        loss, right = predictions.output[:, 0], predictions.output[:, 1] == predictions.output[:, 2]
    count, gates = trainer.adapters.adapter_parameter_count(), trainer.adapters.gates
    return {
        "reaction": None if gates is None else trainer.reaction(gates, predictions),
        "scales": [float(one.detach()) for module in trainer.adapters if (one := module.module_scale()) is not None],
        "update_norms": [round(float(spectrum(module)[0]), 5) for module in trainer.adapters],
        "loss": np.round(loss, 4).tolist(),
        "right": np.asarray(right).astype(int).tolist(),
        "parameters": count["active"] + count["gate"],
        "budget": count["budget"],
        "ranks": trainer.adapters.ranks,
        "seconds": round(seconds, 2),
    }


def written_ranks(ranks: Mapping[str, int], path: Path) -> str:
    """Write ranks where `strategy.ranks_from` reads them, and return the path."""
    import json

    path.write_text(json.dumps(dict(ranks)), "utf-8")
    return str(path)
