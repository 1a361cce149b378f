"""A few training steps that start from a compressed adapter: where it is kept, and the run's configuration."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.jobs.cli_client import answer_of
from dynlora.jobs.export import TIMEOUT_S
from dynlora.jobs.spawn import own_folder, runs_root
from dynlora.peft_adapter import TENSORS_NAME
from dynlora.store.compressions import Compressed, Size

STARTS_DIR = ".starts"
"""Folder of a runs folder with the adapters that runs were told to start from."""

KEPT = ("lr_ratio", "lr_backoff")
"""Settings that every method has and that concern training alone: those of the run stay."""

LEAST_STEPS = 10


def usual_steps(steps: int) -> int:
    """Return how many steps are enough to begin with: a tenth of the run's, and some at least."""
    return max(LEAST_STEPS, round(steps / 10))


def start_place(runs_dir: Path, name: str, found: Compressed, size: Size) -> Path:
    """Return the folder of one size of one adapter; the same size is kept once.

    Args:
        runs_dir: folder of the runs; its folder of starts is made when missing.
        name: of the run, or of the folder, that the adapter comes from.
        found: the measured sizes.
        size: one of them.
    """
    parts = (name[:80], found.which, found.step, found.weighting, size.method, size.parameters)
    plain = re.sub(r"[^0-9A-Za-z_-]+", "-", "-".join(map(str, parts)))  # what a run says of itself is not trusted
    return own_folder(runs_root(runs_dir, make=True), STARTS_DIR) / plain.strip("-")


def is_kept(place: Path) -> bool:
    """Say whether an adapter is there already: its folder is made whole or not at all."""
    return (place / TENSORS_NAME).is_file()


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
    kept = {key: strategy[key] for key in KEPT if key in strategy}
    values["strategy"] = {"name": "lora", **kept, "start_from": str(start)}
    values["train"] = {**(values.get("train") or {}), "steps": steps, "epochs": None}
    values["name"] = name[:200]
    return values


def recovery_name(name: str, share: float, steps: int) -> str:
    """Return the name of such a run."""
    return f"{name}, {100 * share:.0f} % of its parameters, {steps:,} more steps"


def kept_adapter(folder: Path, found: Compressed, size: Size, runs_dir: Path) -> Path:
    """Return the folder with one size of a run's adapter, written now by a child that has torch where it is not there.

    Args:
        folder: of the run.
        found: the measured sizes.
        size: one of them.
        runs_dir: folder of the runs that it is kept in.

    Raises:
        ConfigError: when the adapter cannot be taken apart; the text is the child's sentence.
        DynloraError: when the child fails or takes too long.
    """
    place = start_place(runs_dir, folder.name, found, size)
    if not is_kept(place):
        command = [sys.executable, "-m", "dynlora", "compress", folder.name, "--budget", f"{size.share:g}"]
        command += ["--rows", str(found.rows), "--weighting", found.weighting, "--out", str(place), "--json"]
        answer_of([*command, "--runs-dir", str(folder.parent)], TIMEOUT_S, "the adapter was not compressed")
    return place
