"""The first k blocks of a transformer with its own final norm and head: a smaller model over the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.errors import ConfigError


def take_first_blocks(config: Any, layers: int | None, folder: Path) -> None:
    """Let a model's config have its first `layers` blocks only; None leaves all.

    A model that is made of the config then loads the tensors of these blocks, and leaves those of the others.

    Args:
        config: of transformers, changed in place.
        layers: k, from 1 to the model's depth.
        folder: of the model, for the message.

    Raises:
        ConfigError: when the model has fewer blocks, or an encoder and a decoder.
    """
    if layers is None:
        return
    inner = config.get_text_config()
    depth = getattr(inner, "num_hidden_layers", None)
    if config.is_encoder_decoder or not isinstance(depth, int):
        raise ConfigError(
            f"model.layers={layers}: {folder.name} is not one stack of blocks ({config.model_type}); drop model.layers"
        )
    if not 1 <= layers <= depth:
        raise ConfigError(f"model.layers={layers}: {folder.name} has {depth} blocks; give a number from 1 to {depth}")
    kinds = getattr(inner, "layer_types", None)
    inner.num_hidden_layers = layers
    if isinstance(kinds, list):  # one a block: what kind of attention it has
        inner.layer_types = kinds[:layers]
