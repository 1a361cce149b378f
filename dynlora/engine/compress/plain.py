"""A trained model with plain LoRA in the place of its method's adapters, made of components that can be left out.

And what held-out examples lose at each size of the adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.analysis.stats import bootstrap_interval
from dynlora.engine.compress.components import METHODS, Components, components, within_budget
from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.evaluation.evaluate import Predictions, summarise
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.randomness import stream_seed
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


SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
"""Sizes of the adapter that are looked at, as fractions of its parameters."""

COMPARED = (0.8, 0.5, 0.25, 0.1, 0.05, 0.02)
"""Those of them at which the other ways to choose are measured: a size costs a pass over the held-out examples."""


@dataclass(frozen=True)
class Worth:
    """The loss of a size of the adapter on some rows.

    Attributes:
        loss: mean over the rows.
        difference: `loss` less that of the whole adapter.
        low, high: 95 % bootstrap interval of `difference` over the rows, paired.
        metrics: of the rows.
    """

    loss: float
    difference: float
    low: float
    high: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Rows:
    """Held-out examples, halved: a size is chosen on one half and reported on the other.

    Attributes:
        tokens: all of them.
        choosing: positions of the rows that a size is chosen on.
        reporting: positions of the others.
    """

    tokens: Tokens
    choosing: np.ndarray
    reporting: np.ndarray

    @classmethod
    def halved(cls, tokens: Tokens, seed: int) -> Rows:
        """Halve rows by a keyed draw."""
        order = np.random.default_rng(stream_seed(seed, "halves of held-out examples")).permutation(len(tokens))
        middle = len(order) // 2
        return cls(tokens, np.sort(order[:middle]), np.sort(order[middle:]))


@dataclass
class Curve:
    """Measures sizes of one adapter, each on all held-out examples at once.

    Attributes:
        adapter: its components.
        rows: held-out examples.
        seed: of the keyed draws.
        whole: predictions of the whole adapter.
    """

    adapter: Truncatable
    rows: Rows
    seed: int
    whole: Predictions

    @classmethod
    def of(cls, adapter: Truncatable, rows: Rows, seed: int) -> Curve:
        """Measure the whole adapter."""
        adapter.keep([np.arange(size) for size in adapter.sizes])
        return cls(adapter, rows, seed, adapter.model.predictions(rows.tokens))

    def keep(self, method: str, share: float) -> list[np.ndarray]:
        """Leave the components of a size in the model, and return their positions by module."""
        order = METHODS[method](self.adapter.tables, self.seed)
        chosen = within_budget(order, self.adapter.tables, round(share * self.adapter.parameters))
        self.adapter.keep(chosen)
        return chosen

    def measured(self, method: str, share: float) -> Measured:
        """Return the loss of a size; the model keeps it until the next one is measured."""
        adapter, chosen = self.adapter, self.keep(method, share)
        ranks = tuple(len(one) for one in chosen)
        predictions = self.whole if list(ranks) == adapter.sizes else adapter.model.predictions(self.rows.tokens)
        return Measured(self, method, share, adapter.parameters_of(chosen), ranks, predictions)

    @property
    def whole_size(self) -> Measured:
        """The whole adapter, as if it were a size of its own."""
        parameters = self.adapter.parameters
        return Measured(self, "global", 1.0, parameters, tuple(self.adapter.sizes), self.whole)


@dataclass(frozen=True)
class Measured:
    """One size of the adapter, with what the model says of every row.

    Attributes:
        curve: it belongs to.
        method: orders the components, the first of which stay: a key of `components.METHODS`.
        share: of the adapter's parameters that was allowed, 0 to 1.
        parameters: that are kept.
        ranks: of each module.
        predictions: for all rows.
    """

    curve: Curve
    method: str
    share: float
    parameters: int
    ranks: tuple[int, ...]
    predictions: Predictions

    def on(self, rows: np.ndarray) -> Worth:
        """Return the loss of the size on some of the rows."""
        task = self.curve.adapter.model.task
        compressed, whole = self.predictions.take(rows), self.curve.whole.take(rows)
        difference = compressed.loss.astype(float) - whole.loss
        low, high = bootstrap_interval(difference)
        metrics = summarise(compressed, self.curve.rows.tokens.label[rows], task)
        return Worth(float(compressed.loss.mean()), float(difference.mean()), low, high, metrics)
