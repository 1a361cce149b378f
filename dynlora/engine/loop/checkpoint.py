"""Checkpoints: tensors as safetensors, everything else as JSON, never a pickle; written aside, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.model.lora_linear import resized
from dynlora.errors import CorruptRunError, system_error
from dynlora.safe_files import sync

FORMAT = 1
MAX_JSON_BYTES = 50_000_000

SPARE = 262_144
"""Bytes that stay free beside a checkpoint: headers, and what the run store writes next."""


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """Return `value` as JSON, its tensors moved to `tensors` under their path.

    Numbers, text, None, lists, tuples and dicts (of any plain key) are kept; a tuple comes back as a list.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, pack(item, tensors, f"{name}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [pack(item, tensors, f"{name}/{index}") for index, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} cannot be saved in a checkpoint")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `pack` was given."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "list" in value:
        return [unpack(item, tensors) for item in value["list"]]
    return {key: unpack(item, tensors) for key, item in value["dict"]}


def moved(value: Any, device: torch.device) -> Any:
    """Return `value` with every tensor in its dicts and lists on a device: checkpoints are read onto the CPU."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    return [moved(item, device) for item in value] if isinstance(value, list) else value


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `folder` by `state` in one rename; a crash leaves the old one or the new one.

    Raises:
        OSError: when the disk is full or the folder cannot be written; the old checkpoint is untouched then. Whether
            there is room is looked at before anything is written.
    """
    tensors: dict[str, Tensor] = {}
    packed: dict[str, Any] = {"format": FORMAT, "state": pack(dict(state), tensors)}
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    _check_room(
        folder.parent,
        len(json.dumps(packed)) + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
    )
    aside.mkdir()
    try:
        _save(tensors, aside / "tensors.safetensors")
        packed["tensors"] = _digest(aside / "tensors.safetensors")
        (aside / "state.json").write_text(json.dumps(packed), "utf-8")
        for name in ("tensors.safetensors", "state.json"):
            sync(aside / name)
        sync(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _swap(aside, folder)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: also where the library raises an error of its own for what the disk refused.
    """
    try:
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise system_error(error) or OSError(errno.EIO, str(error)) from None


def _check_room(folder: Path, size: int) -> None:
    """Refuse to write `size` bytes where there is no room for them.

    Raises:
        OSError: that says how much is needed and how much is free.
    """
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise OSError(errno.ENOSPC, f"{(size + SPARE) / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free")


def _swap(aside: Path, folder: Path) -> None:
    """Put `aside` at `folder`: the old one steps aside first, and `find_checkpoint` knows both names."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _digest(path: Path) -> str:
    """Return what identifies a file: SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_checkpoint(folder: Path) -> Path | None:
    """Return where the last whole checkpoint is: its place, or, after a crash between two renames, the old one."""
    return next(iter(_places(folder)), None)


def check_started(folder: Path) -> None:
    """Refuse a checkpoint whose state is missing: a run would begin again where it should continue.

    Raises:
        CorruptRunError: when the folder is there and its state is not.
    """
    if os.path.lexists(folder) and find_checkpoint(folder) is None:
        raise CorruptRunError(f"{folder}: holds no state.json; restore it, or remove the folder to start over")


def _places(folder: Path) -> list[Path]:
    folders = (folder, folder.with_name(f".{folder.name}.old"))
    return [path for path in folders if os.path.lexists(path / "state.json")]


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the state last written; where it is torn, as a copy made while it was replaced can be, the one before.

    Raises:
        CorruptRunError: when there is none, or it cannot be read.
    """
    first: CorruptRunError | None = None
    for path in _places(folder):
        try:
            return _read(path)
        except CorruptRunError as error:
            first = first or error
    raise first or CorruptRunError(f"{folder}: has no checkpoint; start the run again")


def _read(folder: Path) -> dict[str, Any]:
    """Return the state that is in a folder.

    Raises:
        CorruptRunError: when it cannot be read, or its two files are not of the same moment.
    """
    for name in ("", "state.json", "tensors.safetensors"):  # a run's folder may be a stranger's
        if (folder / name).is_symlink() or (name and (folder / name).exists() and not (folder / name).is_file()):
            raise CorruptRunError(f"{folder / name}: a link or not a regular file; replace it by the file itself")
    try:
        packed = _packed(folder / "state.json")
        if packed.get("tensors") not in (None, _digest(folder / "tensors.safetensors")):  # none: of an earlier version
            raise CorruptRunError(
                f"{folder}: its two files are from different times, possibly copied during a write; copy it again, "
                "or remove it to start from the beginning"
            )
        return unpack(packed["state"], load_file(folder / "tensors.safetensors"))
    except CorruptRunError:
        raise
    except Exception as error:  # safetensors raises its own class, JSON and the layout raise several
        raise CorruptRunError(f"{folder}: cannot be read ({type(error).__name__}: {str(error)[:150]})") from None


def _packed(path: Path) -> dict[str, Any]:
    """Return what a state's JSON file holds.

    Raises:
        CorruptRunError: when it is too large, or of another shape or format.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CorruptRunError(f"{path}: larger than {MAX_JSON_BYTES:,} bytes; not a checkpoint of dynlora")
    packed = json.loads(path.read_text("utf-8"))
    if not isinstance(packed, dict):
        raise CorruptRunError(f"{path}: is not a state that dynlora wrote; restore it")
    if packed.get("format") != FORMAT:
        raise CorruptRunError(f"{path}: format {packed.get('format')}, this version reads {FORMAT}; update dynlora")
    return packed


def optimizer_state(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the state of every parameter, in the groups' order."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [dict(optimizer.state.get(parameter, {})) for parameter in parameters]


def load_optimizer_state(optimizer: Optimizer, states: list[dict[str, Any]]) -> None:
    """Set the state of every parameter, in the groups' order.

    Raises:
        CorruptRunError: when the number of parameters differs.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if len(parameters) != len(states):
        raise CorruptRunError(f"the checkpoint has moments of {len(states)} tensors, the run has {len(parameters)}")
    for parameter, state in zip(parameters, states, strict=True):
        if state:
            optimizer.state[parameter] = {
                key: _fitted(value, parameter) if isinstance(value, Tensor) and key != "step" else value
                for key, value in state.items()
            }


def _fitted(moment: Tensor, parameter: Tensor) -> Tensor:
    """Return a saved moment on its parameter's device, with room for as many components.

    Sizes differ where a run resumes with another number of processes, or began with an earlier version; what is no live
    component is zero.
    """
    moment = moment.to(parameter.device)
    if moment.shape == parameter.shape or moment.dim() != parameter.dim():
        return moment
    for dim, size in enumerate(parameter.shape):
        moment = resized(moment, dim, size)
    return moment


def copy_into(target: Tensor, source: Tensor) -> None:
    """Copy a saved tensor into a live one.

    Raises:
        CorruptRunError: when the shapes differ.
    """
    if target.shape != source.shape:
        raise CorruptRunError(
            f"the checkpoint has a tensor of shape {tuple(source.shape)}, but the run uses {tuple(target.shape)}"
        )
    with torch.no_grad():
        target.copy_(source)
