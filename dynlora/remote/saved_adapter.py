"""The adapter of a checkpoint without what only training needs: tensors are copied byte for byte, torch is not needed.

A run that has not ended has its last adapter in its checkpoint alone, beside an optimizer's state twice its size.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dynlora.errors import CorruptRunError
from dynlora.peft_adapter.safetensors import TensorFile
from dynlora.safe_files import read_plain
from dynlora.store.meta import table

STATE, TENSORS = "state.json", "tensors.safetensors"
KEPT = ("step", "adapters", "head", "labels", "task", "task_settings", "metrics")
"""What `trained_state` of training/checkpoints.py holds; the rest of a checkpoint is for a resume."""

_PREFIXES = tuple(f"/{name}/" for name in KEPT)
"""How the names of their tensors begin."""

MAX_STATE_BYTES = 50_000_000
_HEADER_STEP = 8
"""The header of a safetensors file fills up to a multiple of so many bytes."""


def is_whole(folder: Path) -> bool:
    """Say whether the two files of a saved state are of the same moment, as far as they say so.

    Raises:
        CorruptRunError: when they cannot be read.
    """
    digest = _state(folder).get("tensors")
    if digest is None:  # of an earlier version
        return True
    with (folder / TENSORS).open("rb") as file:
        return digest == hashlib.file_digest(file, "sha256").hexdigest()


def write_adapter_of(checkpoint: Path, target: Path) -> bool:
    """Write what was learned up to a checkpoint as a saved adapter; False where the checkpoint holds no adapter.

    Args:
        checkpoint: folder with a state and its tensors.
        target: a folder that is made.

    Raises:
        CorruptRunError: when the state cannot be read.
        AdapterError: when the tensors cannot.
        OSError: when the disk refuses.
    """
    packed = _state(checkpoint)
    rows: Any = table(packed.get("state")).get("dict")
    listed: list[Any] = rows if isinstance(rows, list) else []
    kept = [row for row in listed if isinstance(row, list) and row and row[0] in KEPT]
    if "adapters" not in [row[0] for row in kept]:
        return False
    target.mkdir()
    digest = _write_tensors(checkpoint / TENSORS, target / TENSORS)
    state = {"format": packed.get("format"), "state": {"dict": kept}, "tensors": digest}
    (target / STATE).write_text(json.dumps(state), "utf-8")
    return True


def _state(folder: Path) -> dict[str, Any]:
    text = read_plain(folder / STATE, MAX_STATE_BYTES)
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CorruptRunError(f"{folder.name}/{STATE} cannot be read; it is damaged")
    return found


def _write_tensors(source: Path, target: Path) -> str:
    """Copy the tensors of what is kept, and return the digest of the new file."""
    digest = hashlib.sha256()
    with TensorFile(source) as tensors, source.open("rb") as data, target.open("xb") as file:
        kept = {name: info for name, info in tensors.infos.items() if name.startswith(_PREFIXES)}
        header: dict[str, Any] = {}
        place = 0
        for name, info in kept.items():
            header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [place, place + info.size]}
            place += info.size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _HEADER_STEP)
        for part in (len(text).to_bytes(8, "little"), text):
            file.write(part)
            digest.update(part)
        for info in kept.values():
            data.seek(info.start)
            part = data.read(info.size)
            file.write(part)
            digest.update(part)
    return digest.hexdigest()
