"""What was trained in a loop of one's own, as files: a state to continue from, and an adapter that PEFT loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.evaluation.export import AdapterFacts
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state, load_head_state
from dynlora.engine.loop.checkpoint import load_optimizer_state, moved, optimizer_state
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, CorruptRunError
from dynlora.inference.forms import Form, form_of
from dynlora.tasks import Task
from dynlora.training.folder_work import staged


@dataclass
class Parts:
    """A strategy on a model that someone else trains.

    Attributes:
        model: the model, its linear modules replaced by adapted ones.
        adapters: the adapted modules.
        strategy: the method.
        optimizer: AdamW over the adapters and whatever else of the model is trainable.
        total: optimizer steps that will be taken.
        head: names of the modules that are trained in full.
        task: what the model predicts, as far as its class tells.
        lora_alpha: as it was asked for; the scaling is alpha / budget.
        index: optimizer steps taken.
        calibration: batches that fixed the gates' standardisation.
    """

    model: nn.Module
    adapters: Adapters
    strategy: Strategy
    optimizer: Optimizer
    total: int
    head: list[str]
    task: Task
    lora_alpha: float
    index: int = 0
    calibration: list[dict[str, Tensor]] = field(default_factory=list[dict[str, Tensor]], repr=False)


PARTS = ("made_with", "step", "adapters", "trained", "optimizer", "rates", "strategy")
"""What a saved state holds."""


def state_of(attached: Parts) -> dict[str, Any]:
    """Return everything that a bit-equal resume needs; random streams are functions of seed and step."""
    return {
        "made_with": _made_with(attached),
        "step": attached.index,
        "adapters": adapter_state(attached.adapters),
        "trained": {name: tensor.data for name, tensor in _trained(attached).items()},
        "optimizer": optimizer_state(attached.optimizer),
        "rates": [float(group["lr"]) for group in attached.optimizer.param_groups],
        "strategy": attached.strategy.state_dict(),
    }


def restore(attached: Parts, state: Mapping[str, Any]) -> None:
    """Set an attached strategy to a saved state.

    Raises:
        ConfigError: when it was made with other arguments.
        CorruptRunError: when it lacks something, or belongs to another model.
    """
    if missing := [name for name in PARTS if name not in state]:
        raise CorruptRunError(f"the saved state lacks its {missing[0]}; it was not written by Attached.save")
    ours = _made_with(attached)
    for name, value in state["made_with"].items():
        if ours.get(name) != value:
            raise ConfigError(
                f"load: the state was saved with {name}={value}, and this is {ours.get(name)}; use the same"
            )
    device = attached.adapters[0].lora_A.device
    load_adapter_state(attached.adapters, state["adapters"])
    load_head_state(_trained(attached), state["trained"])
    load_optimizer_state(attached.optimizer, state["optimizer"])
    for group, rate in zip(attached.optimizer.param_groups, state["rates"], strict=True):
        group["lr"] = rate
    attached.strategy.load_state_dict(moved(state["strategy"], device))
    attached.index = state["step"]
    attached.adapters.streams.at(attached.index)


def _made_with(attached: Parts) -> dict[str, Any]:
    """Return what must be the same for a state to fit."""
    adapters = attached.adapters
    settings = {
        f"strategy.{field.name}": getattr(attached.strategy, field.name)
        for field in fields(attached.strategy)
        if field.init
    }
    return {
        "strategy": type(attached.strategy).__name__,
        "steps": attached.total,
        "budget": adapters.reference_rank,
        "alpha": float(attached.lora_alpha),
        "seed": adapters.seed,
        **settings,
    }


def _trained(attached: Parts) -> dict[str, nn.Parameter]:
    """Return what else of the model is trained, by name."""
    own = {id(tensor) for module in attached.adapters for tensor in module.parameters(recurse=False)}
    gates = attached.adapters.gates
    own |= {id(tensor) for tensor in gates.parameters()} if gates is not None else set()
    return {name: p for name, p in attached.model.named_parameters() if p.requires_grad and id(p) not in own}


def adapter_form(name: str, ranks: str | None) -> Form:
    """Return a form that holds the adapter alone.

    Raises:
        ConfigError: for another one, which changes the model or needs its tokenizer.
    """
    form = form_of(name, ranks)
    if not form.is_adapter:
        raise ConfigError(
            f"export(form={name!r}): is no adapter; export peft, and merge it with PEFT's merge_and_unload"
        )
    return form


def export_attached(attached: Parts, folder: Path, batches: Sequence[Mapping[str, Tensor]], form: Form) -> Path:
    """Write the adapter; see `Attached.export`."""
    base = BaseModel(attached.model, None, attached.head, Path(), attached.task)  # pyright: ignore
    model = AdaptedModel(base, attached.adapters, attached.strategy, attached.task, 0, torch.no_grad)
    mean = _mean_gates(attached, batches)
    config = getattr(attached.model, "config", None)
    name = str(getattr(config, "name_or_path", "") or "")
    with staged(folder) as staging, _gates_off(attached.adapters, mean):
        facts = AdapterFacts(name, attached.lora_alpha, attached.adapters.reference_rank)
        form.write(model, staging, facts)
    return folder


@torch.no_grad()
def _mean_gates(attached: Parts, batches: Sequence[Mapping[str, Tensor]]) -> Tensor | None:
    """Return each gate averaged over the sequences of batches; None without gates.

    Raises:
        ConfigError: when there is nothing to average over.
    """
    gates = attached.adapters.gates
    if gates is None:
        return None
    if not batches:
        raise ConfigError(
            "export: the strategy has gates, which an exported adapter replaces by their means; give batches=, a few "
            "batches as the model takes them"
        )
    training, sums, rows = attached.model.training, torch.zeros_like(gates.bias), 0
    attached.model.eval()
    try:
        for batch in batches:
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            with gates.adding_up(sums) if gates.mode == "rank" else torch.no_grad():
                gates.see(partial(attached.model, **inputs))
            if gates.values is None:
                raise ConfigError("export: the batches reach no embedding of the model; give them as it takes them")
            rows += len(gates.values)
            if gates.mode != "rank":
                sums += gates.values.sum(0)
    finally:
        attached.model.train(training)
    return sums / rows


@contextmanager
def _gates_off(adapters: Adapters, mean: Tensor | None) -> Iterator[None]:
    """Put the gates' means in their place inside the block, as in a baked adapter."""
    if mean is None:
        yield
        return
    before = [(module.gates, module.scaling, module.lora_B.data) for module in adapters]
    gates, adapters.gates = adapters.gates, None
    try:
        for index, module in enumerate(adapters):
            module.gates = None
            if mean.dim() == 1:
                module.scaling *= float(mean[index])
            else:
                module.lora_B.data = module.lora_B.data * mean[index, : module.held]
        yield
    finally:
        adapters.gates = gates
        for module, (reader, scaling, factor) in zip(adapters, before, strict=True):
            module.gates, module.scaling, module.lora_B.data = reader, scaling, factor
