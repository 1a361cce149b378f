"""Studies run to their end, then confirmed: best and default are trained on seeds that chose nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynlora.errors import ConfigError
from dynlora.integrations.search.driver import Driver, Say, Search, best_trial
from dynlora.integrations.search.outcome import found_by
from dynlora.jobs.search import STUDIES_DIR
from dynlora.jobs.spawn import Folder, locked, own_folder, runs_root


def study_file(runs_dir: Folder, name: str) -> Path:
    """Return the file of a study."""
    return runs_root(runs_dir) / STUDIES_DIR / f"{name}.jsonl"


def run_all(searches: Sequence[Search], runs_dir: Folder, confirm: int, say: Say) -> list[dict[str, Any]]:
    """Run studies, continuing those that exist, and return what each found.

    Each holds what `found_by` returns, `default` {run, value}, and `seeds` [{seed, best, default}]: the runs that
    confirm, by id.

    Args:
        searches: the studies.
        runs_dir: folder of the runs; made when missing.
        confirm: new seeds on which best and default are trained.
        say: told a line for each run.

    Raises:
        ConfigError: when Optuna is missing, a study has another objective, or the default values cannot be used.
        CorruptRunError: when the file of a study cannot be read.
        RunBusyError: when another process searches in the same study.
    """
    root = runs_root(runs_dir, make=True)
    folder = own_folder(root, STUDIES_DIR)
    documents = []
    for search in searches:
        with locked(folder / f"{search.name}.lock", 0.5):
            documents.append(_run(Driver(search, root, study_file(root, search.name), say), confirm))
    return documents


def _run(driver: Driver, confirm: int) -> dict[str, Any]:
    """Run one study and confirm its best trial."""
    objective = driver.search.objective
    default = driver.other({}, "default")
    if default.status == "failed":
        raise ConfigError(f"run {default.run} with the default values failed: {default.why or 'see its log'}")
    if default.status == "finished" and default.value is None:
        raise ConfigError(
            f"--objective {objective}: run {default.run} with the default values records "
            f"{', '.join(sorted(default.metrics)) or 'no metric'}; name one of these"
        )
    value = default.status if default.value is None else f"{objective} {default.value:.4f}"
    driver.tell(f"default: {value}")
    driver.run()
    best = best_trial(driver.study)
    seeds = [] if best is None else _confirmed(driver, best.params, confirm)
    return {**found_by(driver.study), "default": {"run": default.run, "value": default.value}, "seeds": seeds}


def _confirmed(driver: Driver, values: Mapping[str, Any], confirm: int) -> list[dict[str, Any]]:
    """Train the best values and the default on new seeds."""
    first = int(driver.search.base.get("seed") or 0) + 1
    rows = []
    for seed in range(first, first + confirm):
        ends = {
            "best": driver.other(values, f"best seed {seed}", seed),
            "default": driver.other({}, f"default seed {seed}", seed),
        }
        losses = [f"{name} {'–' if end.value is None else f'{end.value:.4f}'}" for name, end in ends.items()]
        driver.tell(f"seed {seed}: {driver.search.objective} {', '.join(losses)}")
        if all(end.status == "finished" for end in ends.values()):
            rows.append({"seed": seed, **{name: end.run for name, end in ends.items()}})
    return rows
