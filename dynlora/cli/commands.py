"""What the commands do: each returns a document (plain values) and the words for a person. Torch is imported late."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dynlora import assets
from dynlora.analysis.run_summary import format_metrics
from dynlora.cli.kinds import facts_of, resumed
from dynlora.cli.options import exit_code
from dynlora.cli.trackers import format_trackers, tracker_rows
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import (
    check_data_path,
    read_yaml,
    set_key,
    split_override,
    with_run_folder,
)
from dynlora.data_files.reader import check_sides
from dynlora.errors import ConfigError, DynloraError, RunNotFoundError
from dynlora.jobs import launch
from dynlora.jobs.queue import LOG_NAME, claim, put_in_queue
from dynlora.jobs.spawn import log_from_here
from dynlora.jobs.trackers import check_trackers
from dynlora.kinds.registry import registry
from dynlora.store.schema import DEFAULT_RUNS_DIR, command_text, run_folder
from dynlora.store.summary import RunSummary, readable, run_summary


def format_method(row: Mapping[str, Any]) -> str:
    """Return a run's strategy with its fidelity, which belongs wherever methods are side by side."""
    name = row["strategy"] or "?"
    return f"{name} ({row['fidelity']})" if row["fidelity"] else name


def format_summary(document: Mapping[str, Any]) -> str:
    """Return a run in a few lines, as its kind words them."""
    kind = registry().get(document["kind"])
    standing = f"{document['status']} at step {document['step']}/{document['max_steps']}, of an unknown kind"
    return f"{document['id']}  {document['name']}\n{standing if kind is None else kind.standing(document)}"


Report = tuple[Any, str]

COMPARED = (
    "id",
    "name",
    "status",
    "strategy",
    "fidelity",
    "seed",
    "step",
    "metrics",
    "best",
    "params",
    "ranks",
    "time",
)
"""What `compare` shows of each run."""

UNUSUAL = "\t(unusual: the ensemble members disagree)"
"""What is said of a text that is unlike the data."""


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


def show_document(folder: Path) -> RunSummary:
    """Return a run as `show --json` prints it; the model's folder is resolved now, not remembered."""
    document = run_summary(folder)
    try:
        document["model_path"] = str(assets.resolve_model(document["model"] or ""))
    except DynloraError:
        document["model_path"] = None
    return document


def show(*, run_id: str, runs_dir: Path) -> Report:
    """Show one run."""
    launch.wake(runs_dir)
    folder = run_folder(runs_dir, run_id)
    document = {**show_document(folder), "trackers": tracker_rows(folder)}
    words = format_summary(document) + format_trackers(document["trackers"])
    facts = facts_of(folder, document)
    conclusion = facts["conclusion"]
    return {**document, **facts}, f"{words}\n{conclusion}" if conclusion else words


def stop(*, run_id: str, now: bool, runs_dir: Path) -> Report:
    """Ask a run to stop, or end it at once."""
    if not now:
        status = launch.stop(runs_dir, run_id)
        saving = "; it finishes its step and saves its state; a second stop changes nothing"
        return {"id": run_id, "status": status}, f"{run_id}: {status}{saving if status == 'stopping' else ''}"
    status = launch.end_now(runs_dir, run_id)
    kept = run_summary(run_folder(runs_dir, run_id))
    lost = max(0, kept["step"] - (kept["checkpoint_step"] or 0)) if status == "interrupted" else 0
    words = f"; {lost} steps since the checkpoint of step {kept['checkpoint_step'] or 0} are lost" if lost else ""
    return {"id": run_id, "status": status, "lost_steps": lost}, f"{run_id}: {status}{words}"


def delete(*, run_id: str, runs_dir: Path) -> Report:
    """Move a run to the trash."""
    launch.delete(runs_dir, run_id)
    return {"id": run_id, "status": "deleted"}, f"moved {run_id} to the trash of {runs_dir}"


def tag(*, run_id: str, add: tuple[str, ...], remove: tuple[str, ...], note: str | None, runs_dir: Path) -> Report:
    """Change a run's tags and note."""
    from dynlora.store.notes import annotate_notes

    found = annotate_notes(run_folder(runs_dir, run_id), add=add, remove=remove, note=note)
    words = f"{run_id}: {', '.join(found.tags) or 'no tags'}" + (f"\n{found.note}" if found.note else "")
    return {"id": run_id, "tags": list(found.tags), "note": found.note}, words


def runs(*, where: str, runs_dir: Path) -> Report:
    """List the runs that a search fits."""
    from dynlora.store.catalogue import run_rows
    from dynlora.store.search_fields import found_rows

    launch.wake(runs_dir)
    keep = ("id", "name", "status", "strategy", "model", "data", "seed", "step", "max_steps", "metrics", "tags")
    every = run_rows(runs_dir)
    matching = found_rows(where, every)
    rows = [{key: row.get(key) for key in keep} for row in matching]
    lines = [
        f"{row['id']:30} {row['status']:12} {row['step'] or 0:>6}/{row['max_steps'] or 0:<6} "
        f"{format_method(row):28} {format_metrics(row['metrics'] or {}):24} {row['name'] or ''}"
        for row in matching
    ]
    start = command_text("train", runs_dir=runs_dir)
    empty = f"none of {len(every)} runs matches" if every else f"no runs in {runs_dir}; start one with `{start}`"
    return rows, "\n".join(lines) or empty


def compare(*, run_ids: tuple[str, ...], runs_dir: Path) -> Report:
    """Compare runs."""
    folders = [run_folder(runs_dir, run_id) for run_id in run_ids]
    summaries, damaged = readable(folders)
    documents = [show_document(folder) for folder in folders if folder in summaries]
    flat = [_flat(run["config"]) for run in documents]
    keys = sorted({key for config in flat for key in config})
    differing = {key: [config.get(key) for config in flat] for key in keys if len({str(c.get(key)) for c in flat}) > 1}
    rows = [{key: run[key] for key in COMPARED} for run in documents]
    document = {"runs": rows, "config_differences": differing, **({"damaged": damaged} if damaged else {})}
    lines = [
        *damaged,
        *(f"{run['id']}  {run['name']}  {format_method(run)}  {format_metrics(run['metrics'])}" for run in documents),
    ]
    lines += [f"  {key}: " + " | ".join(str(value) for value in values) for key, values in differing.items()]
    return document, "\n".join(lines)


def predict(
    *, run_id: str, text: tuple[str, ...], text_pair: tuple[str, ...], path: Path | None, which: str, runs_dir: Path
) -> Report:
    """Predict texts."""
    from dynlora.inference.load import answers_of_file, load_run

    folder = run_folder(runs_dir, run_id)
    if text_pair and len(text_pair) != len(text):
        raise ConfigError(f"--text-pair: {len(text_pair)} given for {len(text)} --text; give one for each --text")
    if path is None and not (text and all(item.strip() for item in text)):
        raise ConfigError("--text: is empty; give a text or --file")
    if path is None:
        rows = load_run(folder, which).answers(list(text), list(text_pair) or None)
    else:
        rows = answers_of_file(folder, path, which)
    lines = [f"{row['prediction']}\t{row['text']}{UNUSUAL if row.get('unusual') else ''}" for row in rows]
    return rows, "\n".join(lines)


def evaluate(*, run_id: str, split: str, baked: bool, which: str, runs_dir: Path) -> Report:
    """Evaluate an adapter."""
    from dynlora.inference.load import evaluate_run

    found = evaluate_run(run_folder(runs_dir, run_id), split=split, baked=baked, which=which)
    return {"id": run_id, **found}, f"{split}, {found['rows']:,} examples: {format_metrics(found['metrics'])}"


def preflight(*, config: Path | None, overrides: tuple[str, ...], name: str | None) -> Report:
    """Say what a run will cost."""
    settings = with_run_folder(read_config(config, overrides, name), DEFAULT_RUNS_DIR)
    fetch(settings)
    from dynlora.training.preflight import format_preflight
    from dynlora.training.preflight import preflight as look

    found = look(settings)
    return found, format_preflight(found)


def models() -> Report:
    """List the built-in models."""
    return _catalogue(assets.MODELS)


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


def strategies() -> Report:
    """List the strategies."""
    from dynlora import strategies as registry

    found = [registry.describe(name) for name in registry.registry()]
    return found, "\n".join(
        f"{item['name']:16} {item['title']:20} {item['paper']} [{item['fidelity']}]" for item in found
    )


def doctor(*, runs_dir: Path) -> Report:
    """Say what this machine can do."""
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


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return sections as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
