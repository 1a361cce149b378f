"""Several texts in one sequence: nothing is lost, and no text sees another."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from dynlora.contracts.harness import WRITER, make_trainer, tiny_config, tiny_texts
from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.packing import check_packing, pack
from dynlora.errors import ConfigError
from dynlora.tasks.causal_lm import CausalLM
from tests.tiny_lm import DECODERS, tiny_decoder

WIDTH = 24


@given(st.lists(st.integers(2, WIDTH), min_size=1, max_size=40))
def test_every_text_is_whole_in_one_sequence_and_none_is_too_long(lengths: list[int]) -> None:
    rows = [[10 + index] * length for index, length in enumerate(lengths)]
    targets = [[-100, *row[1:]] for row in rows]
    features = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
    counts = np.array(lengths) - 1
    tokens = Tokens(features, counts, np.array(lengths), {"input_ids": 0, "attention_mask": 0}, targets)
    packed = pack(tokens, WIDTH)
    assert packed.length.max() <= WIDTH
    assert packed.length.sum() == sum(lengths)
    assert packed.label.sum() == counts.sum()
    seen = []
    for feature, target in zip(packed.features, packed.targets or [], strict=True):
        ids, places = np.array(feature["input_ids"]), np.array(feature["position_ids"])
        starts = np.flatnonzero(places == 0)
        assert all(target[start] == -100 for start in starts)  # else it would be predicted from the text before
        seen += [part.tolist() for part in np.split(ids, starts[1:])]
    assert sorted(seen) == sorted(rows)


def test_texts_fill_sequences_well() -> None:
    lengths = np.random.default_rng(0).integers(2, 20, 400)
    rows = [[1] * length for length in lengths]
    tokens = Tokens(
        [{"input_ids": row} for row in rows],
        lengths - 1,
        lengths,
        {"input_ids": 0},
        [[-100, *row[1:]] for row in rows],
    )
    packed = pack(tokens, 64)
    assert len(packed) * 64 / lengths.sum() < 1.02


@pytest.mark.parametrize("gates", ["module", "rank", "token", "off"])
@pytest.mark.parametrize("name", ["dynamic"])
def test_a_packed_row_equals_its_parts(name: str, gates: str) -> None:
    trainer = make_trainer(tiny_config(name, strategy__gates=gates), WRITER)
    for module in trainer.adapters:
        nn.init.normal_(module.lora_B, std=0.3)
    if trainer.adapters.gates is not None:
        nn.init.normal_(trainer.adapters.gates.weight, std=0.5)
    tokens = tiny_texts().take(np.arange(7))
    packed = pack(tokens, 32)
    assert 1 < len(packed) < len(tokens)
    trainer.model.eval()
    task = CausalLM()
    losses = []
    for inputs in (tokens, packed):
        batch = inputs.batch(np.arange(len(inputs)))
        labels = batch.pop("labels")
        loss = task.batch_loss(trainer.strategy.forward(trainer.model, batch), labels)
        trainer.model.zero_grad()
        loss.backward()
        gradients = [module.lora_B.grad.clone() for module in trainer.adapters if module.lora_B.grad is not None]
        values = trainer.adapters.gates.values if trainer.adapters.gates is not None else None
        losses.append((loss, gradients, values))
    (apart, of_apart, gate), (together, of_together, packed_gate) = losses
    assert torch.allclose(apart, together, atol=1e-5)
    assert len(of_apart) == len(trainer.adapters)
    for one, other in zip(of_apart, of_together, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    if gate is not None and packed_gate is not None:  # recorded gates leave padding out in both forms
        weight, size = torch.tensor(tokens.length), torch.tensor(packed.length)
        whole = (gate * weight[:, None]).sum(0) / weight.sum()
        assert torch.allclose(whole, (packed_gate * size[:, None]).sum(0) / size.sum(), atol=1e-5)


@pytest.mark.parametrize("architecture", DECODERS)
def test_decoders_keep_packed_texts_apart(architecture: str) -> None:
    check_packing(tiny_decoder(architecture))


def test_a_model_that_mixes_packed_texts_is_refused() -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(9, 4)

        def forward(self, input_ids: torch.Tensor, position_ids: object = None, use_cache: bool = False) -> object:
            logits = self.embedding(input_ids).cumsum(1)
            return type("Output", (), {"logits": logits})()

    with pytest.raises(ConfigError, match="data.packing=true: in Mixes the texts of one sequence would see each other"):
        check_packing(Mixes())
