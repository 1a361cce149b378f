"""All adapted modules of a model in order, their budget, and what belongs to each component beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dynlora.engine.model.gates import GateReader, Gates, gate_numbers
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.lowrank_function import DropoutStreams


class Adapters(Sequence[LoraLinear]):
    """All adapted modules of a model in order, with what belongs to each component beside its weights.

    Attributes:
        budget: adapter parameters allowed, Σ reference rank · (d_in + d_out).
        total: optimizer steps of the run, 0 where it is not known.
        gates: the input gates, or None.
        notes: what a person should know of which modules are adapted and have gates, in sentences.
        components: named per-component state, (n_modules, widest max_rank); edits keep it beside its component.
        over_processes: mean of a tensor over the processes, for what each of them sees on its own part of a batch.
    """

    def __init__(
        self, modules: Sequence[LoraLinear], *, budget: int, reference_rank: int, seed: int, total: int = 0
    ) -> None:
        """Collect `modules`."""
        self.modules = list(modules)
        self.budget = budget
        self.reference_rank = reference_rank
        self.seed = seed
        self.total = total
        self.gates: Gates | None = None
        self.notes: list[str] = []
        self.components: dict[str, Tensor] = {}
        self.grown_value: dict[str, float] = {}
        self.streams = DropoutStreams(seed)
        self.over_processes: Callable[[Tensor], Tensor] = lambda value: value
        for module in self.modules:
            module.streams = self.streams

    def __len__(self) -> int:
        """Return the number of adapted modules."""
        return len(self.modules)

    def __getitem__(self, index):
        """Return one adapted module, or a slice of them."""
        return self.modules[index]

    def __iter__(self) -> Iterator[LoraLinear]:
        """Iterate in forward order."""
        return iter(self.modules)

    @property
    def ranks(self) -> list[int]:
        """Components that reach the output, by module."""
        return [module.active_rank() for module in self.modules]

    @property
    def costs(self) -> list[int]:
        """Parameters of one component, by module; its own gate's among them where it has one."""
        gate = gate_numbers("rank") if self.gates is not None and self.gates.mode == "rank" else 0
        return [module.info.cost + (gate if module.gates is not None else 0) for module in self.modules]

    @property
    def spendable(self) -> int:
        """Parameters of the budget that components may take: all but learned scales and gates that modules share."""
        shared = self.gates is not None and self.gates.mode != "rank"
        scales = sum(module.scale_logit is not None for module in self.modules)
        return self.budget - scales - (self.gate_parameters() if shared else 0)

    @property
    def slack(self) -> int:
        """Parameters of the budget that are free."""
        return self.spendable - sum(module.rank * cost for module, cost in zip(self.modules, self.costs, strict=True))

    def track(self, name: str, grown: float = 0.0) -> Tensor:
        """Return a per-component state (n_modules, widest max_rank), made on first use; new components get `grown`."""
        if name not in self.components:
            width = max((module.max_rank for module in self.modules), default=0)
            device = self.modules[0].lora_A.device if self.modules else None
            self.components[name] = torch.full((len(self.modules), width), grown, device=device)
            self.grown_value[name] = grown
        return self.components[name]

    def adapter_parameter_count(self) -> dict[str, int]:
        """Return parameters: budget, active, allocated, gate."""
        allocated = sum(module.allocated_parameters() for module in self.modules)
        active = int(self.active_parameters())
        return {"budget": self.budget, "active": active, "allocated": allocated, "gate": self.gate_parameters()}

    def active_parameters(self) -> int | Tensor:
        """Return the adapters' parameters that reach the output; on the device where factors decide it."""
        parts = [(part, size) for module in self.modules for part, size in module.active_parts()]
        return sum({id(part): size for part, size in parts}.values())

    def gate_parameters(self) -> int:
        """Return the parameters of the gates in use; they count against the budget."""
        if self.gates is None:
            return 0
        gated = [module for module in self.modules if module.gates is not None]
        if self.gates.mode == "rank":
            return gate_numbers("rank") * sum(module.rank for module in gated)
        return gate_numbers(self.gates.mode) * len(gated)

    def attach_gates(self, gates: Gates) -> None:
        """Let every module that has a gate read its own column of `gates`."""
        self.gates = gates
        gates.ranks = lambda: [module.rank for module in self.modules]
        for index, (module, has_gate) in enumerate(zip(self.modules, gates.has_gate.tolist(), strict=True)):
            module.gates = GateReader(gates, index) if has_gate else None

    def set_dropout(self, probability: float) -> None:
        """Set the dropout on the adapters' inputs."""
        for module in self.modules:
            module.dropout = probability

    @contextmanager
    def disabled(self, modules: Sequence[int] | None = None) -> Iterator[None]:
        """Run the frozen model without its adapters inside the block, as PEFT's `disable_adapter` does.

        Args:
            modules: positions of those that are off, for an ablation; all by default.
        """
        chosen = self.modules if modules is None else [self.modules[index] for index in modules]
        before = [module.enabled for module in chosen]
        try:
            for module in chosen:
                module.enabled = False
            yield
        finally:
            for module, enabled in zip(chosen, before, strict=True):
                module.enabled = enabled

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiply the update of every module by a factor, for good: the factor is in B, and any form can hold it."""
        tensors = {id(tensor): tensor for module in self.modules for tensor in module.outer_tensors()}
        for tensor in tensors.values():  # modules may share one
            tensor.mul_(factor)
        for module in self.modules:
            module.rescaled(factor)

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """Multiply the update of every module by a factor inside the block: 0 is the base model, 1 as it was trained.

        What a module adds is taken from its output: every method has it, and afterwards all bits are as before.
        """
        handles = [] if factor == 1 else [module.register_forward_hook(_scaling(factor)) for module in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def clear_gradients(self) -> None:
        """Forget the gradients of A and B, also where the optimizer holds other tensors than these."""
        for module in self.modules:
            module.lora_A.grad = module.lora_B.grad = None


def _scaling(factor: float) -> Callable[[LoraLinear, tuple[Tensor, ...], Tensor], Tensor | None]:
    """Return a hook that multiplies what a module adds to its frozen map by a factor."""

    def scale(module: LoraLinear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not module.enabled:
            return None
        module.enabled = False
        try:
            frozen = module.forward(*inputs)  # called as it is: hooks are for the output of the whole
        finally:
            module.enabled = True
        return frozen + factor * (output - frozen)

    return scale


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` at a dotted name of `model`."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent) if parent else model
    setattr(owner, child, new)
