"""A run's adapter as files, written by a child that has torch: exported, made smaller, or to start another run from."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.errors import storing
from dynlora.jobs import helper_job
from dynlora.jobs.environment import python_command
from dynlora.jobs.helper_job import HelperJob
from dynlora.jobs.spawn import own_folder, runs_root
from dynlora.peft_adapter import TENSORS_NAME
from dynlora.store.measurements import Compressed, Size

TIMEOUT_S = 600.0
"""Seconds that an export may take: it loads the model, and where there are gates evaluates held-out examples twice."""

STARTS_DIR = ".starts"
"""Folder of a runs folder with the adapters that runs were told to start from."""

EXPORTS_DIR, MOST_EXPORTS = ".exports", 3
"""Folder of a runs folder with the exports that are measured on all held-out examples, and how many stay."""

KEPT = ("lr_ratio", "lr_backoff")
"""Settings that every method has and that concern training alone: those of the run stay."""

LEAST_STEPS = 10


def exported(folder: Path, format: str) -> bytes:
    """Return the .zip file of a run's last adapter, as `dynlora export` writes it.

    Args:
        folder: of the run.
        format: peft or merged.

    Raises:
        DynloraError: when the run has no adapter, the format cannot hold it, the child fails or takes too long.
        StorageError: when there is no room for the file.
    """
    with storing("the exported adapter"), tempfile.TemporaryDirectory(prefix="dynlora-export-") as temporary:
        out = Path(temporary) / f"{folder.name}-{format}.zip"
        command = _command("export", folder, out, "--format", format)
        helper_job.run("export", command, TIMEOUT_S, "the adapter was not exported")
        return out.read_bytes()


def start_whole(folder: Path, format: str) -> None:
    """Start an export that is measured on all held-out examples; the one that was there goes.

    Raises:
        StorageError: when the disk does not take its record.
        OSError: when no process can be started.
    """
    place = _whole_place(folder, format)
    home = own_folder(runs_root(folder.parent, make=True), EXPORTS_DIR)
    helper_job.forget(place)
    helper_job.forget_oldest(home.glob(f"*{helper_job.ENDING}"), MOST_EXPORTS - 1)
    command = _command("export", folder, place.with_suffix(".zip"), "--format", format, "--measure", "all")
    helper_job.start("export", command, place)


def whole(folder: Path, format: str) -> tuple[HelperJob | None, Path]:
    """Return how the export on all held-out examples stands, None where nobody asked, and its .zip file."""
    place = _whole_place(folder, format)
    return helper_job.follow(place), place.with_suffix(".zip")


def cancel_whole(folder: Path, format: str) -> None:
    """End such an export, and forget it."""
    place = _whole_place(folder, format)
    helper_job.cancel(place)
    helper_job.forget(place)


def _whole_place(folder: Path, format: str) -> Path:
    """Return the record of such an export; another one after the adapter was saved again."""
    saved = folder / "adapter" / "state.json"
    version = saved.stat().st_mtime_ns if saved.is_file() else 0
    return runs_root(folder.parent) / EXPORTS_DIR / f"{folder.name}-{format}-{version}{helper_job.ENDING}"


def compressed(folder: Path, share: float, rows: int, weighting: str) -> bytes:
    """Return the .zip file of a run's adapter at a share of its parameters, as `dynlora compress` writes it.

    Args:
        folder: of the run.
        share: of the parameters, 0 to 1.
        rows: held-out examples that its cost is measured on.
        weighting: what a component's effect is measured by.

    Raises:
        DynloraError: when the adapter cannot be taken apart, the child fails or takes too long.
        StorageError: when there is no room for the file.
    """
    with storing("the compressed adapter"), tempfile.TemporaryDirectory(prefix="dynlora-export-") as temporary:
        out = Path(temporary) / f"{folder.name}-small.zip"
        _compress(folder, out, share, rows, weighting)
        return out.read_bytes()


def _compress(folder: Path, out: Path, share: float, rows: int, weighting: str) -> None:
    """Write a run's adapter at a share of its parameters."""
    options = ("--budget", f"{share:g}", "--rows", str(rows), "--weighting", weighting)
    command = _command("compress", folder, out, *options)
    helper_job.run("compress", command, TIMEOUT_S, "the adapter was not compressed")


def _command(name: str, folder: Path, out: Path, *options: str) -> list[str]:
    """Return a command that writes a file of a run."""
    command = python_command("dynlora", name, folder.name, *options, "--out", str(out), "--json")
    return [*command, "--runs-dir", str(folder.parent)]


def usual_steps(steps: int) -> int:
    """Return how many steps are enough to begin with: a tenth of the run's, and some at least."""
    return max(LEAST_STEPS, round(steps / 10))


def start_folder(runs_dir: Path, name: str, sizes: Compressed, size: Size) -> Path:
    """Return the folder of one size of one adapter; the same size is kept once.

    Args:
        runs_dir: folder of the runs; its folder of starts is made when missing.
        name: of the run, or of the folder, that the adapter comes from.
        sizes: as they were measured.
        size: one of them.
    """
    parts = (name[:80], sizes.which, sizes.step, sizes.weighting, size.method, size.parameters)
    plain = re.sub(r"[^0-9A-Za-z_-]+", "-", "-".join(map(str, parts)))  # what a run says of itself is not trusted
    return own_folder(runs_root(runs_dir, make=True), STARTS_DIR) / plain.strip("-")


def is_kept(folder: Path) -> bool:
    """Say whether an adapter is there already: its folder is made whole or not at all."""
    return (folder / TENSORS_NAME).is_file()


def recovery_values(config: Mapping[str, Any], start: Path, steps: int, name: str) -> dict[str, Any]:
    """Return the configuration of a run that starts from an adapter: data, seed and settings stay.

    Args:
        config: of the run that the adapter comes from, as plain values.
        start: folder of the adapter.
        steps: optimizer steps to train.
        name: of the new run.
    """
    values = copy.deepcopy(dict(config))
    strategy = values.get("strategy") or {}
    same = {key: strategy[key] for key in KEPT if key in strategy}
    values["strategy"] = {"name": "lora", **same, "start_from": str(start)}
    values["train"] = {**(values.get("train") or {}), "steps": steps, "epochs": None}
    values["name"] = name[:200]
    return values


def recovery_name(name: str, share: float, steps: int) -> str:
    """Return the name of such a run."""
    return f"{name}, {100 * share:.0f} % of its parameters, {steps:,} more steps"


def kept_adapter(folder: Path, sizes: Compressed, size: Size, runs_dir: Path) -> Path:
    """Return the folder with one size of a run's adapter, written now by a child that has torch where it is not there.

    Args:
        folder: of the run.
        sizes: as they were measured.
        size: one of them.
        runs_dir: folder of the runs that it is kept in.

    Raises:
        DynloraError: when the adapter cannot be taken apart, the child fails or takes too long.
    """
    start = start_folder(runs_dir, folder.name, sizes, size)
    if not is_kept(start):
        _compress(folder, start, size.share, sizes.rows, sizes.weighting)
    return start
