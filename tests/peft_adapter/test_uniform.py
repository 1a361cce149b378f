"""The uniform form: the same update, one rank, every module of a type in every layer; re-read with its true ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.errors import AdapterError
from dynlora.peft_adapter.uniform import Update, shapes_in_every_layer, short_targets, uniform

SHAPES = {f"model.layers.{layer}.self_attn.{kind}": (6, 5) for layer in range(3) for kind in ("q_proj", "v_proj")}


@given(
    ranks=st.lists(st.integers(0, 4), min_size=6, max_size=6).filter(any),
    scalings=st.lists(st.floats(-4, 4, allow_nan=False, width=32), min_size=6, max_size=6),
)
def test_the_update_of_every_module_stays(ranks: list[int], scalings: list[float]) -> None:
    draw = np.random.default_rng(0)
    updates = {
        name: Update(draw.normal(size=(rank, d_in)), draw.normal(size=(d_out, rank)), scaling)
        for (name, (d_in, d_out)), rank, scaling in zip(SHAPES.items(), ranks, scalings, strict=True)
        if rank
    }
    adapter = uniform(updates, SHAPES)
    assert adapter.rank == max(ranks)
    assert list(adapter.factors) == list(SHAPES)
    assert set(adapter.filled) == set(SHAPES) - set(updates)
    for name, (lora_A, lora_B) in adapter.factors.items():
        assert (lora_A.shape, lora_B.shape) == ((adapter.rank, 6), (5, adapter.rank))
        expected = updates[name].scaling * updates[name].lora_B @ updates[name].lora_A if name in updates else 0
        np.testing.assert_allclose(lora_B @ lora_A, np.broadcast_to(expected, (5, 6)), atol=1e-4)


def test_an_empty_adapter_and_a_module_without_a_place_are_refused() -> None:
    with pytest.raises(AdapterError, match="no module has a rank above 0"):
        uniform({}, SHAPES)
    with pytest.raises(AdapterError, match="module other: has no place in the base model"):
        uniform({"other": Update(np.ones((1, 6)), np.ones((5, 1)), 1.0)}, SHAPES)


def test_missing_layers_are_added_up_to_those_of_the_base_model() -> None:
    one = {"model.layers.1.mlp.up_proj": (4, 8), "lm_head": (4, 9)}
    assert list(shapes_in_every_layer(one, 3)) == [
        "model.layers.0.mlp.up_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.2.mlp.up_proj",
        "lm_head",
    ]
    assert "model.layers.2.mlp.up_proj" not in shapes_in_every_layer(one, None)


def test_targets_are_short_where_a_last_name_fits_no_other_module() -> None:
    targets = ["h.0.attn.q_proj", "h.1.attn.q_proj", "h.0.out.dense", "h.1.out.dense"]
    assert short_targets(targets, ["classifier.dense"]) == ["q_proj", "h.0.out.dense", "h.1.out.dense"]
