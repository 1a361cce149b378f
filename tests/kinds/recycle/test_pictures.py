"""Pictures: the same inversion and episodes over pixels, on a random vision model of two layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dynlora.errors import AssetError
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.materials import Inversion
from dynlora.kinds.recycle.work.token_space import PictureSpace, load_vision, picture_features, picture_moments
from tests.tiny import save_tiny

SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
SETTINGS = RecycleSettings.parse(
    {
        "teachers": ["a"],
        "shots": [1],
        "ways": 2,
        "iterations": 48,
        "inputs": 5,
        "tokens": 16,
        "drop": 0.25,
        "moments": 0.01,
    }
)


@pytest.mark.parametrize("kind", ["clip", "vit"])
def test_a_vision_teacher_is_inverted_by_the_same_code(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = (
        transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL))
        if kind == "clip"
        else transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False)
    )
    model.save_pretrained(tmp_path / kind)
    backbone = load_vision(tmp_path / kind)
    head = torch.randn(24, 3) / 3

    def teacher(pixels: torch.Tensor) -> torch.Tensor:
        return picture_features(backbone, pixels) @ head

    with torch.no_grad():
        moments = picture_moments(backbone, torch.rand(6, 3, 16, 16))
    search = Inversion(PictureSpace(teacher, backbone, moments), [0, 1, 2], SETTINGS, (0,))
    search.advance()
    before = float(search.agreement.mean())
    while not search.is_done:
        search.advance()
    assert float(search.agreement.mean()) > max(0.95, before)
    assert search.best.shape == (15, 12, 48), "a quarter of the patches is dropped"


def test_patches_become_the_picture_they_were_cut_from() -> None:
    config = transformers.CLIPVisionConfig(**SMALL)
    space = PictureSpace(lambda pixels: pixels, type("Backbone", (), {"config": config}))
    picture = torch.arange(3 * 16 * 16.0).view(1, 3, 16, 16)
    cut = picture.view(1, 3, 4, 4, 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(1, 16, 48)
    assert torch.equal(space.pixels(cut), picture)
    painted = space.pixels(cut[:, :1], torch.tensor([[0]]))
    assert torch.equal(painted[0, :, :4, :4], picture[0, :, :4, :4])
    assert painted[0, :, 4:].abs().sum() == 0


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="reads no pictures"):
        load_vision(save_tiny("bert", tmp_path / "bert"))
