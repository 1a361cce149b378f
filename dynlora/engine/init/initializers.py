"""Starts: how A and B begin, and what is looked at for it; values of the field `strategy.init` every method has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dynlora.engine.data.held_back import Batch
from dynlora.engine.edits.set_start import StartAt
from dynlora.engine.edits.values import Edit
from dynlora.engine.fields import setting
from dynlora.engine.init.input_svd import InputComponents, input_directions, leading
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.offset_linear import OffsetLinear
from dynlora.engine.randomness import stream
from dynlora.errors import ConfigError
from dynlora.tasks import Task

if TYPE_CHECKING:
    from dynlora.engine.context import Probe


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


BATCHES = 8
"""Training batches that gradients are averaged over, and the most that input directions are found in."""

STABLE_GAMMA = 16
"""LoRA-GA's γ: B is multiplied by d_out^¼ / √γ; the larger, the smaller the start."""


@dataclass(frozen=True)
class Start:
    """One way to begin.

    Attributes:
        help: in a few words.
        adapter: what wraps the frozen module.
        gaussian: whether A is drawn from a normal law of deviation 1 / rank; kaiming uniform otherwise.
        place: edits that set A and B once the adapters are in the model, from data.
    """

    help: str
    adapter: type[LoraLinear] = LoraLinear
    gaussian: bool = False
    place: Callable[[Adapters, Probe], list[Edit]] = lambda adapters, probe: []


def probe_batches(probe: Probe, n: int, *, labels: bool = False) -> list[Batch]:
    """Return the first n training batches.

    Raises:
        ConfigError: when there are none, or none with the labels that are needed.
    """
    batches = [batch for batch in probe.batches(n) if "labels" in batch or not labels]
    if not batches:
        raise ConfigError(
            f"strategy: needs training batches{' with labels' if labels else ''} before it starts and has "
            "none; give calibration batches, or use another init"
        )
    return batches


def along_inputs(adapters: Adapters, probe: Probe) -> list[Edit]:
    """Return edits that lay each module's rows of A along the directions its inputs vary most in; B stays zero."""
    ranks = {module.info.name: module.rank for module in adapters}
    modules = {module.info.name: module.base_layer for module in adapters}
    limit = max(1, *ranks.values())
    batches = probe_batches(probe, BATCHES)
    directions = input_directions(probe.model, modules, batches, lambda _: ranks, limit=limit, seed=probe.seed)
    return along(adapters, directions)


def along(adapters: Adapters, directions: Mapping[str, InputComponents]) -> list[Edit]:
    """Return edits that set the rows of A to the first components found; rows without one stay as drawn."""
    rows = [directions[module.info.name].components[: module.rank] for module in adapters]
    return [StartAt(index, A) for index, A in enumerate(rows)]


def along_gradients(adapters: Adapters, probe: Probe) -> list[Edit]:
    """Return edits that start A and B along the singular vectors of the frozen weights' gradients (LoRA-GA).

    With U S Vᵀ the gradient's decomposition and r the rank: A = V[:, :r]ᵀ, B = U[:, r:2r] S[r:2r] d_out^¼ / √γ, and the
    frozen weight gives up scaling · B A.

    Raises:
        ConfigError: when the method's adapters are of a kind that cannot hold an offset.
    """
    if not all(isinstance(module, OffsetLinear) for module in adapters):
        raise ConfigError(
            "strategy.init=lora_ga: this strategy has its own adapters, which cannot start from the frozen "
            "weight; use another init"
        )
    modules = {module.info.name: module.base_layer for module in adapters}
    gradients = weight_gradients(probe.model, modules, probe_batches(probe, BATCHES, labels=True), probe.task)
    edits: list[Edit] = []
    for index, module in enumerate(adapters):
        name, gradient = module.info.name, gradients[module.info.name]
        A, B = gradient_pair(gradient, module.rank, stream(probe.seed, name, "gradient directions"))
        edits.append(StartAt(index, A, B, hold=True))
    return edits


@torch.no_grad()
def gradient_pair(gradient: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return LoRA-GA's A, (rank, d_in), and B, (d_out, rank), of a gradient (d_out, d_in); see `along_gradients`.

    Columns of B for which the gradient has no further singular vector are zero.
    """
    left, value, right = leading(gradient.float(), 2 * rank, generator)
    A = gradient.new_zeros(rank, gradient.shape[1])
    B = gradient.new_zeros(gradient.shape[0], rank)
    A[: len(right[:rank])] = right[:rank]
    second = left[:, rank:] * value[rank:]
    B[:, : second.shape[1]] = second * (gradient.shape[0] ** 0.25 / STABLE_GAMMA**0.5)
    return A, B


@torch.no_grad()
def gradient_step(gradient: Tensor, A: Tensor, length: float, scaling: float) -> Tensor:
    """Return B, (d_out, rank), such that scaling · B A is a step down the gradient, as far as the rows of A reach.

    B = -ξ G Aᵀ (A Aᵀ)⁻¹, with ξ such that ‖scaling · B A‖ = length · ‖G‖; zero where G has nothing along A.

    Args:
        gradient: G, (d_out, d_in).
        A: (rank, d_in), of full rank.
        length: of the step, in gradients.
        scaling: the adapter's s.
    """
    G = gradient.float()
    basis, triangle = torch.linalg.qr(A.float().t())  # Aᵀ = Q R, so that Aᵀ (A Aᵀ)⁻¹ = Q R⁻ᵀ and ‖B A‖ = ‖ξ G Q‖
    reached = G @ basis
    B = torch.linalg.solve_triangular(triangle, reached.t(), upper=True).t()
    size = reached.norm()
    return torch.where(size > 0, -length / scaling * G.norm() / size.clamp_min(1e-30) * B, 0.0)


def base_modules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules of these names, before they are wrapped."""
    return {name: model.get_submodule(name) for name in names}


STARTS: dict[str, Start] = {
    "kaiming": Start("kaiming uniform"),
    "gaussian": Start("Gaussian with standard deviation 1 / rank", gaussian=True),
    "eva": Start("eva: along the inputs", place=along_inputs),
    "lora_ga": Start("lora_ga: A and B along the gradient", OffsetLinear, place=along_gradients),
}
"""By the value of `strategy.init`."""


def start_setting(choices: Sequence[str] = tuple(STARTS)) -> Any:
    """Declare `init`: how A starts, for a method that can take only some of the starts; the first is the default."""
    return setting(choices[0], f"Start of A: {'; '.join(STARTS[name].help for name in choices)}.", choices=choices)
