"""Putting a strategy's adapters into any model, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from dynlora import strategies, tasks
from dynlora.config import Section, Targets
from dynlora.custom_loop.attached import Attached
from dynlora.engine.adapt import adapt
from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.held_back import HeldBack
from dynlora.engine.loop.optimizer import peak_rate
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel, head_names
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, DynloraError, checked, first_line
from dynlora.tasks import Task
from dynlora.text import printable
from dynlora.training.initial_adapter import read_ranks, read_start


class Arguments(Section):
    """The numbers and names that `attach` takes; their meaning is there."""

    steps: int = Field(..., ge=1, le=10_000_000, description="Optimizer steps that will be taken.")
    budget: int = Field(8, ge=1, le=1024, description="Rank of the uniform LoRA whose parameters are the budget.")
    lr: float = Field(1e-3, gt=0, le=10, description="Learning rate of the optimizer.")
    alpha: float | None = Field(None, gt=0, le=1e9, description="Scaling is alpha / budget; None is 2 × budget.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every random draw.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input, probability.")
    targets: Targets = Field(
        None, description="Endings of module names; None adapts every linear module of the blocks."
    )


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
    dropout: float = 0.0,
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
        dropout: probability with which the adapters do not see an entry of their input, while the model trains.
        calibration: a few batches as the model takes them, to fix the gates' standardisation.
        fields: hyper-parameters of the strategy, when it is given by name.

    Raises:
        ConfigError: when a value breaks a rule, no module matches, or the model has adapters already.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> attached = dynlora.attach(model, budget=2, steps=3, targets=["0", "2"], gates="off")
        >>> for _ in range(3):
        ...     loss = model(torch.randn(16, 8)).square().mean() + attached.penalty()
        ...     loss.backward()
        ...     moved = attached.step()
        >>> len(attached.adapters.ranks)
        2
    """
    _check_model(model)
    names = targets if isinstance(targets, str) or not isinstance(targets, Iterable) else list(targets)
    numbers = {"budget": budget, "steps": steps, "lr": lr, "alpha": alpha, "seed": seed, "dropout": dropout}
    settings = checked(Arguments, {**numbers, "targets": names})
    method = _method(strategy, fields)
    _check(method, settings)
    lora_alpha = 2.0 * settings.budget if settings.alpha is None else settings.alpha
    with _explained("calibration=...", "give a list of batches, each what the model's forward takes by name"):
        batches = [dict(batch) for batch in calibration]
    with _explained(f"model={type(model).__name__}", "give a model that can be trained, and calibration that it takes"):
        _check_weights(model)
        task, head = _frozen(model)
        base = BaseModel(model, None, head, Path(), task)  # pyright: ignore
        adapters = adapt(
            base,
            method,
            rank=settings.budget,
            lora_alpha=lora_alpha,
            dropout=settings.dropout,
            targets=settings.targets,
            total=settings.steps,
            seed=settings.seed,
            batches=lambda n: batches[:n],  # pyright: ignore
        )
        if adapters.gates is not None and batches:
            adapters.gates.calibrate(model, batches)
        _start(method, adapters, base)
    optimizer = _optimizer(model, adapters, method, settings.lr)
    return Attached(
        model, adapters, method, optimizer, settings.steps, head, base.task, lora_alpha, calibration=batches
    )


@contextmanager
def _explained(argument: str, remedy: str) -> Iterator[None]:
    """Turn what torch, or the model, raises in the block into a sentence about an argument; the cause stays behind it.

    Raises:
        ConfigError: in the place of an error that is not ours.
    """
    try:
        yield
    except DynloraError:
        raise
    except Exception as error:
        raise ConfigError(f"attach({argument}): cannot be used ({first_line(error)}); {remedy}") from error


def _start(method: Strategy, adapters: Adapters, base: BaseModel) -> None:
    """Start a strategy that has no held-back rows."""
    rows = Tokens([], np.zeros(0, np.int64), np.zeros(0, np.int64), {})
    method.attach_held_back(HeldBack(base.model, method.forward, rows, 1, nullcontext, base.task))
    method.start(adapters)


def _frozen(model: nn.Module) -> tuple[Task, list[str]]:
    """Freeze a model but for its head; return what it predicts and the names of the head's modules."""
    model.requires_grad_(False)
    task = tasks.of_model(model)
    has_head = task.trains_head and hasattr(model, "base_model_prefix")
    head = head_names(model) if has_head else []  # pyright: ignore
    for name in head:
        model.get_submodule(name).requires_grad_(True)
    return task, head


def _method(strategy: str | Strategy, fields: Mapping[str, Any]) -> Strategy:
    """Return the strategy, which can read the ranks, or the adapter, that it is to start with.

    Raises:
        ConfigError: when it is none, or its settings cannot be used.
    """
    method = strategies.build(strategy, fields) if isinstance(strategy, str) else strategy
    if not isinstance(method, Strategy):
        raise ConfigError(
            f"attach(strategy={printable(repr(strategy), 60)}): must be the name of a method, such as 'dynamic', or a "
            "Strategy object; `dynlora strategies` lists the names"
        )
    if (source := method.ranks_source()) is not None:
        method.attach_ranks(partial(read_ranks, source))
    if (source := method.start_source()) is not None:
        method.attach_start(partial(read_start, source))
    return method


def _check(method: Strategy, settings: Arguments) -> None:
    """Refuse what cannot be trained, or not in a loop of one's own.

    Raises:
        ConfigError: naming the value, the rule and the remedy.
    """
    method.check(settings.steps, settings.budget)
    if method.lr_backoff:
        raise ConfigError(
            f"strategy.lr_backoff={method.lr_backoff}: backoff acts in dynlora's own loop; set it to 0, or "
            "train with dynlora.train"
        )


def _check_model(model: nn.Module) -> None:
    """Refuse what is no model, a wrapper around one, and a model that has adapters: two would adapt each other.

    Raises:
        ConfigError: saying what it is, and what to do.
    """
    if not isinstance(model, nn.Module):
        given = printable(repr(model), 60)
        raise ConfigError(
            f"attach(model={given}): must be a torch.nn.Module; load the model first, as transformers does"
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ConfigError(
            f"attach: the model is wrapped in {type(model).__name__}; give the model inside, `model.module`, and wrap "
            "it again afterwards"
        )
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            raise ConfigError(
                f"attach: the model has dynlora's adapters already, as at {name}; use what attach returned, or "
                "load the model again"
            )
        if type(module).__module__.startswith("peft.tuners"):
            raise ConfigError(
                "attach: the model is one of PEFT's, with adapters of its own; give the base model, "
                "`model.unload()` or `model.merge_and_unload()`"
            )


def _check_weights(model: nn.Module) -> None:
    """Refuse weights on which nothing can be trained.

    Raises:
        ConfigError: naming the first, why, and what to do.
    """
    for name, weight in model.named_parameters():
        if problem := _problem(weight):
            raise ConfigError(f"attach: the model's weight {name} {problem}")


def _problem(weight: Tensor) -> str:
    """Return why nothing can be trained on a weight, and what to do; empty where it can."""
    if nn.parameter.is_lazy(weight):
        return "has no shape yet; call the model once first"
    if weight.is_meta:
        return "is on the device meta, where it has no numbers; load the model whole, onto a processor or a GPU"
    if weight.is_inference() or torch.is_inference_mode_enabled():
        return "was made in torch.inference_mode(), where nothing can be trained; load the model, and attach, outside"
    is_readable = weight.is_floating_point() and weight.element_size() > 1 and weight.numel()
    if is_readable and not torch.stack(torch.aminmax(weight.detach())).isfinite().all():
        return "has numbers that are not finite; load the model again, or use another one"
    return ""


def _optimizer(model: nn.Module, adapters: Adapters, strategy: Strategy, lr: float) -> Optimizer:
    """Return AdamW over the strategy's groups and whatever else of the model is trainable."""
    groups = [{**group, "lr": peak_rate(group, lr)} for group in strategy.groups(adapters) if group["params"]]
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    taken |= {id(tensor) for module in adapters for tensor in module.parameters(recurse=False)}  # the strategy's alone
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    return AdamW([*groups, {"params": rest}] if rest else groups, lr=lr)
