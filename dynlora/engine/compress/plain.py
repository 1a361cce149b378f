"""A trained model with plain LoRA in the place of its method's adapters, made of components that can be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.compress.components import Components, components
from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.strategy import Strategy
from dynlora.errors import NotMergeableError


@dataclass
class Moments:
    """Sums over tokens inside of one module's low-rank update, (r, r) each.

    Attributes:
        inputs: Σ (A x)(A x)ᵀ.
        outputs: Σ (Bᵀ g)(Bᵀ g)ᵀ with g the gradient of the row's loss at the module's output; None where not asked for.
    """

    inputs: Tensor
    outputs: Tensor | None


def moments(model: AdaptedModel, tokens: Tokens, *, batch_size: int = 16, gradients: bool = True) -> list[Moments]:
    """Return every module's moments over rows, padding left out.

    Args:
        model: with its adapters on and without gates.
        tokens: labelled rows.
        batch_size: rows of a forward pass.
        gradients: also look at the gradients, which takes a backward pass.
    """
    sums = [Moments(_zeros(module), _zeros(module) if gradients else None) for module in model.adapters]
    model.base.model.eval()
    device = next(model.base.model.parameters()).device
    with torch.set_grad_enabled(gradients), _hooked(model.adapters.modules, sums) as read:
        for indices in sorted_batches(tokens.length, batch_size):
            _look(model, tokens, indices, device, read, gradients=gradients)
    return sums


def _look(
    model: AdaptedModel, tokens: Tokens, indices: np.ndarray, device: torch.device, read: Reading, *, gradients: bool
) -> None:
    """Take one batch in."""
    batch = tokens.batch(indices, device)
    labels, mask = batch.pop("labels"), batch.get("attention_mask")
    read.real = None if mask is None else mask.reshape(-1).bool()
    with model.autocast():
        output = model.strategy.forward(model.base.model, batch)
        if gradients:
            model.task.example_loss(output, labels).sum().backward()
            model.base.model.zero_grad(set_to_none=True)


@dataclass
class Reading:
    """What the hooks need to know of the batch that passes: which tokens, all rows in turn, are no padding."""

    real: Tensor | None = None

    def rows(self, x: Tensor) -> Tensor:
        """Return values by token, (n, d), without padding where they are by token at all."""
        flat = x.detach().reshape(-1, x.shape[-1]).float()
        return flat[self.real] if self.real is not None and len(self.real) == len(flat) else flat


@contextmanager
def _hooked(modules: Sequence[LoraLinear], sums: Sequence[Moments]) -> Iterator[Reading]:
    """Add up what passes the modules inside the block."""
    read = Reading()
    handles = [module.register_forward_hook(_adding(one, read)) for module, one in zip(modules, sums, strict=True)]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def _adding(sums: Moments, read: Reading) -> Callable[[nn.Module, Any, Tensor], None]:
    """Return a forward hook that adds up a module's moments."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        A, B = module.low_rank()  # pyright: ignore - an adapter
        with torch.no_grad():
            inner = (read.rows(args[0]) @ A.float().t()).double()
            sums.inputs += (inner.t() @ inner).cpu()
        if sums.outputs is not None and output.requires_grad:
            output.register_hook(lambda gradient: _add_gradient(sums, read.rows(gradient), B))

    return hook


def _add_gradient(sums: Moments, gradient: Tensor, B: Tensor) -> None:
    """Add up the gradients at a module's output as its B sees them."""
    with torch.no_grad():
        inner = (gradient @ B.float()).double()
        sums.outputs += (inner.t() @ inner).cpu()  # pyright: ignore - asked for


def _zeros(module: LoraLinear) -> Tensor:
    size = len(module.low_rank()[0])
    return torch.zeros(size, size, dtype=torch.float64)


def as_plain_lora(model: AdaptedModel) -> AdaptedModel:
    """Return the model with a `LoraLinear` of the same update in the place of every adapter; gates must be baked.

    The base model is changed in place: the model that was given is not to be used any more.

    Raises:
        NotMergeableError: while gates are on, or where the method's update is not low-rank.
    """
    if model.adapters.gates is not None:
        raise NotMergeableError("the gates depend on the input; replace them by their means before compressing")
    modules = []
    for module in model.adapters:
        form = module.peft_forms().get("LORA")
        if form is None:
            raise NotMergeableError(
                "compress: this method's update is not a product of small factors, so no component of it can be left "
                "out; export it merged instead"
            )
        modules.append(_plain(module, form))
    for module in modules:
        replace_module(model.base.model, module.info.name, module)
    strategy = Strategy()
    strategy.attach_task(model.task)
    adapters = Adapters(
        modules, budget=model.adapters.budget, reference_rank=model.adapters.reference_rank, seed=model.adapters.seed
    )
    return AdaptedModel(
        model.base,
        adapters,
        strategy,
        model.task,
        model.max_length,
        model.autocast,
        None,
        model.step,
        model.new_tokens,
    )


@torch.no_grad()
def _plain(module: LoraLinear, form: dict[str, torch.Tensor]) -> LoraLinear:
    """Return a module with these factors and nothing else."""
    A, B = form.get("lora_A.weight"), form.get("lora_B.weight")
    rank = 0 if A is None else len(A)
    plain = LoraLinear(module.base_layer, module.info, rank=rank, max_rank=rank, scaling=module.scaling)
    if A is not None and B is not None:
        plain.lora_A.copy_(A)
        plain.lora_B.copy_(B)
    return plain


@dataclass
class Truncatable:
    """A model whose adapters are components; each choice of them is set in turn.

    Attributes:
        model: with plain LoRA.
        tables: the components of each module, the one with the largest effect first.
        parameters: of the adapter as it was.
    """

    model: AdaptedModel
    tables: list[Components]
    parameters: int

    @classmethod
    def of(cls, model: AdaptedModel, rows: Tokens | None, weighting: str = "loss") -> Truncatable:
        """Split a model's adapters into components.

        Args:
            model: as `as_plain_lora` returns it.
            rows: labelled training examples that the weighting looks at; not needed for `plain`.
            weighting: what a component's effect is measured by: loss, inputs or plain.
        """
        seen_moments = None
        if rows is not None and weighting != "plain":
            seen_moments = moments(model, rows, gradients=weighting == "loss")
        tables = []
        for index, module in enumerate(model.adapters):
            seen = None if seen_moments is None else seen_moments[index]
            inputs, outputs = (None, None) if seen is None else (seen.inputs, seen.outputs)
            tables.append(components(*module.low_rank(), module.scaling, inputs=inputs, outputs=outputs))
        return cls(model, tables, sum(module.rank * module.info.cost for module in model.adapters))

    @property
    def sizes(self) -> list[int]:
        """Components of each module."""
        return [len(table) for table in self.tables]

    @torch.no_grad()
    def keep(self, chosen: Sequence[np.ndarray]) -> None:
        """Leave the components at these positions of each module in the model, and no others."""
        for module, table, positions in zip(self.model.adapters, self.tables, chosen, strict=True):
            places = torch.from_numpy(positions)
            module.rank = len(positions)
            module.lora_A.zero_()
            module.lora_B.zero_()
            module.lora_A[: module.rank] = table.A[places].to(module.lora_A.device)
            module.lora_B[:, : module.rank] = table.B[:, places].to(module.lora_B.device)

    def parameters_of(self, chosen: Sequence[np.ndarray]) -> int:
        """Return the adapter parameters of a choice."""
        return sum(len(one) * table.cost for one, table in zip(chosen, self.tables, strict=True))
