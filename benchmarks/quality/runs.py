"""One run of one method: our trainer, or PEFT in a plain loop, on the same batches with the same head."""

from __future__ import annotations

import dataclasses
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW

from benchmarks import results
from benchmarks.quality.methods import Method, method_of
from benchmarks.quality.tasks import TASKS, Task, task_data
from dynlora import assets, strategies
from dynlora.config import RunConfig, parse_config
from dynlora.engine.data.batches import BatchOrder, Tokens, tokenize
from dynlora.engine.data.text_data import TextData
from dynlora.engine.evaluation.evaluate import Predictions, predict, summarise
from dynlora.engine.loop.first_steps import TrainingDiverged
from dynlora.engine.loop.hardware import autocast_context, resolve_precision
from dynlora.engine.loop.optimizer import set_lr
from dynlora.engine.model.base_model import BaseModel, load_base
from dynlora.engine.model.modules import find_modules
from dynlora.engine.randomness import seed_global_stream
from dynlora.engine.recorder import NullRecorder
from dynlora.renamed_settings import gone_values, with_earlier_defaults
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.inputs import Inputs

PARTS_PER_NAT = 1000
"""Losses are kept as whole thousandths of a nat: half a thousandth of rounding, far below what is told apart."""

DIVERGED: dict[str, Any] = {"diverged": True, "metrics": {"loss": None, "accuracy": None}, "train_s": 0.0}
"""What is kept of a run whose loss became no number: tuning counts it as infinitely bad, tables say it."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        purpose: tune or report; see `tasks.task_data`.
        task, method: their names.
        rank: of the uniform LoRA whose parameters are the budget.
        seed: of every random draw.
        lr: peak learning rate.
        model: name of the base model.
        steps: optimizer steps, 0 for the task's own.
    """

    purpose: str
    task: str
    method: str
    rank: int
    seed: int
    lr: float
    model: str = "minilm"
    steps: int = 0

    @property
    def full_steps(self) -> int:
        """Optimizer steps at full length."""
        return self.steps or TASKS[self.task].steps

    @property
    def file_name(self) -> str:
        """The name of the file that keeps the run: everything that tells it from another one."""
        model = "" if self.model == "minilm" else f"{self.model}-"
        name = f"{self.purpose}-{model}{self.task}-r{self.rank}-{self.method}"
        return f"{name}-lr{self.lr:g}-n{self.full_steps}-s{self.seed}.json"

    def run(self, folder: Path | None, limit: int | None = None) -> dict[str, Any]:
        """Train and evaluate, and return what is kept of it as plain values.

        Args:
            folder: of the tasks.
            limit: at most so many rows of each side, for quick looks.
        """
        data = task_data(TASKS[self.task], folder, self.purpose)
        if limit is not None:
            rows = np.arange(limit)
            data = dataclasses.replace(data, train=data.train.take(rows), held_out=data.held_out.take(rows))
        method = method_of(self.method)
        if gone := gone_values({"name": method.strategy, **method.fields}):
            raise SystemExit(
                f"--methods {self.method}: ran with {gone}, which is no longer a setting; name another one"
            )
        if method.fields.get("allocation") == "random":  # no two tasks share an allocation seed
            method = dataclasses.replace(
                method, fields={**method.fields, "allocation_seed": zlib.crc32(self.task.encode())}
            )
        return finished_run(self, method, data)


def finished_run(job: Job, method: Method, data: TextData) -> dict[str, Any]:
    """Train a method on rows and return its metrics, size and every held-out row's loss as plain values."""
    base = load_base(assets.resolve_model(job.model), task=data.task, seed=job.seed)
    config = _config(job, TASKS[job.task])
    start = time.perf_counter()
    side = _train_peft if method.engine == "peft" else _train_ours
    about = {
        "job": vars(job) | {"steps": job.full_steps},
        "steps": config.train.steps,
        "precision": resolve_precision(config.train.precision, torch.device("cpu")),
        "made_with": {"processor": results.processor(), **results.versions()},
    }
    try:
        predictions, parameters, extra = side(config, method, base, data)
    except TrainingDiverged:
        return about | DIVERGED
    if not np.isfinite(predictions.loss).all():  # PEFT's plain loop continues with losses that are no number
        return about | DIVERGED
    metrics = summarise(predictions, data.held_out.label, data.task)
    return {
        **about,
        "metrics": {name: round(value, 6) for name, value in metrics.items()},
        "parameters": parameters,
        "train_s": round(time.perf_counter() - start, 1),
        **extra,
        "loss": np.round(predictions.loss * PARTS_PER_NAT).astype(int).tolist(),
        "right": "".join(str(int(right)) for right in predictions.prediction == data.held_out.label),
    }


def _config(job: Job, task: Task) -> RunConfig:
    """Return the settings of a run; all else is the default."""
    rank = job.rank
    return parse_config(
        {
            "seed": job.seed,
            "model": {"name": job.model},
            "data": {"max_length": task.max_length},
            "adapter": {"rank": rank, "alpha": 2 * rank},
            "train": {"steps": job.full_steps, "lr": job.lr, "head_lr": None, "batch_size": task.batch_size},
            "log": {"every": 10**6, "eval_every": 10**6, "checkpoint_every": 10**6},
        }
    )


class _NoKeeper:
    """Keeps nothing: a benchmark has no run folder."""

    def checkpoint(self, trainer: Any) -> None:
        """Drop it."""

    def best(self, trainer: Any, metrics: dict[str, float]) -> None:
        """Drop it."""


def _train_ours(
    config: RunConfig, method: Method, base: BaseModel, data: TextData
) -> tuple[Predictions, dict[str, int], dict[str, Any]]:
    """Train one of our strategies with the one training loop."""
    fields = with_earlier_defaults({"name": method.strategy, **method.fields})  # as the committed runs
    strategy = strategies.build(fields.pop("name"), fields)
    total = config.train.max_steps(len(data.train))
    strategy.check(total, config.adapter.rank)
    trainer = build_trainer(Inputs(config, strategy, data, base, total), NullRecorder(), make_accelerator())
    held_out, probe = trainer.evaluation.tokens, np.arange(2)
    trainer.evaluation.tokens, trainer.evaluation.probe = held_out.take(probe), probe  # looks on the way cost time only
    trainer.evaluation.group, trainer.evaluation.sample = None, None
    trainer.train(_NoKeeper())
    count = trainer.adapters.adapter_parameter_count()
    moved = {"ranks": trainer.adapters.ranks}
    return trainer.predictions(held_out), {key: count[key] for key in ("budget", "active", "gate")}, moved


def _train_peft(
    config: RunConfig, method: Method, base: BaseModel, data: TextData
) -> tuple[Predictions, dict[str, int], dict[str, Any]]:
    """Train a PEFT model in a plain loop, on the batches and with the head that our trainer would use."""
    tokens = tokenize(base.tokenizer, data.train, config.data.max_length, data.task)
    infos = find_modules(base.model, config.adapter.targets, base.head)
    model = _peft_model(config, method, base, [info.name for info in infos])
    for name, parameter in model.named_parameters():
        if any(f".{head}." in f".{name}" for head in base.head):
            parameter.requires_grad_(True)
    peak = {"weight_decay": config.train.weight_decay, "peak_lr": config.train.lr}
    optimizer = AdamW([{"params": [p for p in model.parameters() if p.requires_grad], **peak}], lr=config.train.lr)
    device = torch.device("cpu")
    autocast = autocast_context(resolve_precision(config.train.precision, device), device)
    _peft_loop(config, model, tokens, optimizer, autocast)
    held_out = tokenize(base.tokenizer, data.held_out, config.data.max_length, data.task)
    predictions = predict(
        model, lambda net, batch: net(**batch).logits, held_out, data.task, batch_size=64, autocast=autocast
    )
    budget = sum(config.adapter.rank * info.cost for info in infos)
    return predictions, {"budget": budget, "active": _active(model, budget), "gate": 0}, {}


def _peft_loop(
    config: RunConfig, model: nn.Module, tokens: Tokens, optimizer: AdamW, autocast: Callable[[], Any]
) -> None:
    """Take the steps; AdaLoRA allocates after each of them, as PEFT documents."""
    total = config.train.max_steps(len(tokens))
    order = BatchOrder(tokens.length, config.train.batch_size, config.seed)
    allocate = getattr(getattr(model, "base_model", None), "update_and_allocate", None)
    model.train()
    for step in range(1, total + 1):
        set_lr(optimizer, config.train, step, total)
        seed_global_stream(config.seed, "forward", step, 0, 0)
        with autocast():
            loss = model(**tokens.batch(order[step - 1])).loss
        loss.backward()
        optimizer.step()
        if allocate is not None:
            allocate(step)
        optimizer.zero_grad(set_to_none=True)


def _peft_model(config: RunConfig, method: Method, base: BaseModel, targets: list[str]) -> nn.Module:
    """Return the base model with PEFT's adapters; AdaLoRA's schedule takes the shares of ours."""
    import peft

    rank, total = config.adapter.rank, config.train.max_steps(1)
    common: dict[str, Any] = {
        "lora_alpha": config.adapter.lora_alpha,
        "lora_dropout": config.adapter.dropout,
        "target_modules": targets,
    }
    torch.manual_seed(config.seed)
    if method.strategy == "lora":
        settings = peft.LoraConfig(r=rank, **common)
    else:
        phases: dict[str, Any] = {"tinit": round(0.12 * total), "tfinal": round(0.3 * total), "total_step": total}
        settings = peft.AdaLoraConfig(
            init_r=max(rank + 1, round(1.5 * rank)), target_r=rank, deltaT=max(1, round(total / 50)), **phases, **common
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(base.model, settings)  # pyright: ignore


def _active(model: nn.Module, budget: int) -> int:
    """Return the parameters whose component is not masked: all of LoRA's, those of AdaLoRA with E other than zero."""
    kept = 0
    parts = dict(model.named_parameters())
    masks = {name: tensor for name, tensor in parts.items() if "lora_E" in name}
    if not masks:
        return budget
    for name, tensor in masks.items():
        a, b = parts[name.replace("lora_E", "lora_A")], parts[name.replace("lora_E", "lora_B")]
        kept += int((tensor != 0).sum()) * (a.shape[1] + b.shape[0])
    return kept
