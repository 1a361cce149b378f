"""Putting a run into the queue at once: what needs no torch is checked before, and its start adapter is copied.

A configuration that can be refused without torch is refused as ever, and leaves no run. The rest (a column that is not
there, a method that cannot adapt the model) is found while the run loads: it is then a failed run with that sentence.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from dynlora import assets
from dynlora.config import RunConfig, Setting, parse_config
from dynlora.config_files import START_FROM, with_absolute_paths
from dynlora.errors import AdapterError, ConfigError, DynloraError, storing
from dynlora.jobs.environment import python_command
from dynlora.jobs.launch import RESERVED, RunHandle, catalog, enqueue, launched_once, request_check
from dynlora.jobs.queue import LOG_NAME, is_pending, put_in_queue, wake
from dynlora.jobs.spawn import Folder, runs_root, spawn_detached
from dynlora.jobs.trackers import check_trackers
from dynlora.kinds.settings import KindSettings
from dynlora.peft_adapter.adapter_config import CONFIG_NAME, TENSORS_NAME, open_adapter_file, read_settings
from dynlora.peft_adapter.read import check_folder
from dynlora.safe_files import read_plain, sync, write_text
from dynlora.store.lifecycle import create_run
from dynlora.store.meta import meta_of
from dynlora.store.schema import check_run_id, new_run_id, run_folder
from dynlora.store.summary import ORIGIN_NAME, origin_meta, read_origin


def create(settings: KindSettings, runs_dir: Folder, state: str = "queued") -> Path:
    """Check settings, make the run folder at step 0 and return it.

    Args:
        settings: of the run.
        runs_dir: folder of the runs; made when missing.
        state: `queued`, or `running` where this process does the work itself.

    Raises:
        DynloraError: when something the settings name cannot be used, or the disk does not take the run.
    """
    root = runs_root(runs_dir, make=True)
    settings.check(root)
    return create_run(
        root, config_yaml=settings.to_yaml(), meta=settings.meta(root), max_steps=settings.steps(root), state=state
    )


def enqueue_kind(settings: KindSettings, runs_dir: Folder, *, key: str) -> RunHandle:
    """Check settings, put the run into the queue and start the queue.

    Args:
        settings: of the run.
        runs_dir: folder of the runs; made when missing.
        key: idempotency key; a second call with the same key returns the run of the first.

    Raises:
        DynloraError: when the key or something the settings name cannot be used, or the disk does not take the run.
    """
    root = runs_root(runs_dir, make=True)
    run_id = launched_once(root, key, lambda _: put_in_queue(root, [partial(create, settings, root)])[0].name)
    wake(root)
    return RunHandle(run_id, run_folder(root, run_id, must_exist=False))


START_DIR = "start"
"""Folder of a run that holds the adapter it started from."""

LABELS_NAME = "config.json"
"""File beside an adapter that names the classes of its head."""

_NEEDED, _OPTIONAL = (CONFIG_NAME, TENSORS_NAME), (LABELS_NAME, ORIGIN_NAME)


def start_of(config: RunConfig) -> Path | None:
    """Return the folder of the adapter that a run starts from; None where it starts new."""
    source = config.strategy.fields.get(START_FROM)
    return Path(os.path.expanduser(source)) if isinstance(source, str) and source else None


def start_meta(config: RunConfig) -> dict[str, Any]:
    """Return what a run keeps of where its adapter comes from: nothing where it starts new."""
    start = start_of(config)
    return {} if start is None else {"origin": origin_meta(read_origin(start))}


def check_start_files(config: RunConfig) -> None:
    """Refuse a folder that holds no adapter at once: what it holds is looked at when the run is checked whole.

    Raises:
        ConfigError: one sentence that says what is wrong with it.
    """
    start = start_of(config)
    if start is None:
        return
    try:
        check_folder(start)
        read_settings(start)
    except AdapterError as error:
        raise ConfigError(f"strategy.{START_FROM}={start}: {error}") from None


def keep_start(config: RunConfig, folder: Path) -> None:
    """Copy the adapter that a run starts from into the run's folder: safetensors and JSON alone.

    Raises:
        ConfigError: when a file is missing, a link, or no plain file.
        StorageError: when there is no room for it.
    """
    start = start_of(config)
    if start is None:
        return
    try:
        with storing(f"the copy of the adapter at {start}"):
            (folder / START_DIR).mkdir()
            for name in (*_NEEDED, *(name for name in _OPTIONAL if _is_plain(start / name))):
                _copy(start / name, folder / START_DIR / name)
            sync(folder / START_DIR)
    except AdapterError as error:
        raise ConfigError(f"strategy.{START_FROM}={start}: {error}") from None


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _copy(source: Path, target: Path) -> None:
    """Copy one plain file, and bring it to the disk."""
    file, _ = open_adapter_file(source)
    with file, target.open("xb") as copied:
        shutil.copyfileobj(file, copied, 2**20)
        copied.flush()
        os.fsync(copied.fileno())


def kept_start(folder: Path) -> Path | None:
    """Return where the adapter that a run started from is kept; None where it started new, or nothing was kept."""
    place = folder / START_DIR
    with suppress(OSError):
        if not place.is_symlink() and (place / TENSORS_NAME).is_file():
            return place
    return None


def start(config: Mapping[str, Any], runs_dir: Folder, *, key: str, checked: bool = False) -> RunHandle:
    """Put a run into the queue and start the queue; return before model and data are loaded.

    Where it is in doubt whether the configuration can be used, and where something must be fetched first, this is
    `launch.enqueue`, which waits for the whole check.

    Args:
        config: the configuration as plain values.
        runs_dir: folder of the runs; made when missing.
        key: idempotency key; a second call with the same key returns the run of the first.
        checked: whether the rest of the check can wait until the run is next, as for further seeds of a run.

    Raises:
        ConfigError: when the key or the configuration cannot be used.
        StorageError: when the disk does not take the run.
        DynloraError: when a check that was waited for fails or takes too long.
    """
    settings = with_absolute_paths(parse_config(config))
    check_trackers(settings.log.to)
    check_start_files(settings)
    strategy = _described(settings)
    if strategy is None:
        return enqueue(dict(config), runs_dir, key=key)
    root = runs_root(runs_dir, make=True)

    def make(place: Path) -> str:
        run_id = _reserved_id(place.with_suffix(RESERVED))
        if run_folder(root, run_id, must_exist=False).is_dir():
            return run_id
        text, steps = settings.to_yaml(), settings.train.max_steps(0)
        meta = {**meta_of(settings, strategy.get("fidelity"), strategy.get("signals") or {}), **start_meta(settings)}
        fill = partial(keep_start, settings)
        made = partial(create_run, root, run_id=run_id, config_yaml=text, meta=meta, max_steps=steps, fill=fill)
        return put_in_queue(root, [made])[0].name

    run_id = launched_once(root, key, make)
    wake(root)
    folder = run_folder(root, run_id, must_exist=False)
    with suppress(OSError, DynloraError):  # it is checked again before it trains
        if not checked and is_pending(folder) and request_check(root, run_id):
            spawn_detached(check_command(run_id, root), folder / LOG_NAME)
    return RunHandle(run_id, folder)


def _reserved_id(note: Path) -> str:
    """Return the id that a launch takes: noted before the run is made, so that one killed in between finds its run."""
    known = read_plain(note, 200)
    if known:
        return check_run_id(known)
    run_id = new_run_id()
    with storing("the note of the run's id"):
        write_text(note, run_id)
    return run_id


def check_command(run_id: str, runs_dir: Path) -> list[str]:
    """Return the command that checks a queued run whole, and all others whose check was asked for."""
    return python_command("dynlora", "check-queued", run_id, "--runs-dir", str(runs_dir))


def _described(config: RunConfig) -> Mapping[str, Any] | None:
    """Return what the catalogue says of a configuration's method; None where only the whole check can tell."""
    model = assets.MODELS.get(config.model.name)
    has_model = model.cached if model is not None else (Path(config.model.name) / "config.json").is_file()
    data = assets.DATASETS.get(config.data.name or "")
    has_data = Path(config.data.path).exists() if config.data.path else data is not None and data.cached
    if not has_model or not has_data or config.train.epochs is not None or config.model.layers is not None:
        return None
    strategy = next((row for row in catalog()["strategies"] if row["name"] == config.strategy.name), None)
    own = {row["name"]: Setting(**row) for row in strategy["fields"]} if strategy else {}
    fits = all(name in own and own[name].takes(value) for name, value in config.strategy.fields.items())
    return strategy if fits else None
