"""Adapters into a base model: ranks from the strategy, modules replaced, gates attached."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from dynlora.engine import edits
from dynlora.engine.context import Probe
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.base_model import BaseModel, head_parameters
from dynlora.engine.model.chosen_modules import ChosenModules, choose_modules
from dynlora.engine.model.gates import Gates, embeddings_of
from dynlora.engine.model.lowrank_function import use_sparse_dropout
from dynlora.engine.strategy import Batch, Strategy


def nothing(n: int) -> list[Batch]:
    """Return no batches: where a strategy may look at none."""
    return []


def probe_of(
    base: BaseModel,
    strategy: Strategy,
    chosen: ChosenModules,
    *,
    rank: int,
    lora_alpha: float,
    total: int,
    seed: int,
    batches: Callable[[int], list[Batch]] = nothing,
) -> Probe:
    """Return what a strategy may look at before it adapts these modules; see `adapt`."""
    budget = strategy.parameter_budget(sum(rank * info.cost for info in chosen.modules))
    return Probe(base.model, rank, budget, lora_alpha, total, batches, seed, base.task, chosen.mixed)


def adapt(  # noqa: PLR0913 - what a config says, named
    base: BaseModel,
    strategy: Strategy,
    *,
    rank: int,
    lora_alpha: float,
    dropout: float,
    targets: tuple[str, ...] | None,
    total: int,
    seed: int,
    batches: Callable[[int], list[Batch]],
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Adapters:
    """Put the strategy's adapters into the base model and return them.

    Args:
        base: model and head; its linear modules are replaced in place.
        strategy: says how large each adapter is and makes it.
        rank: of uniform LoRA; sets the budget.
        lora_alpha: sets the scaling.
        dropout: on the adapters' inputs.
        targets: endings of module names; None adapts every linear module of the blocks.
        total: optimizer steps of the run.
        seed: of the run.
        batches: gives n batches of training examples to strategies that look at data before they start.
        sizes: saved (rank, max_rank) by module name, instead of the strategy's start.

    Raises:
        ConfigError: when the targets match nothing, or the method cannot adapt the model.
    """
    strategy.attach_task(base.task)
    chosen = choose_modules(base, targets, sizes)
    infos, mode = chosen.modules, strategy.gate_mode()
    chosen.check_gates(mode)
    fresh = sizes is None
    probe = probe_of(
        base,
        strategy,
        chosen,
        rank=rank,
        lora_alpha=lora_alpha,
        total=total,
        seed=seed,
        batches=batches if fresh else nothing,
    )
    if fresh:
        strategy.check_model(infos, probe)
        ranks = strategy.ranks(infos, probe)
        sizes = {i.name: (r, strategy.max_rank(i, r, probe)) for i, r in zip(infos, ranks, strict=True)}
    modules = []
    for info in infos:
        adapter = strategy.adapter(info, base.model.get_submodule(info.name), *sizes[info.name], probe)
        if strategy.learns_scale():
            adapter.learn_scale()
        replace_module(base.model, info.name, adapter)
        modules.append(adapter)
    _replace_heads(base, strategy, probe)
    budget = strategy.budget_for(infos, [sizes[info.name][0] for info in infos], probe)
    adapters = Adapters(modules, budget=budget, reference_rank=rank, seed=seed, total=total)
    adapters.set_dropout(dropout)
    use_sparse_dropout(base.model)
    adapters.notes = chosen.notes(mode)
    if mode is not None:
        adapters.attach_gates(_gates(base.model, adapters, mode, chosen, is_causal=base.task.is_causal))
    if fresh:
        edits.apply(adapters, strategy.begin(adapters, probe), None, step=0)
        _start_head(base, strategy)
    return adapters


def _start_head(base: BaseModel, strategy: Strategy) -> None:
    """Let the head start from that of the adapter that the strategy starts from, if there is one."""
    if strategy.start_source() is None:
        return
    start, head = strategy.given_start(), head_parameters(base)
    start.check_rest(head)
    start.place_head(head)


def _replace_heads(base: BaseModel, strategy: Strategy, probe: Probe) -> None:
    """Let the strategy put something else in the place of the head's linear modules."""
    for part in base.head:
        owner = base.model.get_submodule(part)
        linears = [(f"{part}.{name}".rstrip("."), m) for name, m in owner.named_modules() if isinstance(m, nn.Linear)]
        for name, module in linears:
            if (own := strategy.head(name, module, probe)) is not module:
                replace_module(base.model, name, own)


def _gates(model: PreTrainedModel, adapters: Adapters, mode: str, chosen: ChosenModules, *, is_causal: bool) -> Gates:
    """Return gates hooked to the model's embedding; they become its child, so that they move and save with it."""
    embeddings = embeddings_of(model)
    width = int(embeddings[0].weight.shape[1])  # pyright: ignore
    widest = max(module.max_rank for module in adapters)
    device = next(model.parameters()).device
    gates = Gates(len(adapters), width, adapters.seed, device=device, mode=mode, max_rank=widest, is_causal=is_causal)
    gates.has_gate.copy_(torch.tensor([chosen.can_have_gate(module.info.name, mode) for module in adapters]))
    gates.install(model, getattr(model, "base_model", model), embeddings)
    return gates
