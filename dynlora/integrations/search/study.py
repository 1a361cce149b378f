"""Optuna's part: a study in one file, its sampler and its pruner.

The file is Optuna's journal: a line of JSON for each thing that happened, appended and synced. So a study that was
killed anywhere continues, and nothing in it is executed when it is read. Samplers keep no state beyond it.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from dynlora.errors import ConfigError, CorruptRunError
from dynlora.safe_files import read_plain

SAMPLERS = ("tpe", "random")
"""Tree-structured Parzen estimator, and random values: the control."""

PRUNERS = ("median", "none")
"""Stop what is below the median of earlier trials at the same step; stop nothing."""

RANDOM_TRIALS = 5
"""Trials with random values before the sampler models, and unpruned trials before the pruner stops any."""

MAX_BYTES = 64_000_000
"""Largest file of a study that is read."""


def optuna() -> ModuleType:
    """Return Optuna, quiet.

    Raises:
        ConfigError: when it is not installed.
    """
    try:
        import optuna as module
    except ImportError:
        raise ConfigError("--search: needs Optuna, which is not installed; pip install 'dynlora[search]'") from None
    module.logging.set_verbosity(module.logging.WARNING)
    return module


def opened(path: Path, *, sampler: str, pruner: str, direction: str, seed: int) -> Any:
    """Return the study in a file, made now where there is none.

    Args:
        path: its file.
        sampler: one of `SAMPLERS`.
        pruner: one of `PRUNERS`.
        direction: minimize or maximize.
        seed: of the sampler; the number of trials is added to it, so that a continued study draws other values.

    Raises:
        ConfigError: when Optuna is missing, or the study goes the other way.
        CorruptRunError: when the file holds no study.
    """
    package = optuna()
    check_file(path)
    path.with_name(path.name + ".lock").unlink(
        missing_ok=True
    )  # of a process that was killed: dynlora's own lock is held
    storage = package.storages.JournalStorage(
        package.storages.journal.JournalFileBackend(
            str(path), lock_obj=package.storages.journal.JournalFileOpenLock(str(path))
        )
    )
    study = package.create_study(storage=storage, study_name=path.stem, direction=direction, load_if_exists=True)
    if study.direction.name.lower() != direction:
        raise ConfigError(
            f"--objective: study {path.stem} is to {study.direction.name.lower()}; keep its objective, or name another "
            "study with --study"
        )
    study.sampler = _sampler(package, sampler, seed + 1000 * len(study.trials))
    study.pruner = package.pruners.NopPruner() if pruner == "none" else package.pruners.MedianPruner(RANDOM_TRIALS, 0)
    return study


def _sampler(package: ModuleType, name: str, seed: int) -> Any:
    """Return a sampler by name."""
    if name == "random":
        return package.samplers.RandomSampler(seed=seed)
    return package.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS, multivariate=False)


def check_file(path: Path) -> None:
    """Refuse a file that Optuna did not write as a journal, and mend a last line that was cut off.

    Raises:
        CorruptRunError: when the file is a link, a folder, too large or no journal.
    """
    if not path.exists() and not path.is_symlink():
        return
    text = read_plain(path, MAX_BYTES)
    if text is None:
        raise CorruptRunError(f"study {path.stem}: its file is not a plain file or too large; remove {path.name}")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # killed while it was appended: what it says did not happen
        with path.open("r+b") as file:
            file.truncate(len("".join(lines[:-1]).encode()))
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not _is_entry(line):
            raise CorruptRunError(f"study {path.stem}: line {number} of its file is not an entry; remove {path.name}")


def _is_entry(line: str) -> bool:
    """Say whether a line is an entry of a journal."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and isinstance(entry.get("op_code"), int)
