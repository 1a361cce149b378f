"""Which blocks of a model change their input most: those that a smaller model keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.blocks import spelled
from dynlora.engine.model.some_blocks import block_stack
from dynlora.errors import ConfigError


@torch.no_grad()
def block_influence(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> list[float]:
    """Return how much each block changes what goes through it.

    The influence of a block is the mean over tokens of 1 - cos(x, y), with x its input and y its output, as in ShortGPT
    (Men et al. 2024, arXiv 2403.03853). There whole blocks are removed and nothing is trained; here what stays is
    trained, and the mean is over tokens that are no padding.

    Args:
        model: of transformers, in evaluation mode.
        batches: its inputs, with `attention_mask`, shape (batch, tokens).

    Returns:
        One value for each block, from 0 to 2, in order.

    Raises:
        ConfigError: when the model has no list of blocks, or there are no batches.
    """
    stack = block_stack(model)
    if stack is None:
        raise ConfigError(f"model.name: {type(model).__name__} has no list of blocks; give the blocks by number")
    totals, tokens = torch.zeros(len(stack), dtype=torch.float64), 0
    mask = torch.ones(0)

    def seen(place: int) -> Callable[..., None]:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = nn.functional.cosine_similarity(before[mask].float(), after[mask].float(), dim=-1)
            totals[place] += (1 - cosine).sum().item()

        return record

    hooks = [block.register_forward_hook(seen(place), with_kwargs=True) for place, block in enumerate(stack)]
    try:
        for batch in batches:
            mask = batch["attention_mask"].bool()
            tokens += int(mask.sum())
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not tokens:
        raise ConfigError("data: has no texts to choose blocks by; give some, or the blocks by number")
    return (totals / tokens).tolist()


def most_influential(influence: list[float], count: int) -> str:
    """Return the numbers of the blocks with the highest influence, as `model.layers` takes them; the earlier of equals.

    Raises:
        ConfigError: when there are fewer blocks.
    """
    if not 1 <= count <= len(influence):
        raise ConfigError(f"--layers {count}: the model has {len(influence)} blocks; give a number from 1 to that")
    order = sorted(range(len(influence)), key=lambda place: -influence[place])
    return spelled(order[:count])
