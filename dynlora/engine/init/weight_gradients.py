"""Whole gradients of the frozen weights, from a few batches before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dynlora.engine.data.held_back import Batch
from dynlora.tasks import Task


def weight_gradients(
    model: nn.Module, modules: Mapping[str, nn.Module], batches: Sequence[Batch], task: Task
) -> dict[str, Tensor]:
    """Return the mean gradient of the loss for every module's weight, (d_out, d_in), over `batches`.

    The model is in eval mode meanwhile and keeps no gradient. All gradients together are as large as the weights.

    Args:
        model: made for the task.
        modules: linear modules by name; Conv1D's transposed weight comes back as (d_out, d_in) too.
        batches: with labels.
        task: whose loss it is.
    """
    weights: list[Tensor] = [module.weight for module in modules.values()]  # pyright: ignore - linear by construction
    requires_grad = [weight.requires_grad for weight in weights]
    training = model.training
    model.eval()
    sums: list[Tensor] = []
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            for batch in batches:
                inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
                loss = task.batch_loss(task.forward(model, inputs), batch["labels"])
                gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
                sums = list(gradients) if not sums else torch._foreach_add(sums, gradients)  # pyright: ignore
    finally:
        for weight, before in zip(weights, requires_grad, strict=True):
            weight.requires_grad_(before)
        model.train(training)
    means = torch._foreach_div(sums, len(batches))  # pyright: ignore
    return {
        name: mean if isinstance(module, nn.Linear) else mean.t()
        for (name, module), mean in zip(modules.items(), means, strict=True)
    }


@torch.no_grad()
def mean_product(module: nn.Module, gradient: Tensor) -> Tensor:
    """Return mean |W0 ⊙ G|, a number: to first order, how much a weight of the module matters to the loss.

    Args:
        module: linear, its weight as (d_out, d_in) or, in Conv1D, (d_in, d_out).
        gradient: G, (d_out, d_in).
    """
    weight: Tensor = module.weight  # pyright: ignore - linear by construction
    return (gradient * (weight if isinstance(module, nn.Linear) else weight.t())).abs().mean()
