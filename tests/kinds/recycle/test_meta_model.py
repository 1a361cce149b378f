"""The meta-model: the base at first, features by hand, synthetic texts read as real ones are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dynlora.assets.catalog import digest_of, public_sentences
from dynlora.kinds.recycle.work.token_space import (
    MetaModel,
    Moments,
    TokenSpace,
    add_meta_lora,
    load_backbone,
    pooled,
    reading,
    text_moments,
)
from tests.tiny import save_tiny

TEXTS = ["great the film", "awful plot and cast", "music"]
SENTENCES = ["the film was very great and the story is lovely", "a plot and a cast, awful and dull to the end"]


def meta_of(folder: Path, pooling: str = "mean") -> MetaModel:
    return add_meta_lora(load_backbone(folder), rank=2, lora_alpha=4, seed=0, total=5, pooling=pooling, max_length=16)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_the_meta_lora_is_the_base_at_first(architecture: str, tmp_path: Path) -> None:
    folder = save_tiny(architecture, tmp_path / architecture)
    bare, meta = load_backbone(folder), meta_of(folder)
    batch = meta.tokens(TEXTS)
    with torch.no_grad():
        hidden = bare.model(**batch).last_hidden_state
        assert torch.equal(meta.features(batch), pooled(hidden, batch["attention_mask"], "mean"))


def test_features_are_means_over_real_tokens_or_the_last_of_them() -> None:
    hidden = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pooled(hidden, mask, "mean").tolist() == [[1.0, 2.0], [8.0, 9.0]]
    assert pooled(hidden, mask, "last").tolist() == [[2.0, 3.0], [10.0, 11.0]]


def test_texts_have_the_same_features_in_any_company(backbone: Path) -> None:
    meta = meta_of(backbone)
    together = meta.text_features(TEXTS)
    for number, text in enumerate(TEXTS):
        assert torch.allclose(meta.text_features([text])[0], together[number], atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama", "gpt2"])
def test_word_embeddings_in_the_place_of_a_text_are_read_as_that_text(architecture: str, tmp_path: Path) -> None:
    meta = meta_of(save_tiny(architecture, tmp_path / architecture))
    space = TokenSpace.of(meta.base.model, meta.base.tokenizer, 3, SENTENCES)
    ids = torch.tensor([meta.base.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]])
    inputs = space.inputs(space.place(space.standardised(ids)))
    with torch.no_grad():
        assert torch.allclose(meta.synthetic_features(inputs)[0], meta.text_features(TEXTS[:1])[0], atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_dropped_slots_are_left_out_as_a_mask_would(architecture: str, tmp_path: Path) -> None:
    """The tokens that are left keep their positions: masking and leaving out are the same function."""
    meta = meta_of(save_tiny(architecture, tmp_path / architecture))
    space = TokenSpace.of(meta.base.model, meta.base.tokenizer, 6, SENTENCES)
    z = space.start(4, "text", torch.Generator().manual_seed(0))
    kept = torch.tensor([[0, 2, 5]]).expand(4, -1)
    whole = space.inputs(space.place(z))
    edge = len(space.before)
    mask = whole.mask.clone()
    mask[:, [edge + 1, edge + 3, edge + 4]] = 0
    left = space.inputs(space.place(z).gather(1, kept.unsqueeze(-1).expand(-1, -1, z.shape[-1])), kept)
    assert left.embedded.shape[1] == whole.embedded.shape[1] - 3
    with torch.no_grad():
        masked = meta.synthetic_features(type(whole)(whole.embedded, whole.positions, mask))
        assert torch.allclose(meta.synthetic_features(left), masked, atol=1e-5)


def test_nearest_tokens_are_found(backbone: Path) -> None:
    meta = meta_of(backbone)
    space = TokenSpace.of(meta.base.model, meta.base.tokenizer, 4, SENTENCES)
    ids = space.ordinary[torch.randint(len(space.ordinary), (3, 4), generator=torch.Generator().manual_seed(1))]
    points = space.place(space.standardised(ids)) + 1e-3
    assert torch.equal(space.nearest(points), ids)
    assert float(space.unlike(space.place(space.standardised(ids)), ids)) == pytest.approx(0, abs=1e-10)


def test_moments_leave_padding_out_and_are_no_distance_from_themselves(backbone: Path) -> None:
    meta = meta_of(backbone)
    moments = text_moments(meta.base.model, meta.base.tokenizer, SENTENCES, 16)
    assert float(moments.distance(moments)) == 0
    states = [torch.tensor([[[1.0], [3.0], [99.0]]])]
    by_hand = Moments.of(states, torch.tensor([[1, 1, 0]]))
    assert by_hand.mean.tolist() == [[2.0]]
    assert by_hand.deviation.item() == pytest.approx(1.0)
    assert digest_of(public_sentences()) == digest_of(public_sentences())
    assert digest_of(SENTENCES) != digest_of(public_sentences())


def test_the_models_own_lookup_is_back_after_reading(backbone: Path) -> None:
    meta = meta_of(backbone)
    before = meta.text_features(TEXTS)
    space = TokenSpace.of(meta.base.model, meta.base.tokenizer, 3, SENTENCES)
    z = space.start(2, "noise", torch.Generator().manual_seed(0))
    with reading(meta.base.model, space.inputs(space.place(z))) as batch:
        assert set(batch) == {"input_ids", "attention_mask", "position_ids"}
    assert torch.equal(meta.text_features(TEXTS), before)
