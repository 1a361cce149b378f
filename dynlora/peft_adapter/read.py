"""An adapter folder: what it says of itself, and its numbers: rank, norm and spectrum of every module."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlora.errors import AdapterError
from dynlora.peft_adapter.adapter_config import (
    CONFIG_NAME,
    FORMATS,
    MAX_BYTES,
    MOST_ALPHA,
    PREFIX,
    TENSORS_NAME,
    Settings,
    TensorFile,
    TensorInfo,
    read_object,
    read_settings,
    settings_of,
    whole_number,
)
from dynlora.peft_adapter.uniform import (
    ForeignModule,
    ForeignNames,
    Layout,
    Update,
    own_components,
    places,
    read_names,
    split_names,
)
from dynlora.safe_files import read_plain
from dynlora.text import printable

Matrix = NDArray[Any]


def singular_values(
    lora_A: Matrix, lora_B: Matrix, scaling: float, factor: Matrix | None = None
) -> NDArray[np.float64] | None:
    """Return the singular values of s · B diag(e) A, the largest first; None when a factor is not finite.

    With A.T = Q_a R_a and B = Q_b R_b they are those of s · R_b diag(e) R_a.T, at most r by r.

    Args:
        lora_A: (r, d_in).
        lora_B: (d_out, r).
        scaling: s.
        factor: e, (r,); None for ones.
    """
    length = min(*lora_A.shape, lora_B.shape[0])
    if not length:
        return np.zeros(0)
    factors = [lora_A, lora_B, *([] if factor is None else [factor])]
    if not all(np.isfinite(one).all() for one in factors):
        return None
    try:
        with np.errstate(all="ignore"):  # what overflows is found below
            left, right = (_triangle(matrix) for matrix in (lora_B, lora_A.T))
            inner = (left if factor is None else left * factor.astype(np.float64)) @ right.T
            values = abs(scaling) * np.linalg.svd(inner, compute_uv=False)[:length].astype(np.float64)
    except np.linalg.LinAlgError:
        return None
    return values if np.isfinite(values).all() else None


def _triangle(matrix: Matrix) -> Matrix:
    """Return R of matrix = Q R, in double precision."""
    return np.asarray(np.linalg.qr(matrix.astype(np.float64), mode="r"))


def norm(values: NDArray[np.float64]) -> float:
    """Return the Frobenius norm of what has these singular values: √Σσ²."""
    largest = float(values.max(initial=0.0))
    return largest * float(np.linalg.norm(values / largest)) if largest else 0.0  # squares could overflow


def effective_rank(values: NDArray[np.float64]) -> float:
    """Return how many components carry the update: (Σσ²)² / Σσ⁴, 0 when there is none."""
    largest = float(values.max(initial=0.0))
    if not largest:
        return 0.0
    shares = np.square(values / largest)
    return float(shares.sum() ** 2 / np.square(shares).sum())


MAX_RANK = 1024
"""Of a module; the singular values of 1,024 components take half a second."""

MAX_FEATURES = 2**24
"""Of a module's input or output; a vocabulary of a million words is a sixteenth of it."""

MAX_MODULES = 20_000

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Endings of files that run code when they are read; they are never opened."""


@dataclass(frozen=True)
class AdaptedModule:
    """What an adapter does to one module.

    Attributes:
        name: dotted name inside the model.
        layer: index of its block, None outside of blocks.
        kind: its name inside the block.
        d_in: input features.
        d_out: output features.
        rank: components that reach the output: without padding, of AdaLoRA those whose factor is not zero.
        max_rank: components that the file holds.
        scaling: s of the update s · B A.
        norm: Frobenius norm of the update; None when its numbers are not finite.
        effective_rank: (Σσ²)² / Σσ⁴; None likewise.
        singular_values: of the update, the largest first; empty likewise.
    """

    name: str
    layer: int | None
    kind: str
    d_in: int
    d_out: int
    rank: int
    max_rank: int
    scaling: float
    norm: float | None
    effective_rank: float | None
    singular_values: tuple[float, ...]


@dataclass(frozen=True)
class Adapter:
    """An adapter folder, read.

    Attributes:
        peft_type: LORA or ADALORA.
        base_model: what it was trained on, as its configuration says; text of its author.
        modules: in the order of their names' numbers.
        other_parameters: numbers in the file that are no factor, such as a head trained in full.
        notes: what of the adapter these numbers do not show, a sentence each.
    """

    peft_type: str
    base_model: str
    modules: tuple[AdaptedModule, ...]
    other_parameters: int
    notes: tuple[str, ...]


def read_adapter(folder: str | os.PathLike[str]) -> Adapter:
    """Read a folder with `adapter_config.json` and `adapter_model.safetensors`, as PEFT and `dynlora export` write it.

    Raises:
        AdapterError: when a file is missing, a link, damaged, a pickle, or holds no LoRA or AdaLoRA adapter.
    """
    path = check_folder(folder)
    settings = read_settings(path)
    with TensorFile(path / TENSORS_NAME) as tensors:
        tensor_names = _factors(tensors.infos)
        rest = sum(info.length for info in tensors.infos.values()) - _length(tensors.infos, tensor_names)
        where = places(list(tensor_names))
        scalings = settings.scalings({name: tensors.infos[one.lora_A].shape[0] for name, one in tensor_names.items()})
        modules = [
            _module(tensors, scalings[name], name, place, factors)
            for (name, factors), place in zip(tensor_names.items(), where, strict=True)
        ]
    return Adapter(settings.peft_type, settings.base_model, tuple(modules), rest, _notes(settings, modules))


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Return a folder that has both files of an adapter.

    Raises:
        AdapterError: when one is missing.
    """
    path = Path(folder)
    if not path.is_dir():
        raise AdapterError(f"{path}: not a folder; give the folder with {CONFIG_NAME} and {TENSORS_NAME}")
    for name in (CONFIG_NAME, TENSORS_NAME):
        if not os.path.lexists(path / name):
            raise AdapterError(f"{path}: {_missing(path, name)}")
    return path


@dataclass(frozen=True)
class Weights:
    """All numbers of an adapter folder.

    Attributes:
        base_model: what it was trained on, as its configuration says; text of its author.
        updates: s · B A by module, AdaLoRA's factor in B, without components that are padding.
        rest: tensors that are no factor, such as a head trained in full, by name without PEFT's prefix.
    """

    base_model: str
    updates: Mapping[str, Update]
    rest: Mapping[str, NDArray[Any]]


def read_weights(folder: str | os.PathLike[str]) -> Weights:
    """Read every number of an adapter that is nothing but sums of s · B A and tensors trained in full.

    Raises:
        AdapterError: as `read_adapter` does, and where the update is another one or a number is not finite.
    """
    path = check_folder(folder)
    settings = read_settings(path)
    for note in _notes(settings, []):
        raise AdapterError(f"{path}: {note} Merge such an adapter with PEFT instead")
    with TensorFile(path / TENSORS_NAME) as tensors:
        factors = read_factors(tensors)
        others = read_names(tensors.infos, "peft").others
        rest = {name.removeprefix(PREFIX): tensors.read(name) for name in others}
    scalings = settings.scalings({name: len(one.lora_A) for name, one in factors.items()})
    updates = {name: one.update(scalings[name]) for name, one in factors.items()}
    everything = [*rest.values(), *(matrix for A, B, _ in updates.values() for matrix in (A, B))]
    if not all(np.isfinite(one).all() for one in everything):
        raise AdapterError(f"{path}: some of its numbers are not finite; save another checkpoint of the adapter")
    return Weights(settings.base_model, updates, rest)


@dataclass(frozen=True)
class Factors:
    """The tensors of one module's update, s · B diag(e) A.

    Attributes:
        lora_A: (r, d_in).
        lora_B: (d_out, r).
        factor: e, (r,); None for ones.
    """

    lora_A: NDArray[Any]
    lora_B: NDArray[Any]
    factor: NDArray[Any] | None

    def update(self, scaling: float) -> Update:
        """Return s · B A with the factor in B, without components that are padding."""
        lora_B = self.lora_B if self.factor is None else self.lora_B * self.factor
        own = own_components(self.lora_A, lora_B)
        return Update(self.lora_A[own], lora_B[:, own], scaling)


def read_factors(tensors: TensorFile) -> dict[str, Factors]:
    """Return the factors of every module that a file holds, by name.

    Raises:
        AdapterError: when their shapes do not make updates.
    """
    return {name: _read(tensors, names) for name, names in _factors(tensors.infos).items()}


def _read(tensors: TensorFile, names: ForeignModule) -> Factors:
    """Return one module's factors as matrices; those of a convolution are flattened."""
    lora_A, lora_B = (tensors.read(name) for name in (names.lora_A, names.lora_B))
    stored = len(lora_A)
    return Factors(
        lora_A.reshape(stored, math.prod(lora_A.shape[1:])),
        lora_B.reshape(lora_B.shape[0], stored),
        tensors.read(names.lora_E).ravel() if names.lora_E else None,
    )


def _missing(path: Path, name: str) -> str:
    """Say what is wrong with a folder that lacks a file, as far as its other files tell."""
    pickle = next((item.name for item in sorted(path.iterdir()) if item.name.endswith(PICKLES)), None)
    if name == TENSORS_NAME and pickle:
        return (
            f"{printable(pickle)} is a pickle, which can run code when it is read; save the adapter as {TENSORS_NAME}"
        )
    if (path / "state.json").is_file():
        return "an adapter in the format of a run; export it with `dynlora export ID --out FOLDER`"
    return f"{name} is missing; give a folder that PEFT or `dynlora export` wrote"


def _factors(infos: Mapping[str, TensorInfo]) -> dict[str, ForeignModule]:
    """Return the names of each module's tensors, checked for their shapes and sizes, in the order of layers."""
    modules = read_names(infos, "peft").modules
    if not modules:
        raise AdapterError(f"{TENSORS_NAME}: none of its {len(infos)} tensors is a lora_A; give a LoRA adapter")
    if len(modules) > MAX_MODULES:
        raise AdapterError(
            f"{TENSORS_NAME}: {len(modules):,} modules are more than {MAX_MODULES:,}; give a smaller adapter"
        )
    check_shapes(modules, infos)
    for module, names in modules.items():
        a, b = infos[names.lora_A].shape, infos[names.lora_B].shape
        if (features := max(math.prod(a[1:]), b[0])) > MAX_FEATURES:
            raise AdapterError(
                f"{TENSORS_NAME}: module {printable(module)} has {features:,} features, more than {MAX_FEATURES:,}"
            )
        if a[0] > MAX_RANK:
            raise AdapterError(f"{TENSORS_NAME}: module {printable(module)} has rank {a[0]:,}, more than {MAX_RANK:,}")
    order = sorted(modules, key=lambda module: [_natural(part) for part in module.split(".")])
    return {module: modules[module] for module in order}


def _natural(word: str) -> tuple[int, str]:
    """Return what sorts numbers by their size, before words."""
    return (int(word), "") if word.isascii() and word.isdigit() and len(word) < 7 else (10**7, word)


def check_shapes(modules: Mapping[str, ForeignModule], infos: Mapping[str, TensorInfo]) -> None:
    """Refuse modules of PEFT's whose factors do not make an update together.

    Raises:
        AdapterError: when a factor is missing, or their shapes do not fit.
    """
    for module, names in modules.items():
        if not (names.lora_A and names.lora_B):
            raise AdapterError(
                f"{TENSORS_NAME}: module {printable(module)} lacks lora_A or lora_B; save the adapter again"
            )
        a, b = list(infos[names.lora_A].shape), list(infos[names.lora_B].shape)
        fits = len(a) >= 2 and len(b) >= 2 and a[0] == b[1] and math.prod(b[2:]) == 1
        if not fits or (names.lora_E and infos[names.lora_E].length != a[0]):
            raise AdapterError(
                f"{TENSORS_NAME}: the factors of module {printable(module)} have shapes {a} and {b}, which do not fit "
                "an update; save the adapter again"
            )


def _length(infos: Mapping[str, TensorInfo], modules: Mapping[str, ForeignModule]) -> int:
    names = (name for one in modules.values() for name in (one.lora_A, one.lora_B, one.lora_E) if name)
    return sum(infos[name].length for name in names)


def _module(
    tensors: TensorFile,
    scaling: float,
    name: str,
    place: tuple[int | None, str],
    factors: ForeignModule,
) -> AdaptedModule:
    matrices = _read(tensors, factors)
    lora_A, lora_B, factor = matrices.lora_A, matrices.lora_B, matrices.factor
    stored = len(lora_A)
    values = singular_values(lora_A, lora_B, scaling, factor)
    if values is not None and not math.isfinite(norm(values)):
        values = None
    size, spread = (None, None) if values is None else (norm(values), effective_rank(values))
    return AdaptedModule(
        name,
        *place,
        lora_A.shape[1],
        lora_B.shape[0],
        _reaching(matrices),
        stored,
        scaling,
        size,
        spread,
        () if values is None else tuple(values.tolist()),
    )


def _reaching(factors: Factors) -> int:
    """Return how many components reach the output: those of AdaLoRA's factor, else those that are not padding."""
    if factors.factor is not None:
        return int(np.count_nonzero(factors.factor))
    return int(own_components(factors.lora_A, factors.lora_B).sum())


def _notes(settings: Settings, modules: list[AdaptedModule]) -> tuple[str, ...]:
    """Return what the numbers do not show."""
    notes: list[str] = []
    if settings.is_decomposed:
        notes.append("DoRA also scales the columns of the base weights, which cannot be shown without the base model.")
    broken = [module.name for module in modules if module.norm is None]
    if broken:
        notes.append(f"{len(broken)} modules have numbers that are not finite, {printable(broken[0])} first.")
    return tuple(notes)


MLX_NAME = "adapters.safetensors"
"""What mlx-lm calls its file of tensors."""

REPLACED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of `init_lora_weights` after which the base model's weights are others than before."""


NO_ADAPTERS = {
    "adapter.gguf": "is read by llama.cpp and Ollama alone; give the adapter that it was made of",
    "dynlora_adapter.json": "says an adapter with its gates, which only dynlora.load reads; export it for an engine",
    "config.json": "says a whole model, which is served without an adapter; give an adapter",
}
"""Files of exports that no engine reads as a LoRA beside a model, and why."""


@dataclass(frozen=True)
class AdapterHeader:
    """An adapter as its configuration and its file's header describe it.

    Attributes:
        folder: where it is.
        config: of `adapter_config.json`; empty where there is none.
        names: the tensors' names, read.
        infos: type and shape of each tensor.
        file: name of the file that holds them.
        has_mark: whether the configuration begins with a byte order mark, which PEFT does not read.
    """

    folder: Path
    config: Mapping[str, Any]
    names: ForeignNames
    infos: Mapping[str, TensorInfo]
    file: str = TENSORS_NAME
    has_mark: bool = False

    @property
    def layout(self) -> Layout:
        """Whose format the tensors are named in."""
        return self.names.layout

    @property
    def peft_type(self) -> str:
        """PEFT's name of the method; LORA where there is no configuration."""
        return str(self.config.get("peft_type") or "LORA").upper()

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Stored rank by module; only modules with both factors."""
        axis = 1 if self.layout == "mlx" else 0
        return {
            name: self.infos[module.lora_A].shape[axis]
            for name, module in self.names.modules.items()
            if module.lora_A and module.lora_B and len(self.infos[module.lora_A].shape) > axis
        }

    @cached_property
    def settings(self) -> Settings | None:
        """The configuration, read; None where the method is no product of two factors, or there is none."""
        return settings_of(self.config) if self.config and self.peft_type in FORMATS else None

    @cached_property
    def scalings(self) -> dict[str, float]:
        """Scaling s that PEFT gives each module; empty where it is not known."""
        return {} if self.settings is None else self.settings.scalings(self.ranks)

    @cached_property
    def missing(self) -> dict[str, list[int]]:
        """Layers that lack a module of a type which other layers have, by type."""
        parts = split_names(self.ranks).values()
        layers: dict[str, set[int]] = {}
        kinds: dict[tuple[str, str], set[int]] = {}
        for stack, layer, kind in parts:
            if layer is not None:
                layers.setdefault(stack, set()).add(layer)
                kinds.setdefault((stack, kind), set()).add(layer)
        return {
            kind: sorted(layers[stack] - present) for (stack, kind), present in kinds.items() if layers[stack] - present
        }

    def number(self, key: str, default: float) -> float:
        """Return a number of the configuration, the default where it is missing or none."""
        value = self.config.get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_ALPHA
        return float(value) if is_number else default


def expected_header(
    ranks: Mapping[str, int], scalings: Mapping[str, float], rank: int, lora_alpha: float
) -> AdapterHeader:
    """Return the header that an adapter will have when it is exported as it was trained.

    Args:
        ranks: by module; those of rank 0 are left out.
        scalings: s by module, lora_alpha / rank where one is missing.
        rank: r of the configuration.
        lora_alpha: of the configuration.
    """
    own = {f"^{re.escape(name)}": (name, rank) for name, rank in ranks.items() if rank > 0}
    usual = lora_alpha / rank
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": whole_number(lora_alpha),
        "target_modules": [name for name, _ in own.values()],
        "rank_pattern": {key: own_rank for key, (_, own_rank) in own.items()},
        "alpha_pattern": {key: scalings.get(name, usual) * own_rank for key, (name, own_rank) in own.items()},
    }
    shapes = {f"{PREFIX}{name}.lora_A.weight": (own_rank, 1) for name, own_rank in own.values()}
    shapes |= {f"{PREFIX}{name}.lora_B.weight": (1, own_rank) for name, own_rank in own.values()}
    infos = {name: TensorInfo("F32", shape, 0, 4 * max(shape)) for name, shape in shapes.items()}
    return AdapterHeader(Path(), config, read_names(infos), infos)


def read_header(folder: str | os.PathLike[str]) -> AdapterHeader:
    """Read configuration and header of an adapter folder of PEFT, mlx-lm, kohya or diffusers.

    Raises:
        AdapterError: when there is no safetensors file, more than one, or one of the files is damaged.
    """
    path = Path(folder)
    file = tensors_of(path)
    config = read_object(path / CONFIG_NAME) if os.path.lexists(path / CONFIG_NAME) else {}
    has_mark = (read_plain(path / CONFIG_NAME, MAX_BYTES) or "").startswith("\ufeff")
    with TensorFile(file) as tensors:
        names = read_names(tensors.infos)
        if names.layout == "peft":
            check_shapes(names.modules, tensors.infos)
        return AdapterHeader(path, config, names, dict(tensors.infos), file.name, has_mark)


def tensors_of(folder: Path) -> Path:
    """Return the safetensors file of an adapter folder.

    Raises:
        AdapterError: when there is none, or it cannot be told which.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder}: not a folder; give the folder that holds the adapter's .safetensors file")
    for name in (TENSORS_NAME, MLX_NAME):
        if os.path.lexists(folder / name):
            return folder / name
    files = sorted(item for item in folder.iterdir() if item.suffix == ".safetensors")
    is_model = any(item.name.startswith("model") for item in files)  # else config.json may be anything's
    for name, why in NO_ADAPTERS.items():
        if os.path.lexists(folder / name) and (is_model or name != "config.json"):
            raise AdapterError(f"{folder}: {name} {why}")
    if len(files) == 1:
        return files[0]
    pickle = next((item.name for item in sorted(folder.iterdir()) if item.name.endswith(PICKLES)), None)
    if not files and pickle:
        raise AdapterError(
            f"{folder}: {pickle} is a pickle, which can run code when it is read; save the adapter as safetensors"
        )
    raise AdapterError(
        f"{folder}: holds {len(files)} .safetensors files; give a folder with one, named {TENSORS_NAME} by PEFT"
    )
