"""The two files of an adapter, untrusted: safetensors, and what `adapter_config.json` says of its strength."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dynlora.errors import AdapterError
from dynlora.safe_files import NotPlainFileError, open_plain
from dynlora.text import clean_text, is_text, printable

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


CONFIG_NAME = "adapter_config.json"
PREFIX = "base_model.model."
"""What PEFT puts before the name of every tensor."""

MAX_BYTES = 4 * 2**20
FORMATS = ("LORA", "ADALORA")
"""Values of `peft_type` whose update is a product of small factors."""

ADALORA_EPSILON = 1e-5
"""What PEFT adds to the rank that AdaLoRA's update is divided by."""

MOST_ALPHA = 1e300
"""Of lora_alpha; above, no scaling is a number."""

_DEFAULTS = {"LORA": ("r", 8, 8.0), "ADALORA": ("init_r", 12, 8.0)}
"""PEFT's: key of the rank a module starts with, its default, the default of lora_alpha."""

_PLAIN_PATTERN = re.compile(r"\^?(?:[\w .-]|\\\.)+\Z")

MATCHING_S = 5.0
"""Most that regular expressions of an adapter may take."""

_MATCHER = """
import json, re, sys
form, patterns, names = json.load(sys.stdin)
match = re.fullmatch if form == "{}" else re.match
json.dump([[bool(match(form.format(pattern), name)) for name in names] for pattern in patterns], sys.stdout)
"""


@dataclass(frozen=True)
class Settings:
    """What an adapter's configuration says, as far as it is asked for.

    Attributes:
        peft_type: one of `FORMATS`.
        base_model: what it was trained on; text of its author.
        start_rank: rank each module started with.
        alpha: lora_alpha, where no pattern says otherwise.
        alphas: lora_alpha by pattern, see `first_fitting`.
        is_rank_stabilised: the update is divided by the root of the rank (rsLoRA).
        is_decomposed: the base weights' columns are scaled too (DoRA), which needs the base model to be seen.
    """

    peft_type: str
    base_model: str
    start_rank: int
    alpha: float
    alphas: Mapping[str, Any]
    is_rank_stabilised: bool
    is_decomposed: bool

    def scalings(self, ranks: Mapping[str, int]) -> dict[str, float]:
        """Return the factor s of each module's update s · B A.

        LoRA: alpha / r, rsLoRA: alpha / √r, with r the components stored. AdaLoRA: alpha / (r₀ + 1e-5), with r₀ the
        rank it started with, whatever was pruned since.

        Args:
            ranks: components that the file holds of each module; names are without PEFT's prefix.

        Raises:
            AdapterError: when a pattern cannot be matched, or what it gives is no number.
        """
        if self.peft_type == "ADALORA":
            alpha = self.alpha if self.alpha > 0 else float(self.start_rank)
            return dict.fromkeys(ranks, alpha / (self.start_rank + ADALORA_EPSILON))
        patterns = first_fitting("alpha_pattern", self.alphas, list(ranks))
        alphas = dict.fromkeys(ranks, self.alpha) | {
            module: _number(f"alpha_pattern.{printable(pattern)}", self.alphas[pattern], MOST_ALPHA)
            for module, pattern in patterns.items()
        }
        roots = {module: math.sqrt(rank) if self.is_rank_stabilised else rank for module, rank in ranks.items()}
        return {module: alphas[module] / root if root else 0.0 for module, root in roots.items()}


def first_fitting(key: str, patterns: Iterable[str], modules: Sequence[str]) -> dict[str, str]:
    """Return the first pattern that fits each module, as PEFT looks for it; modules without one are left out.

    A pattern is a regular expression of a module's name, or of its end after a dot.

    Args:
        key: of the configuration that holds them, for messages.
        patterns: in the order of the file.
        modules: their names.

    Raises:
        AdapterError: when a pattern cannot be matched.
    """
    places = {pattern: place for place, pattern in enumerate(patterns)}
    plain = {pattern.replace("\\.", "."): pattern for pattern in reversed(places) if _PLAIN_PATTERN.match(pattern)}
    others = [pattern for pattern in places if not _PLAIN_PATTERN.match(pattern)]
    rows = fits(key, others, modules, r"(.*\.)?({})$")
    fitting = {
        module: [plain[end] for end in _ends(module) if end in plain]
        + [pattern for pattern, row in zip(others, rows, strict=True) if row[i]]
        for i, module in enumerate(modules)
    }
    return {module: min(some, key=places.__getitem__) for module, some in fitting.items() if some}


def has_expressions(patterns: Iterable[str]) -> bool:
    """Say whether a pattern is more than a name."""
    return not all(_PLAIN_PATTERN.match(pattern) for pattern in patterns)


def _ends(module: str) -> list[str]:
    """Return the plain patterns that fit a module: its name, the ends of it after a dot, and the whole of it."""
    parts = module.split(".")
    return [f"^{module}", *(".".join(parts[start:]) for start in range(len(parts)))]


def fits(key: str, patterns: Sequence[str], names: Sequence[str], form: str = "{}") -> list[list[bool]]:
    """Say of each regular expression which names it fits; untrusted, they run in a process that is ended when slow.

    Args:
        key: of the configuration that holds them, for messages.
        patterns: the expressions.
        names: what they are matched with.
        form: expression that each is put into, which fits the beginning of a name; by default each fits a whole name.

    Raises:
        AdapterError: when one is no regular expression, or they take longer than `MATCHING_S`.
    """
    if not patterns:
        return []
    task, command = json.dumps([form, patterns, names]), [sys.executable, "-I", "-S", "-c", _MATCHER]
    try:
        run = subprocess.run(command, input=task, capture_output=True, text=True, timeout=MATCHING_S, check=True)
    except subprocess.SubprocessError as error:
        is_slow = isinstance(error, subprocess.TimeoutExpired)
        what = f"takes over {MATCHING_S:g} s to match" if is_slow else "is no regular expression"
        raise AdapterError(
            f"{CONFIG_NAME}: {key} {printable(', '.join(patterns))} {what}; name modules there"
        ) from None
    return json.loads(run.stdout)


def read_settings(folder: Path) -> Settings:
    """Read the configuration of an adapter folder.

    Raises:
        AdapterError: when it is missing, no JSON object, another kind of adapter, or says what cannot be.
    """
    return settings_of(read_object(folder / CONFIG_NAME))


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Return what a configuration says.

    Raises:
        AdapterError: when it is of another kind of adapter, or says what cannot be.
    """
    peft_type = values.get("peft_type")
    if peft_type not in FORMATS:
        raise AdapterError(
            f"{CONFIG_NAME}: peft_type is {printable(peft_type)!r}; only {' and '.join(FORMATS)} adapters can be opened"
        )
    rank_key, rank, alpha = _DEFAULTS[peft_type]
    patterns = values.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{CONFIG_NAME}: alpha_pattern is not an object of numbers by module; correct or remove it")
    return Settings(
        peft_type,
        clean_text(str(values.get("base_model_name_or_path") or "")),
        max(1, round(_number(rank_key, values.get(rank_key, rank)))),
        _number("lora_alpha", values.get("lora_alpha", alpha), MOST_ALPHA),
        patterns,
        bool(values.get("use_rslora")),
        bool(values.get("use_dora")),
    )


def whole_number(value: float) -> int | float:
    """Return an alpha as an integer where it is one: some engines take no other."""
    return int(value) if float(value).is_integer() else value


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        AdapterError: when it is missing, too large, or no JSON object.
    """
    file, size = open_adapter_file(path)
    with file:
        if size > MAX_BYTES:
            raise AdapterError(f"{path.name}: {size:,} bytes are more than {MAX_BYTES:,}; give PEFT's own file")
        raw = file.read(MAX_BYTES + 1)
    try:
        values = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise AdapterError(f"{path.name}: not a JSON object; give the file that PEFT wrote next to the tensors")
    return values


def _number(key: str, value: object, most: float = 1e9) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise AdapterError(f"{CONFIG_NAME}: {key} is {printable(value)!r}; it must be a number of at most {most:.3g}")
    return float(value)
