"""A stranger's file of tensors: read right, or refused with the one error; never a byte beyond what lies there."""

from __future__ import annotations

import json
import os
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from dynlora.errors import AdapterError
from dynlora.peft_adapter import adapter_config
from dynlora.peft_adapter.adapter_config import TensorFile
from tests.peft_adapter.files import bfloat16, raw_file, tensor_file

ONE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
EIGHT = bytes(8)


def read(path: Path) -> dict[str, np.ndarray]:
    with TensorFile(path) as file:
        return {name: file.read(name) for name in file.infos}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensors") / "adapter_model.safetensors"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_the_library_writes_is_read(dtype: str, place: Path) -> None:
    tensors = {"b.a": np.arange(12, dtype=dtype).reshape(3, 4) / 7, "empty": np.zeros((0, 4), dtype)}
    place.write_bytes(save(tensors, {"format": "pt"}))
    loaded = read(place)
    assert set(loaded) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(loaded[name], values.astype(loaded[name].dtype))
        assert loaded[name].shape == values.shape


def test_bfloat16_is_read(place: Path) -> None:
    values = np.array([[1.0, -2.5, 0.0], [3.0e38, 1e-37, 0.15625]], "<f4")
    place.write_bytes(tensor_file({}, a=("BF16", (2, 3), bfloat16(values))))
    np.testing.assert_allclose(read(place)["a"], values, rtol=2**-7)
    assert read(place)["a"][0].tolist() == [1.0, -2.5, 0.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "would be"),
        (b"\x01", "would be"),
        (raw_file(ONE, EIGHT, length=2**63), "would be"),
        (raw_file(b"[]", b""), "not a JSON object"),
        (raw_file(b"{", b""), "not a JSON object"),
        (raw_file(b"{" * 100_000), "not a JSON object"),
        (raw_file(b'{"a": NaN}'), "not a JSON object"),
        (raw_file(b"{\xff}"), "not a JSON object"),
        (raw_file(b'{"a":1,"a":2}'), "each tensor once"),
        (raw_file(ONE, bytes(7)), "outside"),
        (raw_file(ONE, bytes(9)), "belong to no tensor"),
        (raw_file({"a": {**ONE["a"], "dtype": "F4"}}, EIGHT), "unknown type F4"),
        (raw_file({"a": {**ONE["a"], "shape": [3]}}, EIGHT), "do not fill"),
        (raw_file({"a": {**ONE["a"], "shape": [-2]}}, EIGHT), "an invalid shape"),
        (raw_file({"a": {**ONE["a"], "shape": [True, 2]}}, EIGHT), "an invalid shape"),
        (raw_file({"a": {**ONE["a"], "shape": [0, 2**40]}}, EIGHT), "an invalid shape"),
        (raw_file({"a": {**ONE["a"], "shape": [1] * 9 + [2]}}, EIGHT), "an invalid shape"),
        (raw_file({"a": {**ONE["a"], "data_offsets": [8, 0]}}, EIGHT), "outside"),
        (raw_file({"a": {**ONE["a"], "data_offsets": [0, 8, 8]}}, EIGHT), "outside"),
        (raw_file({"a": {**ONE["a"], "data_offsets": [0.0, 8]}}, EIGHT), "outside"),
        (raw_file({"a": {**ONE["a"], "extra": 1}}, EIGHT), "does not say"),
        (raw_file({"a": 1}), "does not say"),
        (raw_file({**ONE, "b": ONE["a"]}, EIGHT), "do not follow"),
        (raw_file({**ONE, "b": {**ONE["a"], "data_offsets": [16, 24]}}, bytes(24)), "do not follow"),
        (raw_file({"x" * 1001: ONE["a"]}, EIGHT), "does not say"),
        (tensor_file({"a": np.zeros(2, "int64")}), "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(content: bytes, message: str, place: Path) -> None:
    place.write_bytes(content)
    with pytest.raises(AdapterError, match=message):
        read(place)


def test_a_header_that_promises_more_than_the_file_allocates_nothing(place: Path) -> None:
    huge = {"a": {"dtype": "F64", "shape": [2**31, 2**31], "data_offsets": [0, 2**65]}}
    place.write_bytes(raw_file(huge, EIGHT))
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError):
            read(place)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_limits_of_the_header(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write_bytes(raw_file({**ONE, "b": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}}, EIGHT))
    assert len(read(place)) == 2
    monkeypatch.setattr(adapter_config, "MAX_TENSORS", 1)
    with pytest.raises(AdapterError, match="2 tensors, more than 1"):
        read(place)
    monkeypatch.setattr(adapter_config, "MAX_HEADER_BYTES", 10)
    with pytest.raises(AdapterError, match="more than 10"):
        read(place)


def test_links_pipes_and_folders_are_not_opened(place: Path, tmp_path: Path) -> None:
    place.write_bytes(raw_file(ONE, EIGHT))
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(place)
    os.mkfifo(pipe)
    for path, message in (
        (link, "a link"),
        (pipe, "not a regular file"),
        (tmp_path, "regular file"),
        (tmp_path / "no", "such"),
    ):
        with pytest.raises(AdapterError, match=message):
            TensorFile(path)


def test_a_file_that_shrinks_meanwhile_is_told(place: Path) -> None:
    place.write_bytes(tensor_file({"a": np.zeros(50_000, "<f4")}))
    with TensorFile(place) as file:
        os.truncate(place, place.stat().st_size - 1)
        with pytest.raises(AdapterError, match="was truncated"):
            file.read("a")


def check(path: Path, content: bytes) -> None:
    """Read a file whole: an error of ours, or tensors that fill the file exactly."""
    path.write_bytes(content)
    with suppress(AdapterError), TensorFile(path) as file:
        sizes = sum(info.size for info in file.infos.values())
        assert 8 + int.from_bytes(content[:8], "little") + sizes == len(content)
        for name, info in file.infos.items():
            if info.dtype in ("F16", "F32", "F64", "BF16"):
                assert file.read(name).shape == info.shape


NUMBERS = st.one_of(st.integers(-1, 40), st.integers(), st.floats(), st.booleans(), st.none())
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*adapter_config.ITEM_BYTES, "X", None]),
        "shape": st.one_of(st.lists(NUMBERS, max_size=3), NUMBERS),
        "data_offsets": st.one_of(st.lists(NUMBERS, min_size=2, max_size=2), NUMBERS),
    }
)
HEADERS = st.dictionaries(st.text(max_size=4), st.one_of(ENTRIES, NUMBERS, st.text(max_size=3)), max_size=4)


@given(header=HEADERS, data=st.binary(max_size=40), length=st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_any_header_is_read_or_refused(header: dict[str, object], data: bytes, length: int | None, place: Path) -> None:
    check(place, raw_file(json.dumps(header).encode(), data, length))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes, place: Path) -> None:
    check(place, content)


@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 60),
)
def test_a_damaged_file_is_read_or_refused(flips: list[tuple[int, int]], cut: int, place: Path) -> None:
    content = bytearray(tensor_file({"x.lora_A": np.ones((2, 3), "<f4"), "x.lora_B": np.ones((3, 2), "<f2")}))
    for position, byte in flips:
        content[position % len(content)] = byte
    check(place, bytes(content[: len(content) - cut]))
