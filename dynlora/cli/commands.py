"""Commands that start a run, and those on what there is to start it with. Torch is imported late."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from dynlora import assets
from dynlora.cli.kinds import resumed
from dynlora.cli.options import configured, exit_code, in_runs, reports
from dynlora.cli.run_commands import Report, format_summary, show_document
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import check_data_path, read_yaml, set_key, split_override, with_run_folder
from dynlora.data_files.reader import check_sides
from dynlora.errors import RunNotFoundError
from dynlora.jobs import launch
from dynlora.jobs.queue import LOG_NAME, claim, put_in_queue
from dynlora.jobs.spawn import log_from_here
from dynlora.jobs.trackers import check_trackers
from dynlora.store.schema import DEFAULT_RUNS_DIR, run_folder


def read_config(config: Path | None, overrides: tuple[str, ...], name: str | None) -> RunConfig:
    """Return the config a command was given; --name wins over a name in the file."""
    values = read_yaml(config) if config is not None else {}
    for override in overrides:
        set_key(values, *split_override(override))
    if name is not None:
        values["name"] = name
    return parse_config(values)


def fetch(config: RunConfig) -> None:
    """Make model and data local before torch is loaded: what is missing is refused in seconds.

    Raises:
        AssetError: when a name cannot be resolved.
        ConfigError: when the data is an address.
        DataError: when the data is no file that can be read, and no folder.
    """
    if config.data.path is not None:
        check_data_path(config)
        check_sides(Path(os.path.expanduser(config.data.path)))
    assets.resolve_model(config.model.name)
    if config.data.path is None:
        assets.resolve_data(config.data.name or "")


def train(
    *,
    config: Path | None,
    overrides: tuple[str, ...],
    name: str | None,
    runs_dir: Path,
    queue: bool,
    progress: bool,
    stay: Callable[[Any, str], None] | None = None,
) -> tuple[Any, str, int]:
    """Train a run here, or queue it.

    Args:
        config: file of the settings, or None.
        overrides: `key=value` each.
        name: display name, or None.
        runs_dir: folder of the runs.
        queue: make a queued run instead.
        progress: draw a bar.
        stay: tells what was queued; this process then trains the run itself where it is next, as it has loaded model
            and data already. None leaves that to another process.
    """
    settings = with_run_folder(read_config(config, overrides, name), runs_dir)
    check_trackers(settings.log.to)
    fetch(settings)
    from dynlora.training import run as training

    if queue:
        from dynlora.training.plan import plan

        planned = plan(settings)
        (folder,) = put_in_queue(runs_dir, [partial(planned.create, runs_dir, "queued")])
        document, words = {"id": folder.name, "status": "queued"}, f"queued {folder.name}"
        if stay is not None and claim(runs_dir, folder.name):
            stay(document, words)
            log_from_here(folder / LOG_NAME)
            return _ended(training.train_planned(planned, folder))
        launch.wake(runs_dir)
        return document, words, 0
    return _ended(training.train(settings, runs_dir, progress=progress))


def resume(*, run_id: str, runs_dir: Path, force: bool, progress: bool) -> tuple[Any, str, int]:
    """Continue a run here, whatever its kind."""
    return _ended(resumed(run_folder(runs_dir, run_id), force=force, progress=progress))


def _ended(outcome: Any) -> tuple[Any, str, int]:
    """Return summary, words and exit code of a run that ended; its folder may have been removed meanwhile."""
    try:
        document = show_document(outcome.folder)
    except RunNotFoundError:
        said = outcome.error or "its folder was removed during training"
        return {"id": outcome.folder.name, "status": "failed", "error": said}, said, 1
    words = format_summary(document)
    return document, f"{words}\n{outcome.error}" if outcome.error else words, exit_code(outcome)


@click.command()
@configured
@reports
def preflight(*, config: Path | None, overrides: tuple[str, ...], name: str | None) -> Report:
    """Check a config and estimate the cost of the run, without creating it."""
    settings = with_run_folder(read_config(config, overrides, name), DEFAULT_RUNS_DIR)
    fetch(settings)
    from dynlora.training.preflight import format_preflight
    from dynlora.training.preflight import preflight as look

    found = look(settings)
    return found, format_preflight(found)


@click.command()
@reports
def models() -> Report:
    """List the built-in models."""
    return _catalogue(assets.MODELS)


@click.command()
@reports
def datasets() -> Report:
    """List the built-in data sets."""
    return _catalogue(assets.DATASETS)


def _catalogue(items: Any) -> Report:
    """Return built-in assets as rows."""
    keys = ("name", "hub_id", "package", "licence", "description", "size", "cached", "needs")
    rows = [{key: _plain(getattr(item, key, None)) for key in keys} for item in items.values()]
    return rows, "\n".join(
        f"{row['name']:16} {row['size'] / 1e6:6.1f} MB  {row['licence']:10} {_at_hand(row):12} {row['description']}"
        for row in rows
    )


def _at_hand(row: dict[str, Any]) -> str:
    """Return whether a built-in asset is here, or what has to be installed first."""
    return "cached" if row["cached"] else f"needs [{row['needs']}]" if row["needs"] else "not downloaded"


def _plain(value: Any) -> Any:
    """Return a value JSON can hold; a package by its requirement, as pip would be told."""
    value = getattr(value, "requirement", value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


@click.command()
@reports
def strategies() -> Report:
    """List the strategies and their hyperparameters."""
    from dynlora import strategies as registry

    found = [registry.describe(name) for name in registry.registry()]
    return found, "\n".join(
        f"{item['name']:16} {item['title']:20} {item['paper']} [{item['fidelity']}]" for item in found
    )


@click.command()
@in_runs
@reports
def doctor(*, runs_dir: Path) -> Report:
    """Say what this machine can do and whether everything needed is at hand."""
    import torch

    from dynlora.engine.loop.hardware import resolve_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = Path(os.path.realpath(runs_dir))
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "precision": resolve_precision("auto", device),
        "threads": torch.get_num_threads(),
        "models": {name: model.cached for name, model in assets.MODELS.items()},
        "datasets": {name: data.cached for name, data in assets.DATASETS.items()},
        "missing_extras": [],  # none is needed any more; the key stays for scripts that read it
        "runs_dir": str(folder),
        "runs_dir_writable": os.access(folder if folder.exists() else folder.parent, os.W_OK),
    }
    return found, "\n".join(f"{key}: {value}" for key, value in found.items())
