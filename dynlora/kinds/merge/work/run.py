"""A merge from its settings to its end: sources, their updates, the steps, the results, and its export."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlora import assets
from dynlora.analysis.stats import per_token
from dynlora.engine.compress.components import Components, by_global_threshold, components, within_budget
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates
from dynlora.engine.given_start import GivenModule
from dynlora.engine.initializers import leading
from dynlora.engine.loop.adapter_state import MOST_RANK, checked_state, load_adapter_state, saved_sizes
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.engine.loop.hardware import describe_machine
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.base_model import BaseModel, head_parameters, load_base
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, find_modules
from dynlora.engine.randomness import stream
from dynlora.engine.recorder import Recorder
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.session import average_gates, load_run, on_accelerator
from dynlora.kinds.merge.result import BASE, MERGE, MERGED, OWN, head_of
from dynlora.kinds.merge.settings import STACK, MergeSettings
from dynlora.kinds.sources import Source, common_task, export_made, resumed, sources_of
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter
from dynlora.tasks import Task, WritingTask
from dynlora.tasks.classification import Classification
from dynlora.training.inputs import read_data, usable
from dynlora.training.progress_stream import StopRequest
from dynlora.training.stepwise import Stepwise, keep_adapter

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
    return AdaptedModel(base, adapters, strategy, base.task, config.data.max_length)


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
        average_gates(model, read_data(source.config), source.config.seed)
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
            model = on_accelerator(source.load())
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


def merged_components(
    updates: Mapping[int, GivenModule], settings: MergeSettings, module: str, d_out: int, d_in: int, most: int
) -> Components:
    """Return the merged update of a module as components, their scaling 1.

    Args:
        updates: of the sources that adapt the module, by their position.
        settings: of the merge.
        module: its name, which keys what is drawn.
        d_out: rows of the update.
        d_in: columns of the update.
        most: components that the budget could hold, were they all of this module.
    """
    weights = settings.shares
    if settings.method == STACK:
        rows = [one.A.double() for one in updates.values()]
        columns = [weights[source] * one.scaling * one.B.double() for source, one in updates.items()]
        return _single(components(torch.cat(rows), torch.cat(columns, 1), 1.0))
    dense = {source: one.scaling * (one.B.double() @ one.A.double()) for source, one in updates.items()}
    total = METHODS[settings.method](dense, weights, settings, module)
    n = min(d_out, d_in, most, MOST_RANK)
    u, value, v = leading(total, n, stream(settings.seed, module, "merge"))
    return _single(components(v, u * value, 1.0))


def _single(table: Components) -> Components:
    """Return components whose factors are in single precision, as adapters keep them."""
    return Components(table.A.float(), table.B.float(), table.effect, table.scaling, table.cost)


def ties(dense: Mapping[int, Tensor], weights: Sequence[float], settings: MergeSettings, module: str) -> Tensor:
    """Return the TIES merge of updates, (d_out, d_in): trimmed, signs elected, averaged by weight over the agreeing.

    The average of the agreeing entries is scaled by the sum of all weights, as the sum of `stack` is; it is 1 where
    no weights were given.

    Args:
        dense: updates by position of the source, (d_out, d_in) each.
        weights: of all sources.
        settings: of the merge.
        module: not used.
    """
    trimmed = {source: trim(update, settings.kept_share) for source, update in dense.items()}
    elected = torch.stack([weights[source] * update for source, update in trimmed.items()]).sum(0).sign()
    total = torch.zeros_like(elected)
    agreeing = torch.zeros_like(elected)
    for source, update in trimmed.items():
        agrees = (update.sign() == elected) & (elected != 0)
        total += torch.where(agrees, weights[source] * update, 0.0)
        agreeing += weights[source] * agrees
    return sum(weights) * total / torch.where(agreeing > 0, agreeing, 1.0)


def trim(update: Tensor, density: float) -> Tensor:
    """Return an update with its entries of largest size, a fraction `density` of them; the others are zero."""
    n = math.ceil(density * update.numel())
    largest = update.abs().flatten().topk(n).indices
    flat = torch.zeros(update.numel(), dtype=update.dtype)
    flat[largest] = update.flatten()[largest]
    return flat.view_as(update)


def dare(dense: Mapping[int, Tensor], weights: Sequence[float], settings: MergeSettings, module: str) -> Tensor:
    """Return the DARE merge of updates, (d_out, d_in): the weighted sum of entries kept at random and rescaled.

    What is dropped depends on the seed, the source and the module alone.
    """
    total: Tensor | None = None
    for source, update in dense.items():
        draw = torch.rand(update.shape, generator=stream(settings.seed, module, source, "dare"))
        part = torch.where(draw < settings.kept_share, weights[source] * update / settings.kept_share, 0.0)
        total = part if total is None else total + part
    assert total is not None, "a module that no source adapts is not merged"
    return total


METHODS: Mapping[str, Callable[[Mapping[int, Tensor], Sequence[float], MergeSettings, str], Tensor]] = {
    "ties": ties,
    "dare": dare,
}
"""The methods on the product, by name."""


BATCH = 32
"""Examples of a forward pass."""

Sums = tuple[Tensor, Tensor]
"""The loss of each example, and over how many tokens it is a sum, one for an example with a label, (n,) each."""


@dataclass
class Merging(Stepwise):
    """Everything a merge has done so far.

    Attributes:
        materials: what it works with.
        recorder: takes what is recorded.
        step: steps done, of both stages together.
        tables: the components of each module that is merged, all of them.
        losses: of each source that is measured, by model; a sentence where its data cannot be read.
    """

    materials: Materials
    recorder: Recorder
    step: int = 0
    tables: list[Components] = field(default_factory=list[Components])
    losses: list[dict[str, Sums] | str] = field(default_factory=list["dict[str, Sums] | str"])

    # --- the plan

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages with their first and last step."""
        return self.materials.settings.stages(len(self.materials.modules))

    # --- the work

    def advance(self) -> None:
        """Merge the next module, or measure the merge on the data of the next source."""
        if self.stage() == "modules":
            self._merge_module()
        else:
            self.losses.append(self._measured(len(self.losses)))
        self.step += 1
        if self.step == len(self.materials.modules):
            self.recorder.event(self.step, MERGED, [], self.described())
        self.recorder.progress(self.step)

    def _merge_module(self) -> None:
        materials = self.materials
        info = materials.modules[len(self.tables)]
        updates, most = materials.of_module(info), materials.budget // info.cost
        if updates and most:
            table = merged_components(updates, materials.settings, info.name, info.d_out, info.d_in, most)
        else:
            table = _nothing(info.d_out, info.d_in)
        self.tables.append(table)

    @property
    def merged(self) -> list[Components]:
        """What one threshold over all modules keeps of each within the budget; all modules must be merged."""
        budget, seed = self.materials.budget, self.materials.settings.seed
        chosen = within_budget(by_global_threshold(self.tables, seed), self.tables, budget)
        return [_first(table, len(positions)) for table, positions in zip(self.tables, chosen, strict=True)]

    def _measured(self, index: int) -> dict[str, Sums] | str:
        """Return the loss of base model, own adapter and merge on the held-out examples of a source."""
        source, settings = self.materials.sources[index], self.materials.settings
        try:
            rows = source.sample(settings.rows, settings.seed, index)
        except DynloraError as error:
            return str(error)
        model = on_accelerator(source.load())
        tokens = usable(model.tokens(rows))
        losses = {}
        for name, state in ((BASE, model.adapters.disabled), (OWN, nullcontext)):
            with state():
                losses[name] = _losses(model, tokens)
        losses[MERGE] = _losses(with_merge(model, self.materials.modules, self.merged, settings.seed), tokens)
        return losses

    # --- the results

    def described(self) -> dict[str, Any]:
        """Return the parameters of the merge, and its ranks beside those of the sources; all modules must be merged."""
        merged = self.merged
        ranks = [
            {"module": info.name, "merge": len(table), "sources": self.materials.ranks_of(info)}
            for info, table in zip(self.materials.modules, merged, strict=True)
        ]
        return {"parameters": sum(len(table) * table.cost for table in merged), "ranks": ranks}

    def document(self, run_id: str) -> dict[str, Any]:
        """Return the results as the command prints them, losses in the unit of the task."""
        materials = self.materials
        measured = {
            source.run: losses
            for source, losses in zip(materials.sources, self.losses, strict=True)
            if not isinstance(losses, str)
        }
        return {
            "id": run_id,
            "method": materials.settings.method,
            "budget": materials.budget,
            "of": sum(materials.parameters),
            **self.described(),
            "loss": {run: {name: _interval(*one) for name, one in losses.items()} for run, losses in measured.items()},
            "against_own": {run: {MERGE: _difference(losses, OWN)} for run, losses in measured.items()},
            "against_base": {run: {MERGE: _difference(losses, BASE)} for run, losses in measured.items()},
            "notes": [
                *(note for one in materials.updates for note in one.notes),
                *(losses for losses in self.losses if isinstance(losses, str)),
                *self._head_notes(),
            ],
        }

    def _head_notes(self) -> list[str]:
        if self.materials.head != OWN:
            return []
        return ["the heads of the sources differ: each was measured with its own, and the merge has none"]

    # --- what survives a stop or a crash

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        tables = [{"A": one.A, "B": one.B, "effect": one.effect} for one in self.tables]
        return {"step": self.step, "tables": tables, "losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step = state["step"]
        costs = [info.cost for info in self.materials.modules]
        self.tables = [
            Components(one["A"], one["B"], one["effect"], 1.0, cost)
            for one, cost in zip(state["tables"], costs, strict=False)  # those that were merged
        ]
        self.losses = [
            losses if isinstance(losses, str) else {name: (one[0], one[1]) for name, one in losses.items()}
            for losses in state["losses"]
        ]


def _nothing(d_out: int, d_in: int) -> Components:
    """Return the components of an update of zero."""
    return Components(torch.zeros(0, d_in), torch.zeros(d_out, 0), torch.zeros(0).double(), 1.0, d_in + d_out)


def _first(table: Components, n: int) -> Components:
    """Return the n components of largest effect: a threshold keeps a beginning, since effects fall."""
    return Components(table.A[:n], table.B[:, :n], table.effect[:n], table.scaling, table.cost)


def _losses(model: AdaptedModel, tokens: Tokens) -> Sums:
    """Return the loss of each example as a sum over its tokens, for a model that writes, else as it is."""
    predictions = model.predictions(tokens, BATCH)
    if isinstance(model.task, WritingTask):
        output = torch.from_numpy(predictions.output.astype(np.float64))
        return output[:, 0].clone(), output[:, 2].clone()
    loss = torch.from_numpy(predictions.loss.astype(np.float64))
    return loss, torch.ones_like(loss)


def _interval(sums: Tensor, counts: Tensor) -> dict[str, float]:
    return per_token(sums.numpy(), counts.numpy())


def _difference(losses: Mapping[str, Sums], other: str) -> dict[str, float]:
    """Return the merge's loss less another model's, paired over the same examples."""
    sums, counts = losses[MERGE]
    return _interval(sums - losses[other][0], counts)


def _describe(merging: Merging, writer: RunWriter) -> None:
    """Tell the store what the merge is made of, where it runs and how long it is."""
    materials = merging.materials
    of = materials.settings
    sources = zip(materials.sources, materials.parameters, strict=True)
    writer.set_meta("machine", describe_machine(materials.machine, "fp32"))
    writer.set_meta("task", materials.task.name)
    writer.set_meta("task_facts", materials.task.facts())
    writer.define_modules([ModuleRow.of(info, sum(materials.ranks_of(info))) for info in materials.modules])
    writer.set_meta(
        "merge",
        {
            "method": of.method,
            "weights": list(of.shares),
            "density": None if of.method == STACK else of.kept_share,
            "sources": [{**one.described(), "parameters": parameters} for one, parameters in sources],
            "budget": materials.budget,
            "of": sum(materials.parameters),
            "head": materials.head,
            "unit": materials.task.loss_unit,
            "stages": merging.stages,
        },
    )


def _finish(merging: Merging, writer: RunWriter, _stop: StopRequest) -> bool:
    """Keep the results and the merge, all safe on the disk.

    Raises:
        OSError: when the disk does not take them; the checkpoint is still there then.
    """
    document, materials = merging.document(writer.folder.name), merging.materials
    for note in document["notes"]:
        writer.log("warning", note)
    writer.set_meta("merge_results", document)
    model = with_merge(
        on_accelerator(materials.sources[0].load()), materials.modules, merging.merged, materials.settings.seed
    )
    writer.set_meta("params", model.adapters.adapter_parameter_count())
    has_head = materials.head != OWN
    keep_adapter(
        model.adapters,
        writer,
        step=merging.total,
        task=materials.task.name,
        task_settings=materials.task.settings(),
        **({"head": dict(materials.updates[0].head), "labels": list(materials.task.labels)} if has_head else {}),
    )
    return True


resume = partial(resumed, MergeSettings, Materials, Merging, _describe, _finish)
"""Starts a merge, or continues it from its last checkpoint; takes the folder of the run."""
