"""Three lines of Python: train a run, or attach a strategy to a training loop of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from dynlora import strategies, tasks
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import with_run_folder
from dynlora.engine import edits
from dynlora.engine.adapt import adapt
from dynlora.engine.context import Step
from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.held_back import HeldBack
from dynlora.engine.loop.optimizer import peak_rate
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel, head_names
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError
from dynlora.store.run import Run, open_run
from dynlora.training.given_ranks import read_ranks
from dynlora.training.given_start import read_start


def train(config: RunConfig | Mapping[str, Any], runs_dir: str | Path = "runs", *, progress: bool = True) -> Run:
    """Train a run to its end and return it.

    Args:
        config: a `RunConfig`, or plain values such as {"strategy": {"name": "dynamic"}}.
        runs_dir: folder that holds the runs.
        progress: show a progress bar.

    Raises:
        DynloraError: when something the config names cannot be used, or the run fails.
    """
    from dynlora.training import run as training

    settings = with_run_folder(config if isinstance(config, RunConfig) else parse_config(config), Path(runs_dir))
    outcome = training.train(settings, Path(runs_dir), progress=progress)
    if outcome.state == "failed":
        raise training.RunFailedError(f"run {outcome.folder.name} failed: {outcome.error}")
    return open_run(outcome.folder)


@dataclass
class Attached:
    """A strategy on a model that someone else trains.

    Call `step()` where the loop would call `optimizer.step()`: gradients complete, and before they are cleared.

    Attributes:
        model: the model, its linear modules replaced by adapted ones.
        adapters: the adapted modules.
        strategy: the method.
        optimizer: AdamW over the adapters and whatever else of the model is trainable.
        total: optimizer steps that will be taken.
        index: optimizer steps taken.
    """

    model: nn.Module
    adapters: Adapters
    strategy: Strategy
    optimizer: Optimizer
    total: int
    index: int = 0

    def penalty(self) -> Tensor:
        """Return what the strategy adds to the loss; add it before `backward`."""
        terms = self.strategy.penalty(self.adapters)
        device = self.adapters[0].lora_A.device
        return torch.stack(list(terms.values())).sum() if terms else torch.zeros((), device=device)

    def step(self) -> list[dict[str, Any]]:
        """Observe, move the weights, reallocate, clear the gradients; return what moved, module by index."""
        self.index += 1
        step = Step(self.index, self.total, float(self.optimizer.param_groups[0]["lr"]))
        with torch.no_grad():
            self.strategy.observe(self.adapters, step)
        self.adapters.clear_probe_gradients()
        self.optimizer.step()
        with torch.no_grad():
            made = self.strategy.allocate(self.adapters, step)
            edits.apply(self.adapters, made, self.optimizer, step=self.index)
            if self.index == self.total:
                last = self.strategy.finish(self.adapters)
                edits.apply(self.adapters, last, self.optimizer, step=self.index)
                made = [*made, *last]
        self.optimizer.zero_grad(set_to_none=True)
        self.adapters.clear_gradients()
        self.adapters.streams.at(self.index)  # the next forward draws again
        return edits.describe(made)


def attach(  # noqa: PLR0913 - the public form; all but the model are named
    model: nn.Module,
    *,
    strategy: str | Strategy = "dynamic",
    budget: int = 8,
    steps: int,
    lr: float = 1e-3,
    alpha: float | None = None,
    targets: Iterable[str] | None = None,
    seed: int = 0,
    calibration: Iterable[Mapping[str, Tensor]] = (),
    **fields: Any,
) -> Attached:
    """Put a strategy's adapters into any model with linear modules, for one's own training loop.

    The model's weights are frozen, but for the head of a transformers model that predicts labels.

    Args:
        model: a transformers model or any `nn.Module`.
        strategy: its name, or a strategy object.
        budget: rank of the uniform LoRA whose parameters are the budget.
        steps: optimizer steps that will be taken; schedules depend on it.
        lr: learning rate of the optimizer.
        alpha: scaling is alpha / budget; None is twice the budget.
        targets: endings of module names; None adapts every linear module of the blocks.
        seed: of every random draw.
        calibration: a few batches as the model takes them, to fix the gates' standardisation.
        fields: hyper-parameters of the strategy, when it is given by name.

    Raises:
        ConfigError: when a value breaks a rule, or no module matches.
    """
    method = _method(strategy, fields)
    _check(method, steps, budget)
    model.requires_grad_(False)
    task = tasks.of_model(model)
    has_head = task.trains_head and hasattr(model, "base_model_prefix")
    head = head_names(model) if has_head else []  # pyright: ignore
    for name in head:
        model.get_submodule(name).requires_grad_(True)
    batches = [dict(batch) for batch in calibration]
    base = BaseModel(model, None, head, Path(), task)  # pyright: ignore
    adapters = adapt(
        base,
        method,
        rank=budget,
        lora_alpha=2.0 * budget if alpha is None else alpha,
        dropout=0.0,
        targets=None if targets is None else tuple(targets),
        total=steps,
        seed=seed,
        batches=lambda n: batches[:n],  # pyright: ignore
    )
    if adapters.gates is not None and batches:
        adapters.gates.calibrate(model, batches)
    rows = Tokens([], np.zeros(0, np.int64), np.zeros(0, np.int64), {})
    method.attach_held_back(HeldBack(model, method.forward, rows, 1, nullcontext, base.task))
    method.start(adapters)
    return Attached(model, adapters, method, _optimizer(model, adapters, method, lr), steps)


def _method(strategy: str | Strategy, fields: Mapping[str, Any]) -> Strategy:
    """Return the strategy, which can read the ranks, or the adapter, that it is to start with."""
    method = strategies.build(strategy, fields) if isinstance(strategy, str) else strategy
    if (source := method.ranks_source()) is not None:
        method.attach_ranks(partial(read_ranks, source))
    if (source := method.start_source()) is not None:
        method.attach_start(partial(read_start, source))
    return method


def _check(method: Strategy, steps: int, budget: int) -> None:
    """Refuse what cannot be trained, or not in a loop of one's own.

    Raises:
        ConfigError: naming the value, the rule and the remedy.
    """
    if steps < 1 or budget < 1:
        raise ConfigError(f"steps={steps}, budget={budget}: both must be at least 1")
    method.check(steps, budget)
    if method.lr_backoff:
        raise ConfigError(
            f"strategy.lr_backoff={method.lr_backoff}: backoff acts in dynlora's own loop; set it to 0, or "
            "train with dynlora.train"
        )


def _optimizer(model: nn.Module, adapters: Adapters, strategy: Strategy, lr: float) -> Optimizer:
    """Return AdamW over the strategy's groups and whatever else of the model is trainable."""
    groups = [{**group, "lr": peak_rate(group, lr)} for group in strategy.groups(adapters) if group["params"]]
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    taken |= {id(tensor) for module in adapters for tensor in module.parameters(recurse=False)}  # the strategy's alone
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    return AdamW([*groups, {"params": rest}] if rest else groups, lr=lr)
