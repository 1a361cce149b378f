"""Some blocks of a transformer with its own final norm and head: a smaller model over the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.blocks import Blocks, numbers_of, spelled
from dynlora.errors import ConfigError


def check_blocks(config: Any, blocks: Blocks, folder: Path) -> None:
    """Refuse blocks that a model does not have.

    Raises:
        ConfigError: when it has fewer, or an encoder and a decoder.
    """
    depth = getattr(config.get_text_config(), "num_hidden_layers", None)
    if config.is_encoder_decoder or not isinstance(depth, int):
        raise ConfigError(
            f"model.layers={blocks}: {folder.name} is not one stack of blocks ({config.model_type}); drop model.layers"
        )
    if numbers_of(blocks)[-1] >= depth:
        remedy = f"a number from 1 to {depth}" if isinstance(blocks, int) else f"numbers from 0 to {depth - 1}"
        raise ConfigError(f"model.layers={blocks}: {folder.name} has {depth} blocks; give {remedy}")


def take_first(config: Any, blocks: Blocks) -> None:
    """Let a model's config have its first blocks only, where these are wanted: the tensors of others are not loaded."""
    if isinstance(blocks, int):
        _shorten(config.get_text_config(), list(range(blocks)))


def keep_blocks(model: nn.Module, blocks: Blocks) -> None:
    """Remove the other blocks of a model that was loaded whole, and number those that stay from 0.

    Args:
        model: of transformers, changed in place.
        blocks: that stay; the first k are a model's only ones already.

    Raises:
        ConfigError: when the blocks are not in one list of modules.
    """
    if isinstance(blocks, int):
        return
    config: Any = model.config
    inner, numbers = config.get_text_config(), numbers_of(blocks)
    stack = block_stack(model)
    if stack is None:
        raise ConfigError(f"model.layers={blocks}: {type(model).__name__} has no list of blocks; drop model.layers")
    for number in reversed(range(len(stack))):
        if number not in numbers:
            del stack[number]
    for index, block in enumerate(stack):
        for part in block.modules():  # a cache keeps the keys of a block by this number
            if isinstance(getattr(part, "layer_idx", None), int):
                part.layer_idx = index  # pyright: ignore[reportArgumentType]
    _shorten(inner, numbers)


def block_stack(model: nn.Module) -> nn.ModuleList | None:
    """Return the list of a model's blocks; None where there is no one list with as many as its config says."""
    config: Any = model.config
    depth = config.get_text_config().num_hidden_layers
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
    return lists[0] if lists else None


def _shorten(inner: Any, numbers: list[int]) -> None:
    kinds = getattr(inner, "layer_types", None)
    inner.num_hidden_layers = len(numbers)
    if isinstance(kinds, list):  # one a block: what kind of attention it has
        inner.layer_types = [kinds[number] for number in numbers]


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

    def seen(index: int) -> Callable[..., None]:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = nn.functional.cosine_similarity(before[mask].float(), after[mask].float(), dim=-1)
            totals[index] += (1 - cosine).sum().item()

        return record

    hooks = [block.register_forward_hook(seen(index), with_kwargs=True) for index, block in enumerate(stack)]
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
    order = sorted(range(len(influence)), key=lambda index: -influence[index])
    return spelled(order[:count])
