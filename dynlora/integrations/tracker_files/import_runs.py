"""Runs of TensorBoard become runs of a runs folder; importing them again brings what is new, and never doubles one."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.config import RunConfig
from dynlora.errors import ConfigError
from dynlora.integrations.tracker_files.settings import Names, imported_config, understood
from dynlora.integrations.tracker_files.tracker_run import LONGEST_NAME, TITLE, TrackerRun
from dynlora.integrations.trackers.base import FAMILIES_KEY, IMPORTANCE, NAME_KEY, RANK
from dynlora.peft_adapter.foreign_names import places
from dynlora.store.jsontext import MAX_WHOLE
from dynlora.store.meta import meta_of, table
from dynlora.store.notes import annotate_notes
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow
from dynlora.store.schema import DB_NAME, MAX_SIZE
from dynlora.store.writer import RunWriter
from dynlora.text import printable

IMPORTED = "imported"
"""Fact about a run: where it was imported from, and which state of it. Also the tag of such runs."""

COMMIT_EVERY = 10_000
"""Rows between two commits: what waits is in memory."""

PARAMETERS = "adapter_parameters"
"""Series of the parameters in use."""

UNITS = {RANK: "components", IMPORTANCE: "fraction of the step"}


@dataclass(frozen=True)
class Imported:
    """What became of a run.

    Attributes:
        id: in the runs folder.
        name: for people.
        what: new, updated, or unchanged where all of it was there.
        steps: its last step.
        series: how many series it has, modules among them.
        notes: what was left out, in sentences.
    """

    id: str
    name: str
    what: str
    steps: int
    series: int
    notes: Sequence[str]


def import_run(run: TrackerRun, runs_dir: Path, *, method: str | None = None, data: str | None = None) -> Imported:
    """Make a run of TensorBoard one of the runs folder, or bring it up to date there.

    Args:
        run: as the event files hold it.
        runs_dir: folder of the runs; made when missing.
        method: name of its method, such as adalora; None where its settings say it.
        data: name of its data; None where its settings say it.

    Raises:
        ConfigError: when a run that was not imported has the id.
        StorageError: when the disk does not take it.
    """
    names = understood(run.series)
    name = printable(run.params.get(NAME_KEY, run.name), LONGEST_NAME)
    last = max((step for series in run.series.values() for step in series), default=0)
    config = imported_config(run, name, last, method, data)
    source = {"from": TITLE, "place": run.place, "key": "", "digest": _digest(run, config)}
    run_id = _id_of(run)
    result = Imported(run_id, name, "new", last, len(run.series), run.notes)
    folder = runs_dir / run_id
    if (folder / DB_NAME).exists():
        with RunReader(folder) as reader:
            known, status = table(reader.meta([IMPORTED]).get(IMPORTED)), reader.status().status
        if not known:
            raise ConfigError(f"run {run_id} is there and was not imported; give another --runs-dir")
        if known == source and status == run.status:
            return Imported(run_id, name, "unchanged", last, len(run.series), run.notes)
        result = Imported(run_id, name, "updated", last, len(run.series), run.notes)
    meta = meta_of(config, None, {}) | _facts(run, names, config) | {IMPORTED: source}
    if result.what == "new":
        created = {"created": run.created} if run.created else {}
        RunWriter.create(
            runs_dir, run_id=run_id, config_yaml=config.to_yaml(), meta=meta | created, max_steps=last, state="running"
        )
    with RunWriter.open(folder, resume_from=None) as writer:
        for key, value in meta.items():
            writer.set_meta(key, value)
        writer.update_max_steps(last)
        _record(writer, run, names, last)
        writer.log("info", f"Imported from {TITLE}: {run.place}")
        writer.finish(run.status)
    if result.what == "new":
        annotate_notes(folder, add=(IMPORTED, TITLE))
    return result


def _id_of(run: TrackerRun) -> str:
    """Return the id of a run, the same each time: its start and a digest of where it is from."""
    digest = hashlib.sha256(json.dumps([TITLE, run.place, ""]).encode()).hexdigest()[:8]
    start = run.created if 0 < run.created < 2**33 else 0.0
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(start)) + f"-{digest}"


def _digest(run: TrackerRun, config: RunConfig) -> str:
    """Return what distinguishes this state of a run from an earlier one."""
    content = [run.name, run.params, config.model_dump(mode="json"), run.series]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _facts(run: TrackerRun, names: Names, config: RunConfig) -> dict[str, Any]:
    """Return what pages ask of a run and its own training would say."""
    return {
        "recorded_by": TITLE,
        "imported_params": run.params,
        "planned_events": 0,
        "labels": [],
        "task_facts": {},
        "params": _parameters(run, names, config),
        "scaling": {},
    }


def _parameters(run: TrackerRun, names: Names, config: RunConfig) -> dict[str, int]:
    """Return the parameters in use at the end, and the budget where the sizes of all modules are known."""
    parameters: dict[str, int] = {}
    used = [run.series[name] for name, meaning in names.scalars.items() if meaning == (PARAMETERS, "train")]
    last = used[0][max(used[0])] if used and used[0] else math.nan
    if 0 <= last < MAX_WHOLE:
        parameters |= {"active": round(last), "gate": 0}
    if shapes := _shapes(run):
        parameters["budget"] = config.adapter.rank * sum(
            number * (d_in + d_out) for number, d_in, d_out in shapes.values()
        )
    return parameters


def _record(writer: RunWriter, run: TrackerRun, names: Names, last: int) -> None:
    """Record all of a run."""
    modules = _modules(run, names)
    writer.define_modules(modules)
    rows = [
        (step, *meaning, value) for name, meaning in names.scalars.items() for step, value in run.series[name].items()
    ]
    for number, (step, metric, split, value) in enumerate(sorted(rows, key=lambda row: row[0])):
        writer.scalar(metric, split, step, value)
        if number % COMMIT_EVERY == 0:
            writer.commit()
    for signal, unit in UNITS.items():
        of = names.modules[signal]
        _record_signal(writer, signal, unit, [run.series.get(of.get(module.name, ""), {}) for module in modules])
    writer.progress(last)
    for note in run.notes:
        writer.log("warning", f"Import: {note}")


def _record_signal(writer: RunWriter, name: str, unit: str, series: Sequence[Mapping[int, float]]) -> None:
    """Record one signal over the modules; one that says nothing at a step keeps what it had."""
    steps = sorted({step for one in series for step in one})
    if not steps:
        return
    writer.define_signal(name, "module", unit, len(series))
    now = np.full(len(series), np.nan, dtype=np.float32)
    for number, step in enumerate(steps):
        for place, one in enumerate(series):
            now[place] = one.get(step, now[place])
        writer.vector(name, step, now)
        if number % COMMIT_EVERY == 0:
            writer.commit()


def _modules(run: TrackerRun, names: Names) -> list[ModuleRow]:
    """Return the modules that have ranks or importance; families are modules without a layer."""
    names_of = list(dict.fromkeys([*names.modules[RANK], *names.modules[IMPORTANCE]]))
    shapes = _shapes(run)
    rows: list[ModuleRow] = []
    for module, (layer, kind) in zip(names_of, places(names_of), strict=True):
        ranks = run.series[names.modules[RANK][module]].values() if module in names.modules[RANK] else ()
        most = max((int(rank) for rank in ranks if 0 <= rank < MAX_SIZE), default=0)
        _, d_in, d_out = shapes.get(module, (1, 0, 0))
        rows.append(ModuleRow(module, layer, kind, d_in, d_out, most))
    return rows


def _shapes(run: TrackerRun) -> dict[str, tuple[int, int, int]]:
    """Return number, d_in and d_out of the families of modules, as our own trackers write them."""
    try:
        shapes: Mapping[str, Any] = table(json.loads(str(run.params.get(FAMILIES_KEY, "{}"))))
        sizes = {name: (int(value[0]), int(value[1]), int(value[2])) for name, value in shapes.items()}
    except (ValueError, TypeError, IndexError, KeyError, RecursionError, OverflowError):
        return {}
    return {name: size for name, size in sizes.items() if all(0 <= part < MAX_SIZE for part in size)}
