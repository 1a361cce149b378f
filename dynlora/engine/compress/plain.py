"""A trained model with plain LoRA in the place of its method's adapters, made of components that can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dynlora.engine.compress.components import Components, components
from dynlora.engine.compress.moments import moments
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.adapters import Adapters, replace_module
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.strategy import Strategy
from dynlora.errors import NotMergeableError


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
