"""What a merge is made of: sources, their updates, the modules that any of them adapts; and its export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynlora import assets
from dynlora.engine.compress.components import Components
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates
from dynlora.engine.given_start import GivenModule
from dynlora.engine.loop.adapter_state import checked_state, load_adapter_state, saved_sizes
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.engine.loop.hardware import autocast_context
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.base_model import BaseModel, head_parameters, load_base
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, find_modules
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.session import GATE_ROWS, load_run
from dynlora.kinds.merge.result import OWN, head_of
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.sources import Source, common_task, export_made, sources_of
from dynlora.tasks import Task
from dynlora.tasks.classification import Classification
from dynlora.training.inputs import read_data

HEADLESS = (
    "\n\nThe heads of these adapters differ, so the merge has none: it gives features, and a head is put on them."
)


class Features(Classification):
    """A model without a head: PEFT calls what it gives features."""

    name = "features"
    peft_task_type = "FEATURE_EXTRACTION"
    trains_head = False


def load_merge(folder: Path) -> AdaptedModel:
    """Return a merge on its base model; on the model without a head where the heads of its sources differ.

    Raises:
        ConfigError: when the run has not ended.
        CorruptRunError: when it cannot be read.
    """
    return _without_head(folder) if head_of(folder) == OWN else load_run(folder)


@torch.no_grad()
def _without_head(folder: Path) -> AdaptedModel:
    """Return the merge on the base model without a head, whose modules have names without its prefix."""
    if find_checkpoint(folder / "adapter") is None:
        raise ConfigError(f"run {folder.name}: has no adapter, since it has not ended; continue it first")
    config, state = MergeSettings.stored_config(folder), checked_state(read_checkpoint(folder / "adapter"))["adapters"]
    task = Classification(("one", "other"))  # any head: it is left out
    whole = load_base(assets.resolve_model(config.model.name), task=task, seed=config.seed, layers=config.model.layers)
    infos = find_modules(whole.model, config.adapter.targets, whole.head)
    prefix = whole.model.base_model_prefix + "."
    base = BaseModel(whole.model.base_model, whole.tokenizer, [], whole.folder, Features())  # pyright: ignore
    base.model.requires_grad_(False)
    sizes, modules = saved_sizes(state), []
    for info in infos:
        rank, _ = sizes[info.name]
        own = replace(info, name=info.name.removeprefix(prefix))
        module = LoraLinear(base.model.get_submodule(own.name), own, rank=rank, max_rank=rank, scaling=1.0)
        replace_module(base.model, own.name, module)
        modules.append(module)
    adapters = Adapters(modules, budget=0, reference_rank=config.adapter.rank, seed=config.seed)
    load_adapter_state(adapters, {**state, "modules": _without(prefix, state["modules"])})
    strategy = Strategy()
    strategy.attach_task(base.task)
    base.model.eval()
    fp32 = autocast_context("fp32", torch.device("cpu"))
    return AdaptedModel(base, adapters, strategy, base.task, config.data.max_length, fp32)


def _without(prefix: str, modules: Mapping[str, Any]) -> dict[str, Any]:
    """Return saved modules under their names in the model without a head."""
    return {name.removeprefix(prefix): saved for name, saved in modules.items()}


def export_merge(folder: Path, out: Path, format: str = "peft") -> dict[str, Any]:
    """Write a merge, see `sources.export_made`.

    Raises:
        ConfigError: when the form is unknown, the run has not ended, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    settings, model = MergeSettings.of_run(folder), load_merge(folder)
    head = HEADLESS if isinstance(model.task, Features) else ""
    about = (
        f"A merge of {len(settings.sources)} adapters of `{{base}}` by dynlora (`dynlora merge`, method "
        f"{settings.method}).{head}"
    )
    return export_made(settings, MergeSettings.stored_config(folder), model, out, format, about)


def on_machine(source: Source) -> AdaptedModel:
    """Return the trained model of a source, on the accelerator where there is one."""
    model = source.load()
    if torch.accelerator.is_available():
        model.base.model.to(torch.accelerator.current_accelerator())  # pyright: ignore
    return model


@dataclass(frozen=True)
class Updates:
    """What is merged of a source.

    Attributes:
        modules: update by name of the module, gates at their means, on the CPU.
        infos: the adapted modules in the model's order.
        head: tensors of its head by name; none for a model that writes texts.
        task: what it predicts.
        notes: what a person should know, in sentences.
    """

    modules: Mapping[str, GivenModule]
    infos: Sequence[ModuleInfo]
    head: Mapping[str, Tensor]
    task: Task
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Parameters of the update: Σ rank · (d_in + d_out)."""
        return sum(len(self.modules[info.name].A) * info.cost for info in self.infos if info.name in self.modules)

    @classmethod
    @torch.no_grad()
    def of(cls, source: Source, model: AdaptedModel) -> Updates:
        """Take the update of every module; the gates of the model are baked in place.

        Raises:
            ConfigError: where the method's update is no product of small factors.
        """
        notes = _bake(source, model)
        modules = {}
        for module in model.adapters:
            try:
                form = module.peft_forms().get("LORA")
            except DynloraError:
                form = None
            if form is None:
                raise ConfigError(
                    f"source {source.run}: the update of {source.config.strategy.name} is no product of small factors; "
                    "give runs whose adapter is a LoRA"
                )
            if form:
                A, B = (form[name].detach().float().cpu().clone() for name in ("lora_A.weight", "lora_B.weight"))
                modules[module.info.name] = GivenModule(A, B, float(module.scaling))
        head = {name: tensor.detach().cpu().clone() for name, tensor in head_parameters(model.base).items()}
        return cls(modules, [module.info for module in model.adapters], head, model.task, notes)

    def has_head_of(self, other: Updates) -> bool:
        """Say whether another source has the same head for the same classes."""
        return (
            self.task.labels == other.task.labels
            and self.head.keys() == other.head.keys()
            and all(torch.equal(tensor, other.head[name]) for name, tensor in self.head.items())
        )


def _bake(source: Source, model: AdaptedModel) -> tuple[str, ...]:
    """Replace gates by their means over training examples, or by one where there is no data; return the notes."""
    if model.adapters.gates is None:
        return ()
    try:
        rows = read_data(source.config).train_sample(GATE_ROWS, source.config.seed)
        bake_gates(model, mean_gates(model, model.tokens(rows)))
    except DynloraError:
        bake_gates(model, None)
        return (f"the gates of source {source.run} count as one in the merge: its data cannot be read",)
    return (f"the gates of source {source.run} count as their means in the merge",)


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
        sources = sources_of(settings.runs(runs_dir))
        updates: list[Updates] = []
        order: dict[str, int] = {}
        machine = torch.device("cpu")
        for source in sources:
            model = on_machine(source)
            machine = model.base.model.device
            order = order or {name: place for place, (name, _) in enumerate(model.base.model.named_modules())}
            updates.append(Updates.of(source, model))
        modules = {info.name: info for one in updates for info in one.infos}
        ordered = sorted(modules.values(), key=lambda info: order.get(info.name, len(order)))
        made = cls(settings, sources, updates, ordered, machine)
        settings.check_budget(made.parameters, [info.cost for info in ordered])
        return made

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
        return common_task([one.task for one in self.updates])

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
