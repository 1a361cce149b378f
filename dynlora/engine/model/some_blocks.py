"""Some blocks of a transformer with its own final norm and head: a smaller model over the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from dynlora.blocks import Blocks, numbers_of
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
    inner, kept = config.get_text_config(), numbers_of(blocks)
    stack = block_stack(model)
    if stack is None:
        raise ConfigError(f"model.layers={blocks}: {type(model).__name__} has no list of blocks; drop model.layers")
    for number in reversed(range(len(stack))):
        if number not in kept:
            del stack[number]
    for place, block in enumerate(stack):
        for part in block.modules():  # a cache keeps the keys of a block by this number
            if isinstance(getattr(part, "layer_idx", None), int):
                part.layer_idx = place  # pyright: ignore[reportArgumentType]
    _shorten(inner, kept)


def block_stack(model: nn.Module) -> nn.ModuleList | None:
    """Return the list of a model's blocks; None where there is no one list with as many as its config says."""
    config: Any = model.config
    depth = config.get_text_config().num_hidden_layers
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
    return lists[0] if lists else None


def _shorten(inner: Any, kept: list[int]) -> None:
    kinds = getattr(inner, "layer_types", None)
    inner.num_hidden_layers = len(kept)
    if isinstance(kinds, list):  # one a block: what kind of attention it has
        inner.layer_types = [kinds[number] for number in kept]
