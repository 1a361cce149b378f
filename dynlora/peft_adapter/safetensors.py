"""Files in the safetensors format, read defensively: a file may be untrusted.

The format: eight bytes with the length of a header; the header, a JSON object that says of each tensor its type, its
shape and where its bytes are; the bytes. What the header says is checked against the size of the file before anything
is allocated for it. Tensors are then read one at a time, so memory follows the largest of them, not the file.

The library's own reader knows no bfloat16 in numpy, which most adapters of large models are stored in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dynlora.errors import AdapterError
from dynlora.safe_files import NotPlainFileError, open_plain
from dynlora.text import is_text, printable

TENSORS_NAME = "adapter_model.safetensors"
MAX_HEADER_BYTES = 8 * 2**20
"""Of a header; an adapter of 46,000 tensors needs 7 MiB."""

MAX_TENSORS = 100_000
MAX_DIMENSIONS = 8
MAX_LENGTH = 2**31
"""Of one dimension of a shape."""

MAX_NAME = 1000
"""Of a tensor, in characters."""

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of one number of each type that a file may hold; only the first four can be read."""

_ENTRY = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is in its file, and what it is.

    Attributes:
        dtype: as the format calls it, such as F32 or BF16.
        shape: its dimensions.
        start: position of its first byte in the file.
        size: in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def length(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def open_adapter_file(path: Path) -> tuple[BinaryIO, int]:
    """Open a file of an untrusted adapter folder and return it with its size in bytes.

    Raises:
        AdapterError: when it is missing, a link, or no plain file.
    """
    try:
        return open_plain(path)
    except NotPlainFileError:
        kind = "a link, which is not followed" if path.is_symlink() else "not a regular file"
        raise AdapterError(f"{path}: {kind}; give the folder of a PEFT adapter with the file itself") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name cannot be used"
        raise AdapterError(f"{path}: cannot be opened ({reason}); give the folder of a PEFT adapter") from None


class TensorFile:
    """An open file of tensors; use as a context manager.

    Attributes:
        path: the file.
        infos: what it holds, by name, in the order of the bytes.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and check its header.

        Raises:
            AdapterError: when it cannot be opened, or its header says what cannot be.
        """
        self.path = path
        self._file, size = open_adapter_file(path)
        try:
            self.infos = _checked(path.name, self._file, size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TensorFile:
        """Return the file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._file.close()

    def read(self, name: str) -> NDArray[Any]:
        """Return a tensor as float32, or as float64 where it is stored so.

        Raises:
            AdapterError: when its type is no number with a fraction, or the file became shorter meanwhile.
        """
        info = self.infos[name]
        decode = _DECODERS.get(info.dtype)
        if decode is None:
            raise AdapterError(
                f"{self.path.name}: tensor {printable(name)} has the type {info.dtype}, which cannot be read; save the "
                f"adapter as one of {', '.join(_DECODERS)}"
            )
        self._file.seek(info.start)
        data = self._file.read(info.size)
        if len(data) != info.size:
            raise AdapterError(f"{self.path.name}: the file was truncated during reading; open it again")
        return decode(data).reshape(info.shape)


def _bfloat16(data: bytes) -> NDArray[np.float32]:
    """Return bfloat16 numbers as float32: they are the upper halves of its bits."""
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


_DECODERS = {
    "F64": lambda data: np.frombuffer(data, "<f8"),
    "F32": lambda data: np.frombuffer(data, "<f4"),
    "F16": lambda data: np.frombuffer(data, "<f2").astype("<f4"),
    "BF16": _bfloat16,
}


def _checked(name: str, file: BinaryIO, size: int) -> dict[str, TensorInfo]:
    """Return the tensors that a file says it holds; every byte of it belongs to exactly one of them."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise _damaged(name, f"its header would be {length:,} bytes of a file of {size:,}")
    if length > MAX_HEADER_BYTES:
        raise _damaged(name, f"its header has {length:,} bytes, more than {MAX_HEADER_BYTES:,}")
    header = _header(name, file.read(length))
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _damaged(name, f"it has {len(header):,} tensors, more than {MAX_TENSORS:,}")
    first, data = 8 + length, size - 8 - length
    infos = {tensor: _info(name, tensor, entry, first, data) for tensor, entry in header.items()}
    ordered = dict(sorted(infos.items(), key=lambda item: (item[1].start, item[1].size)))
    end = first
    for tensor, info in ordered.items():
        if info.start != end:
            raise _damaged(name, f"the bytes of tensor {printable(tensor)} do not follow those before it")
        end += info.size
    if end != size:
        raise _damaged(name, f"{size - end:,} bytes at its end belong to no tensor")
    return ordered


def _header(name: str, raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise _damaged(name, "its header is not a JSON object")
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _damaged(name, "its header is not a JSON object that names each tensor once") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is used twice")
    return table


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _info(name: str, tensor: str, entry: object, first: int, data: int) -> TensorInfo:
    """Return one entry of the header, checked; `data` bytes are from `first` on."""
    if not is_text(tensor):
        raise _damaged(name, f"the name of tensor {printable(tensor)} is not valid text")
    if len(tensor) > MAX_NAME or not isinstance(entry, Mapping) or set(entry) != _ENTRY:
        raise _damaged(name, f"its header does not say what tensor {printable(tensor)} is")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _damaged(name, f"tensor {printable(tensor)} has the unknown type {printable(dtype)}")
    lengths_fit = _are_lengths(shape, MAX_LENGTH) and len(shape) <= MAX_DIMENSIONS
    if not lengths_fit or (0 in shape and math.prod(filter(None, shape)) > MAX_LENGTH):  # no bytes bound an empty one
        raise _damaged(name, f"tensor {printable(tensor)} has an invalid shape")
    if not _are_lengths(offsets, data) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(name, f"tensor {printable(tensor)} is outside of the file")
    start, end = offsets
    if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _damaged(
            name, f"tensor {printable(tensor)} has {end - start:,} bytes, which its type and shape do not fill"
        )
    return TensorInfo(dtype, tuple(shape), first + start, end - start)


def _are_lengths(value: object, at_most: int) -> bool:
    """Say whether a value is a list of whole numbers from 0 to `at_most`."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= at_most for item in value)


def _damaged(name: str, what: str) -> AdapterError:
    return AdapterError(f"{name}: {what}; the file is damaged or not a safetensors file; save the adapter again")
