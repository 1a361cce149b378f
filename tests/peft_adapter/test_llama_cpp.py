"""An adapter of unequal ranks in the real llama.cpp: right in the uniform form, wrong as PEFT's converter reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dynlora.errors import NotMergeableError
from dynlora.inference.forms.gguf import BLOCK, check_gguf, write_gguf
from dynlora.peft_adapter.uniform import Update, uniform

pytest.importorskip("llama_cpp_py_sync", reason="llama.cpp has no wheel for this machine")
from tests.llama_cpp import logits, write_as_its_converter, write_base

TOKENS = [5, 17, 3, 44, 8, 8, 61, 2, 30, 12]
ALPHA, RANK = 8.0, 4


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    """A random Llama of two blocks, two key heads for four of queries."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def base(llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as GGUF."""
    path = tmp_path_factory.mktemp("llama") / "base.gguf"
    write_base({name: tensor.numpy() for name, tensor in llama.state_dict().items()}, _config(llama), path)
    return path


@pytest.fixture(scope="module")
def updates(llama: LlamaForCausalLM) -> dict[str, Update]:
    """Of every module of the blocks; ranks from 0 to 8, the scaling one number, as after reallocations."""
    random = np.random.default_rng(1)
    products = {}
    for place, name in enumerate(_modules(llama)):
        weight = llama.get_parameter(f"{name}.weight")
        rank = place % 9
        lora_A = random.normal(0, 0.2, (rank, weight.shape[1])).astype(np.float32)
        lora_B = random.normal(0, 0.2, (weight.shape[0], rank)).astype(np.float32)
        products[name] = Update(lora_A, lora_B, ALPHA / RANK)
    return products


def _config(llama: LlamaForCausalLM) -> dict[str, Any]:
    values = llama.config.to_dict()
    return {**values, "rope_theta": 10_000.0}


def _modules(llama: LlamaForCausalLM) -> list[str]:
    return [f"model.layers.{layer}.{block}" for layer in range(2) for block in BLOCK]


def _expected(llama: LlamaForCausalLM, updates: dict[str, Update]) -> np.ndarray:
    """Logits of the model with s · B A in each weight."""
    state = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    for name, (A, B, s) in updates.items():
        state[f"{name}.weight"] += torch.from_numpy(s * (B @ A))
    merged = LlamaForCausalLM(llama.config).eval()
    merged.load_state_dict(state)
    with torch.no_grad():
        return merged(torch.tensor([TOKENS])).logits[0].numpy()


def test_the_base_is_the_same_in_both(llama: LlamaForCausalLM, base: Path) -> None:
    np.testing.assert_allclose(logits(base, TOKENS), _expected(llama, {}), atol=1e-5)


def test_unequal_ranks_are_read_right_in_the_uniform_form(
    llama: LlamaForCausalLM, base: Path, updates: dict[str, Update], tmp_path: Path
) -> None:
    write_gguf(
        uniform(updates, {name: one.shape for name, one in updates.items()}), _config(llama), tmp_path / "a", "a"
    )
    np.testing.assert_allclose(logits(base, TOKENS, tmp_path / "a"), _expected(llama, updates), atol=1e-5)


def test_unequal_ranks_are_misread_as_they_were_trained(
    llama: LlamaForCausalLM, base: Path, updates: dict[str, Update], tmp_path: Path
) -> None:
    write_as_its_converter(updates, ALPHA, _config(llama), tmp_path / "a")
    off = np.abs(logits(base, TOKENS, tmp_path / "a") - _expected(llama, updates)).max()
    effect = np.abs(_expected(llama, updates) - _expected(llama, {})).max()
    assert off > 0.1 * effect


def test_what_gguf_cannot_hold_is_refused() -> None:
    with pytest.raises(NotMergeableError, match="of type bert, not llama or mistral; use --format merged"):
        check_gguf({"model_type": "bert"}, {})
    with pytest.raises(NotMergeableError, match="module lm_head is not one of"):
        check_gguf({"model_type": "llama"}, {"lm_head": None})
