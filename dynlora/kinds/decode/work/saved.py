"""What the roles of a decode had saved when it began: a decode continues with the same adapters, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.assets.cache import sha256_of
from dynlora.engine.loop.checkpoint import find_checkpoint
from dynlora.errors import RunRoleError
from dynlora.kinds.named_runs import ADAPTERS, NamedRun


def roles_saved(runs: Mapping[str, NamedRun | None]) -> dict[str, str]:
    """Return the digest of what each run trained, by role; a role that is no run has none.

    Raises:
        RunRoleError: when a file has gone; one sentence.
    """
    return {role: _digest(run) for role, run in runs.items() if run is not None}


def _digest(run: NamedRun) -> str:
    try:
        return sha256_of(_place(run.folder) / "tensors.safetensors")
    except OSError as error:
        raise RunRoleError(f"{run.role} {run.id}: its adapter cannot be read ({error.strerror}); try again") from None


def _place(folder: Path) -> Path:
    """Return where the last adapter of a run lies."""
    places = (find_checkpoint(folder / name) for name in ADAPTERS)
    return next((place for place in places if place is not None), folder / ADAPTERS[0])


def changed_role(before: Mapping[str, Any], now: Mapping[str, str]) -> str | None:
    """Return the first role that has another adapter than before; None where none has, or nothing was recorded."""
    return next((role for role, digest in now.items() if before.get(role, digest) != digest), None)
