"""Adapters that somebody brings: their numbers are right, and what is no adapter is told in one sentence."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dynlora.cli.main import main
from dynlora.errors import AdapterError
from dynlora.peft_adapter import adapter_config, read_adapter
from dynlora.peft_adapter import read as peft_adapter_read
from dynlora.peft_adapter.engines import REFUSES, check_engines
from dynlora.peft_adapter.read import effective_rank, norm, read_header, singular_values
from dynlora.peft_adapter.uniform import places
from dynlora.server.serve import sample_runs_dir
from dynlora.text import is_text
from tests.peft_adapter.files import bfloat16, lora, raw_file, small_adapter, tensor_file, write_adapter

NAME = "model.layers.3.self_attn.q_proj"


def update(tensors: dict[str, np.ndarray], scaling: float) -> np.ndarray:
    a, b = tensors.values()
    return scaling * b.astype(float) @ a.astype(float)


@pytest.mark.parametrize(
    ("settings", "scaling"),
    [
        ({}, 2.0),
        ({"lora_alpha": 1}, 0.25),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"q_proj": 2}}, 0.5),
        ({"alpha_pattern": {"k_proj": 2, "self_attn.q_proj": 16, "q_proj": 2}}, 4.0),
        ({"alpha_pattern": {"^q_proj": 2}}, 2.0),
        ({"alpha_pattern": {f"^{NAME}": 2}}, 0.5),
        ({"alpha_pattern": {r"self_attn\.q_proj": 2}}, 0.5),
        ({"alpha_pattern": {"(a+)+q_proj": 2}}, 2.0),
        ({"alpha_pattern": {r"layers\.[0-3]\..*": 2, "q_proj": 16}}, 0.5),
        ({"alpha_pattern": {"q_proj": 16, ".*": 2}}, 4.0),
        ({"lora_alpha": 1e30}, 2.5e29),
        ({"r": 99, "rank_pattern": {"q_proj": 4}}, 2.0),
    ],
)
def test_one_module_of_lora(settings: dict[str, object], scaling: float, tmp_path: Path) -> None:
    tensors = lora(NAME, 4, 10, 6)
    adapter = read_adapter(write_adapter(tmp_path, tensors, **settings))
    [module] = adapter.modules
    whole = update(tensors, scaling)
    expected = np.linalg.svd(whole, compute_uv=False)[:4]
    np.testing.assert_allclose(module.singular_values, expected, rtol=1e-5)
    assert (module.name, module.layer, module.kind) == (NAME, 3, "self_attn.q_proj")
    assert (module.d_in, module.d_out, module.rank, module.max_rank) == (10, 6, 4, 4)
    assert module.scaling == pytest.approx(scaling)
    assert module.norm == pytest.approx(np.linalg.norm(whole), rel=1e-5)
    assert module.effective_rank == pytest.approx((expected**2).sum() ** 2 / (expected**4).sum(), rel=1e-5)


def test_adalora_counts_the_components_that_are_left(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    a, b, e = draw.standard_normal((4, 6)), draw.standard_normal((5, 4)), np.array([[0.5], [0.0], [-2.0], [0.0]])
    tensors = {
        f"base_model.model.{NAME}.lora_{key}": value.astype("<f4") for key, value in (("A", a), ("B", b), ("E", e))
    }
    adapter = read_adapter(write_adapter(tmp_path, tensors, peft_type="ADALORA", init_r=8, lora_alpha=16))
    [module] = adapter.modules
    whole = 16 / (8 + 1e-5) * b @ np.diag(e[:, 0]) @ a
    assert (module.rank, module.max_rank) == (2, 4)
    np.testing.assert_allclose(module.singular_values, np.linalg.svd(whole, compute_uv=False)[:4], atol=1e-5)


def test_bfloat16_embeddings_convolutions_and_what_is_trained_beside(tmp_path: Path) -> None:
    a, b = np.ones((2, 3)), np.ones((4, 2))
    content = tensor_file(
        {
            "base_model.model.head.weight": np.zeros((3, 3), "<f4"),
            "base_model.model.conv.lora_B.bias": np.zeros(4, "<f4"),
            "base_model.model.conv.lora_A.weight": np.ones((2, 3, 3, 3), "<f4"),
            "base_model.model.conv.lora_B.weight": np.ones((4, 2, 1, 1), "<f4"),
        },
        **{
            "base_model.model.emb.lora_embedding_A": ("BF16", (2, 3), bfloat16(a)),
            "base_model.model.emb.lora_embedding_B": ("BF16", (4, 2), bfloat16(b)),
        },
    )
    adapter = read_adapter(write_adapter(tmp_path, content))
    assert [(module.name, module.d_in, module.d_out) for module in adapter.modules] == [("conv", 27, 4), ("emb", 3, 4)]
    assert adapter.other_parameters == 9 + 4
    assert adapter.modules[1].norm == pytest.approx(4 * np.linalg.norm(b @ a))


def test_rank_zero_and_numbers_that_are_not_finite(tmp_path: Path) -> None:
    broken = lora("layer.1.b", 2, 3, 3)
    broken["base_model.model.layer.1.b.lora_A.weight"][0, 0] = np.nan
    adapter = read_adapter(write_adapter(tmp_path, lora("layer.0.a", 0, 3, 3) | broken))
    empty, bad = adapter.modules
    assert (empty.rank, empty.norm, empty.effective_rank, empty.singular_values) == (0, 0.0, 0.0, ())
    assert (bad.rank, bad.norm, bad.effective_rank, bad.singular_values) == (2, None, None, ())
    assert "1 modules have numbers that are not finite, layer.1.b first." in adapter.notes


def test_modules_come_in_the_order_of_their_layers(tmp_path: Path) -> None:
    tensors = {}
    for layer in (10, 2, 0):
        tensors |= lora(f"layers.{layer}.q", 1, 2, 2)
    assert [module.layer for module in read_adapter(write_adapter(tmp_path, tensors)).modules] == [0, 2, 10]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "GLORA"}, "only LORA and ADALORA"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"lora_alpha": math.inf}, "lora_alpha"),
        ({"lora_alpha": True}, "lora_alpha"),
        ({"alpha_pattern": [1]}, "alpha_pattern"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern.q_proj"),
        ({"lora_alpha": 10**400}, f"lora_alpha is '1{'0' * 78}…'"),
        ({"alpha_pattern": {"(": 4}}, r"alpha_pattern \( is no regular expression; name modules there"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=message):
        read_adapter(write_adapter(tmp_path, lora(NAME, 4, 6, 6), **settings))


def test_a_pattern_that_would_never_end_is_cut_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_config, "MATCHING_S", 0.5)
    pattern = r"(([a-z_.]|[0-9._a-z])+)+!"
    folder = write_adapter(tmp_path, lora(NAME, 4, 6, 6), alpha_pattern={pattern: 4}, target_modules=["q_proj"])
    message = f"alpha_pattern {pattern} takes over 0.5 s to match; name modules there"
    with pytest.raises(AdapterError, match=re.escape(message)):
        read_adapter(folder)
    (peft,) = check_engines(read_header(folder), ("peft",))
    assert (peft.verdict, message in peft.reason) == (REFUSES, True)
    assert message in CliRunner().invoke(main, ["check", str(folder)]).output


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"head.weight": np.zeros(2, "<f4")}, "none of its 1 tensors"),
        ({"x.lora_A.weight": np.zeros((2, 2), "<f4")}, "module x lacks"),
        ({"x.lora_A.weight": np.zeros((2, 2), "<f4"), "x.lora_B.weight": np.zeros((2, 3), "<f4")}, "do not fit"),
        ({"x.lora_A.weight": np.zeros(2, "<f4"), "x.lora_B.weight": np.zeros((2, 2), "<f4")}, "do not fit"),
        ({**lora("x", 2, 2, 2), "base_model.model.x.lora_A.other.weight": np.zeros((2, 2), "<f4")}, "lora_A twice"),
        ({"x.lora_A": np.zeros((1025, 1), "<f4"), "x.lora_B": np.zeros((1, 1025), "<f4")}, "more than 1,024"),
    ],
)
def test_tensors_that_make_no_adapter(tensors: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=message):
        read_adapter(write_adapter(tmp_path, tensors))


def test_folders_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="not a folder"):
        read_adapter(tmp_path / "nothing")
    with pytest.raises(AdapterError, match="is missing"):
        read_adapter(tmp_path)
    folder = small_adapter(tmp_path / "pickled")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"adapter_model.bin is a pickle, which can run code"):
        read_adapter(folder)
    kept = next(path for path in sorted(sample_runs_dir().iterdir()) if (path / "adapter").is_dir())
    with pytest.raises(AdapterError, match="dynlora export ID"):
        read_adapter(kept / "adapter")


def test_links_and_large_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_adapter(tmp_path / "a")
    config = folder / "adapter_config.json"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
    (tmp_path / "b" / "adapter_config.json").symlink_to(config)
    with pytest.raises(AdapterError, match="a link"):
        read_adapter(tmp_path / "b")
    config.write_bytes(b"{" + b" " * (4 * 2**20) + b"}")
    with pytest.raises(AdapterError, match="are more than"):
        read_adapter(folder)
    monkeypatch.setattr(peft_adapter_read, "MAX_MODULES", 1)
    with pytest.raises(AdapterError, match="6 modules are more than 1"):
        read_adapter(small_adapter(tmp_path / "c"))


def test_places() -> None:
    assert places(["bert.encoder.layer.3.attention.self.query", "head"]) == [
        (3, "attention.self.query"),
        (None, "head"),
    ]
    assert places(["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.1.layer.1.EncDecAttention.k"]) == [
        (0, "encoder.layer.0.SelfAttention.q"),
        (1, "decoder.layer.1.EncDecAttention.k"),
    ]
    assert places(["a.x.layers.0.q", "b.x.layers.0.q"]) == [(0, "a.x.layers.q"), (0, "b.x.layers.q")]
    assert places(["blocks.5", "7", "x.\u0663.y"]) == [(5, "blocks.blocks"), (7, ".block"), (None, "x.\u0663.y")]


FACTORS = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda size: st.tuples(
        arrays(np.float32, (size[0], size[1]), elements=st.floats(-10, 10, width=32)),
        arrays(np.float32, (size[2], size[0]), elements=st.floats(-10, 10, width=32)),
        arrays(np.float32, size[0], elements=st.floats(-2, 2, width=32)),
    )
)


@given(factors=FACTORS, scaling=st.floats(-4, 4))
def test_the_spectrum_is_that_of_the_full_product(factors: tuple[np.ndarray, ...], scaling: float) -> None:
    a, b, e = factors
    whole = scaling * b.astype(float) @ np.diag(e.astype(float)) @ a.astype(float)
    spectrum = singular_values(a, b, scaling, e)
    assert spectrum is not None
    expected = np.linalg.svd(whole, compute_uv=False)
    np.testing.assert_allclose(spectrum, expected[: len(spectrum)], atol=1e-9 * max(1.0, float(expected.max())))
    assert norm(spectrum) == pytest.approx(np.linalg.norm(whole), abs=1e-9)
    assert 0 <= effective_rank(spectrum) <= len(spectrum) + 1e-9


@given(
    values=arrays(np.float64, (2, 3), elements=st.floats(allow_nan=True, allow_infinity=True)),
    other=arrays(np.float64, (4, 2), elements=st.floats(allow_nan=True, allow_infinity=True)),
)
def test_any_numbers_give_a_finite_spectrum_or_none(values: np.ndarray, other: np.ndarray) -> None:
    spectrum = singular_values(values, other, 1.0)
    assert spectrum is None or (np.isfinite(spectrum).all() and (np.diff(spectrum) <= 0).all())


ANY_TEXT = st.text(st.characters(), max_size=5)
"""Also with lone surrogates."""

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), ANY_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ANY_TEXT, inner, max_size=3)),
    max_leaves=6,
)
CONFIGS = st.fixed_dictionaries(
    {"peft_type": st.sampled_from(["LORA", "ADALORA", "X"])},
    optional={
        key: JSON for key in ("r", "init_r", "lora_alpha", "alpha_pattern", "use_rslora", "base_model_name_or_path")
    },
)
SUFFIXES = st.sampled_from(
    ["lora_A.weight", "lora_B.weight", "lora_A", "lora_B", "lora_E", "lora_A.x.weight", "bias", ""]
)
SHAPES = st.lists(st.integers(0, 3), max_size=3) | st.sampled_from([[0, 2**31, 2**31], [0, 2**31], [2**31, 0], [0] * 9])

TENSORS = st.dictionaries(st.tuples(st.text(st.characters(), max_size=3), SUFFIXES), SHAPES, max_size=5)


@given(
    config=st.one_of(CONFIGS, JSON),
    tensors=TENSORS,
)
def test_any_folder_is_read_or_refused(
    config: object, tensors: dict[tuple[str, str], list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_folder(config, tensors, tmp_path_factory.getbasetemp() / "any-adapter")


@pytest.mark.torture
@settings(max_examples=10_000)
@given(config=st.one_of(CONFIGS, JSON), tensors=TENSORS)
def test_any_folder_is_read_or_refused_in_full(
    config: object, tensors: dict[tuple[str, str], list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_folder(config, tensors, tmp_path_factory.getbasetemp() / "any-adapter")


def check_folder(config: object, tensors: dict[tuple[str, str], list[int]], folder: Path) -> None:
    """Check that a folder is read, with what a page can show, or refused."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    data = b""
    for (name, suffix), shape in tensors.items():
        size = 4 * math.prod(shape)
        offsets = [len(data), len(data) + size]
        header[f"{name}.{suffix}"] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        data += np.ones(size // 4, "<f4").tobytes()
    (folder / "adapter_model.safetensors").write_bytes(raw_file(header, data))
    with suppress(AdapterError):
        adapter = read_adapter(folder)
        assert all(module.rank <= module.max_rank for module in adapter.modules)
        assert is_text(adapter.base_model + "".join(module.name for module in adapter.modules))


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ([0, 2**31, 2**31], "tensor x.lora_A.weight has an invalid shape"),
        ([0, 2**31], "module x has 2,147,483,648 features, more than 16,777,216"),
    ],
)
def test_shapes_of_no_bytes_have_bounds_too(shape: list[int], problem: str, tmp_path: Path) -> None:
    header = {
        name: {"dtype": "F32", "shape": size, "data_offsets": [0, 0]}
        for name, size in (("x.lora_A.weight", shape), ("x.lora_B.weight", [2, 0]))
    }
    with pytest.raises(AdapterError, match=re.escape(problem)):
        read_adapter(write_adapter(tmp_path, raw_file(header)))


def test_texts_of_an_adapter_that_are_none_are_replaced_or_refused(tmp_path: Path) -> None:
    folder = small_adapter(tmp_path / "a", base_model_name_or_path="\ud800x")
    assert read_adapter(folder).base_model == "?x"
    assert CliRunner().invoke(main, ["inspect", str(folder)]).exit_code == 0
    with pytest.raises(AdapterError, match=r"name of tensor \.lora_A\.weight is not valid text; the file is"):
        read_adapter(write_adapter(tmp_path / "b", lora("x", 2, 3, 3) | {"\ud800.lora_A.weight": np.zeros(2, "<f4")}))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    folder = small_adapter(tmp_path / "adapter")
    config = folder / "adapter_config.json"
    config.write_text(config.read_text("utf-8"), "utf-8-sig")
    assert read_adapter(folder).modules
