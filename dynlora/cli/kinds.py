"""Runs of other kinds than training: which code continues them. It is imported when it is needed: it loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from dynlora.errors import ConfigError
from dynlora.store.kinds import DECODE, DISTIL, RECYCLE, TRAIN, kind_of
from dynlora.store.reader import RunReader
from dynlora.store.schema import run_folder

RUNNERS: Mapping[str, str] = {
    DECODE: "dynlora.decoding.run", RECYCLE: "dynlora.recycling.run", DISTIL: "dynlora.distilling.run",
}  # fmt: skip
"""Module of each kind whose `resume(folder, force, progress)` starts or continues a run and returns its outcome."""


def resumed_other(runs_dir: Path, run_id: str, *, force: bool, progress: bool) -> Any:
    """Start or continue a run that is no training and return its `Outcome`; None for a training.

    Raises:
        ConfigError: when this version does not know the kind.
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    folder = run_folder(runs_dir, run_id)
    with RunReader(folder) as reader:
        kind = kind_of(reader.meta(("kind",)))
    if kind == TRAIN:
        return None
    if kind not in RUNNERS:
        raise ConfigError(f"resume {run_id}: this version does not know its kind; continue it with a newer one")
    return import_module(RUNNERS[kind]).resume(folder, force=force, progress=progress)


def conclusion_of(folder: Path, kind: str) -> str:
    """Return what a decode, a recycle or a distillation found, as its page begins; empty for another kind.

    Raises:
        CorruptRunError: when it cannot be read.
    """
    if kind == DECODE:
        from dynlora.store.decodes import read_decode
        from dynlora.viz.decode import model
        from dynlora.viz.decode import text as decode_text

        found = read_decode(folder)
        point = model.best(found)
        return f"{decode_text.headline(found, point)} {decode_text.basis(found, point)}"
    if kind == RECYCLE:
        from dynlora.store.recycles import read_recycle
        from dynlora.viz.recycle import text as recycle_text

        recycled = read_recycle(folder)
        return f"{recycle_text.headline(recycled)} {recycle_text.basis(recycled)}"
    if kind == DISTIL:
        from dynlora.store.distils import read_distil
        from dynlora.viz.distil import text as distil_text

        distilled = read_distil(folder)
        return f"{distil_text.headline(distilled)} {distil_text.basis(distilled)}"
    return ""
