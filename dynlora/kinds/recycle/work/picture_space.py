"""Pictures in the place of texts: the published form, over pixels, for a CLIP or ViT folder.

A slot is a patch of the picture, and its pixels are what is searched. Dropped patches are painted in the average
colour, as the published code does at its end, so nothing is left out of the forward. No accuracy is claimed here: no
pretrained vision model is at hand, and the tests use a random one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel

from dynlora.errors import AssetError, first_line
from dynlora.kinds.recycle.work.token_space import Moments


@dataclass(frozen=True)
class PictureSpace:
    """Synthetic pictures for a teacher; see `inversion.Searched`.

    Attributes:
        teacher: maps pixel values (n, channels, height, width) to logits (n, classes).
        backbone: the base model, without a LoRA.
        moments: of its hidden states on public pictures; None leaves them out.
    """

    teacher: Callable[[Tensor], Tensor]
    backbone: Any
    moments: Moments | None = None

    @property
    def patch(self) -> int:
        """Width of a patch, pixels."""
        return int(self.backbone.config.patch_size)

    @property
    def across(self) -> int:
        """Patches across a picture."""
        return int(self.backbone.config.image_size) // self.patch

    @property
    def channels(self) -> int:
        """Colours of a pixel."""
        return int(self.backbone.config.num_channels)

    def start(self, n: int, generator: torch.Generator) -> Tensor:
        """Return noise to start from, (n, patches, channels · patch²)."""
        return torch.randn(n, self.across**2, self.channels * self.patch**2, generator=generator)

    def pixels(self, z: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return patches (n, k, channels · patch²) as pixel values (n, channels, height, width).

        Args:
            z: the patches.
            kept: their places, (n, k); None where all are there. The other places are zero, the mean colour.
        """
        if kept is not None:
            empty = z.new_zeros(len(z), self.across**2, z.shape[-1])
            z = empty.scatter(1, kept.unsqueeze(-1).expand(-1, -1, z.shape[-1]), z)
        side, across = self.patch, self.across
        table = z.view(len(z), across, across, self.channels, side, side)
        return table.permute(0, 3, 1, 4, 2, 5).reshape(len(z), self.channels, across * side, across * side)

    def logits(self, z: Tensor, kept: Tensor | None) -> Tensor:
        """Return the teacher's logits, (n, classes)."""
        return self.teacher(self.pixels(z, kept))

    def strangeness(self, z: Tensor, kept: Tensor | None) -> Tensor:
        """Return the distance of the base model's hidden moments to those of public pictures, ()."""
        if self.moments is None:
            return z.new_zeros(())
        return self.moments.distance(picture_moments(self.backbone, self.pixels(z, kept)))

    def nearest(self, z: Tensor) -> Tensor:
        """Return zeros, (n, patches): pixels have no vocabulary."""
        return torch.zeros(z.shape[:2], dtype=torch.long, device=z.device)

    def unlike(self, z: Tensor, nearest: Tensor) -> Tensor:
        """Return how far pixels are outside of three deviations, ()."""
        return (z.abs() - 3).clamp_min(0).square().mean()

    def may_drop(self) -> Tensor:
        """Return which patches may be dropped: all."""
        return torch.ones(self.across**2, dtype=torch.bool)


def picture_moments(backbone: Any, pixels: Tensor) -> Moments:
    """Return the moments of a backbone's hidden states on pictures."""
    states = backbone(pixel_values=pixels, output_hidden_states=True).hidden_states
    return Moments.of(states, torch.ones(states[0].shape[:2], device=pixels.device))


def picture_features(backbone: Any, pixels: Tensor) -> Tensor:
    """Return the state of the class token of each picture, (n, d)."""
    return backbone(pixel_values=pixels).last_hidden_state[:, 0]


def load_vision(folder: Path) -> Any:
    """Return the vision model of a local folder (CLIP's vision tower or a ViT), frozen, in eval mode.

    Raises:
        AssetError: when the folder holds none.
    """
    try:
        model: Any = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise AssetError(f"model.name={folder}: cannot be loaded as a vision model ({first_line(error)})") from None
    model = getattr(model, "vision_model", model) if hasattr(model, "text_model") else model
    if not all(hasattr(model.config, name) for name in ("patch_size", "image_size", "num_channels")):
        raise AssetError(f"model.name={folder}: reads no pictures; give a folder of CLIP or ViT")
    return model.requires_grad_(False).eval()
