"""What a merge is made of: its sources, their updates, and the modules that any of them adapts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from dynlora import tasks
from dynlora.engine.compress.components import Components
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.given_start import GivenModule
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError
from dynlora.kinds.merge.result import OWN
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.merge.work.sources import Source, Updates
from dynlora.tasks import Task


@dataclass
class Materials:
    """Everything a merge works with.

    Attributes:
        settings: of the merge.
        sources: in order.
        updates: of the sources, in order.
        modules: that any source adapts, in the model's order.
        machine: where sources are measured.
    """

    settings: MergeSettings
    sources: list[Source]
    updates: list[Updates]
    modules: list[ModuleInfo]
    machine: torch.device

    @classmethod
    def load(cls, settings: MergeSettings, runs_dir: Path) -> Materials:
        """Load the sources one after the other and keep their updates.

        Raises:
            DynloraError: when a source cannot be merged, or the budget holds no component.
        """
        settings.check(runs_dir)
        sources = [Source.of(run) for run in settings.runs(runs_dir)]
        updates: list[Updates] = []
        order: dict[str, int] = {}
        machine = torch.device("cpu")
        for source in sources:
            model = source.load()
            machine = model.base.model.device
            order = order or {name: number for number, (name, _) in enumerate(model.base.model.named_modules())}
            updates.append(Updates.of(source, model))
        modules = {info.name: info for one in updates for info in one.infos}
        ordered = sorted(modules.values(), key=lambda info: order.get(info.name, len(order)))
        made = cls(settings, sources, updates, ordered, machine)
        made.check_budget()
        return made

    def check_budget(self) -> None:
        """Refuse a budget that holds no component of any module.

        Raises:
            ConfigError: that says how large it must be.
        """
        least = min(info.cost for info in self.modules)
        if self.budget < least:
            raise ConfigError(
                f"budget {self.settings.budget or 0:g}: holds {self.budget:,} parameters, fewer than one component of "
                f"any module; give {least:,} or more"
            )

    @property
    def parameters(self) -> list[int]:
        """Parameters of each source's adapter."""
        return [one.parameters for one in self.updates]

    @property
    def budget(self) -> int:
        """Parameters that the merge may have."""
        return self.settings.allowed(self.parameters)

    @property
    def head(self) -> str:
        """What head the merge has: `none` was trained, the sources' `equal` one, or each has its `own`."""
        if not any(one.head for one in self.updates):
            return "none"
        return "equal" if all(self.updates[0].has_head_of(one) for one in self.updates[1:]) else OWN

    @property
    def task(self) -> Task:
        """The sources' task, with its defaults where their data is of different kinds."""
        first = self.updates[0].task
        return first if all(one.task == first for one in self.updates) else tasks.build(first.name)

    def of_module(self, info: ModuleInfo) -> dict[int, GivenModule]:
        """Return the updates of a module by position of the source, those that adapt it alone."""
        return {index: one.modules[info.name] for index, one in enumerate(self.updates) if info.name in one.modules}

    def ranks_of(self, info: ModuleInfo) -> list[int]:
        """Return the rank of a module in each source, 0 where it is not adapted."""
        given = self.of_module(info)
        return [len(given[index].A) if index in given else 0 for index in range(len(self.sources))]


@torch.no_grad()
def with_merge(model: AdaptedModel, modules: list[ModuleInfo], merged: list[Components], seed: int) -> AdaptedModel:
    """Return a source's model with the merge in the place of its adapter; the model is changed in place.

    Args:
        model: of a source, its head stays.
        modules: of the merge.
        merged: what is kept of each module.
        seed: of the merge.
    """
    for module in list(model.adapters):
        replace_module(model.base.model, module.info.name, module.base_layer)
    if model.adapters.gates is not None:
        model.adapters.gates.uninstall(model.base.model)
    adapted = []
    for info, table in zip(modules, merged, strict=True):
        base = model.base.model.get_submodule(info.name)
        rank = len(table)
        module = LoraLinear(base, info, rank=rank, max_rank=rank, scaling=table.scaling)
        module.lora_A.copy_(table.A)
        module.lora_B.copy_(table.B)
        replace_module(model.base.model, info.name, module)
        adapted.append(module)
    strategy = Strategy()
    strategy.attach_task(model.task)
    budget = sum(len(table) * table.cost for table in merged)
    adapters = Adapters(adapted, budget=budget, reference_rank=1, seed=seed)
    model.base.model.eval()
    return AdaptedModel(
        model.base, adapters, strategy, model.task, model.max_length, model.autocast, new_tokens=model.new_tokens
    )
