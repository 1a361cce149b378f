"""What pages and the command line ask of runs, as pandas frames; the only module of the store that imports pandas.

Frames hold text of untrusted runs as it is: whoever shows it escapes it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.store.catalogue import run_rows
from dynlora.store.meta import TRAIN, kind_of
from dynlora.store.reader import RunReader
from dynlora.store.rows import FloatArray, IntArray, SignalRow
from dynlora.store.summary import readable, recorded_by, run_summary

__all__ = [
    "HeatMap",
    "events_frame",
    "examples_frame",
    "gates_by_group",
    "groups_frame",
    "heatmap",
    "list_runs",
    "logs_frame",
    "modules_frame",
    "probe_effects",
    "probe_importance",
    "probe_gates",
    "rank_moves",
    "readable",
    "recorded_by",
    "run_kind",
    "run_summary",
    "scalars_frame",
    "signal_at",
    "signal_frame",
    "system_frame",
    "version_key",
]

Folder = str | os.PathLike[str]

RUN_COLUMNS = (
    "id",
    "name",
    "status",
    "strategy",
    "model",
    "data",
    "seed",
    "step",
    "max_steps",
    "metrics",
    "created",
    "folder",
    "error",
    "reason",
    "heartbeat_age_s",
    "stalled_s",
    "other_host",
    "fidelity",
    "best",
    "params",
    "time",
    "metric",
    "config",
    "tags",
    "note",
    "trend_of",
    "trend",
    "kind",
    "task",
)


@dataclass(frozen=True)
class HeatMap:
    """A signal binned for drawing.

    Attributes:
        frame: one row per module (or group, ...), one column per bin, named by its last step.
        first_step: first step of each bin.
        last_step: last step of each bin.
        points: recorded steps behind all bins.
        axis: what the rows are: module, component, group, example or member.
        unit: unit of the values.
    """

    frame: pd.DataFrame
    first_step: IntArray
    last_step: IntArray
    points: int
    axis: str
    unit: str


def list_runs(runs_dirs: Folder | Iterable[Folder], kinds: Collection[str] | None = (TRAIN,)) -> pd.DataFrame:
    """Return one row per run, newest first, with the columns `RUN_COLUMNS`; `created` in seconds since the epoch.

    Args:
        runs_dirs: folders of runs.
        kinds: of the runs to return, keys of `kinds.KINDS`; None for all.
    """
    rows = [row for row in run_rows(runs_dirs) if kinds is None or row["kind"] in kinds]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS)).astype({"seed": "Int64", "step": "Int64"})


def run_kind(folder: Folder) -> str:
    """Return what a run folder holds, see `kinds.KINDS`."""
    with RunReader(folder) as reader:
        return kind_of(reader.meta(("kind",)))


def version_key(folder: Folder) -> tuple[int, int, str, int]:
    """Return what a cache of this run's frames is keyed on, read from the store."""
    with RunReader(folder) as reader:
        return reader.version_key()


def modules_frame(folder: Folder) -> pd.DataFrame:
    """Return the adapted modules: name, layer, kind, d_in, d_out, max_rank, in order."""
    with RunReader(folder) as reader:
        rows = reader.modules()
    columns = ["name", "layer", "kind", "d_in", "d_out", "max_rank"]
    frame = pd.DataFrame([[getattr(row, column) for column in columns] for row in rows], columns=columns)
    return frame.astype({"layer": "Int64"})


def signal_frame(
    folder: Folder, name: str, start: int | None = None, stop: int | None = None, max_points: int | None = None
) -> pd.DataFrame:
    """Return a signal wide: column `step`, then one column per module (or group, ...), see `RunReader.signal`.

    Raises:
        KeyError: when the run holds no such signal.
    """
    with RunReader(folder) as reader:
        steps, values = reader.signal(name, start, stop, max_points)
        columns = column_names(reader, reader.signals()[name])
    frame = pd.DataFrame(values, columns=columns)
    frame.insert(0, "step", steps, allow_duplicates=True)
    return frame


def signal_at(folder: Folder, name: str, steps: Sequence[int]) -> pd.DataFrame:
    """Return a signal as it stood at some steps: one row per value of its vector, one column per step, in order.

    A step without a vector of its own shows the last one before it, NaN where there is none.

    Raises:
        KeyError: when the run holds no such signal.
    """
    with RunReader(folder) as reader:
        row = reader.signals()[name]
        vectors = [reader.last_vector(name, int(step)) for step in steps]
    values = [np.full(row.width, np.nan) if vector is None else vector[1] for vector in vectors]
    return pd.DataFrame(np.array(values).reshape(len(steps), row.width).T, columns=[int(step) for step in steps])


def heatmap(
    folder: Folder,
    signal: str,
    columns: int = 400,
    start: int | None = None,
    stop: int | None = None,
    value: str = "last",
) -> HeatMap:
    """Return a signal in at most `columns` bins of neighbouring steps, from the roll-ups.

    Args:
        folder: folder of the run.
        signal: its name.
        columns: most bins to return.
        start: first step, or None.
        stop: step to end before, or None.
        value: what a bin shows: `last`, `low` or `high`.

    Raises:
        KeyError: when the run holds no such signal.
        ValueError: when `value` is none of the three.
    """
    if value not in ("last", "low", "high"):
        raise ValueError(f"value {value!r} of a heat map: use 'last', 'low' or 'high'")
    with RunReader(folder) as reader:
        bins = reader.bins(signal, max(1, columns), start, stop)
        row = reader.signals()[signal]
        names = column_names(reader, row)
    frame = pd.DataFrame(getattr(bins, value).T, index=names, columns=bins.last_step)
    return HeatMap(frame, bins.first_step, bins.last_step, bins.points, row.axis, row.unit)


def scalars_frame(
    folder: Folder, name: str | None = None, split: str | None = None, max_points: int | None = None
) -> pd.DataFrame:
    """Return scalars long: name, split, step, value; each series with at most `max_points` rows."""
    with RunReader(folder) as reader:
        rows = reader.scalars(name, split, max_points=max_points)
    sizes = [len(row.steps) for row in rows]
    return pd.DataFrame(
        {
            "name": np.repeat(np.array([row.name for row in rows], dtype=object), sizes),
            "split": np.repeat(np.array([row.split for row in rows], dtype=object), sizes),
            "step": np.concatenate([row.steps for row in rows]) if rows else np.empty(0, np.int64),
            "value": np.concatenate([row.values for row in rows]) if rows else np.empty(0, np.float64),
        }
    )


def events_frame(folder: Folder, kinds: Sequence[str] | None = None, after_seq: int = 0) -> pd.DataFrame:
    """Return events: seq, time (seconds since the epoch), step, kind, modules (names), payload (dict)."""
    with RunReader(folder) as reader:
        rows = reader.events(after_seq, kinds)
        names = [module.name for module in reader.modules()]
    values = [
        (row.seq, row.time, row.step, row.kind, [_name(names, module) for module in row.modules], row.payload)
        for row in rows
    ]
    return pd.DataFrame(values, columns=["seq", "time", "step", "kind", "modules", "payload"])


def rank_moves(folder: Folder, after_seq: int = 0) -> pd.DataFrame:
    """Return what each reallocation moved, one row per edit.

    Columns: seq, step, edit (move, drop, grow, ...), donor, receiver (module names; None where an edit has none),
    count (components), donor_score, receiver_score.
    """
    columns = ["seq", "step", "edit", "donor", "receiver", "count", "donor_score", "receiver_score"]
    with RunReader(folder) as reader:
        rows = reader.events(after_seq, ["reallocate"])
        names = [module.name for module in reader.modules()]
    values: list[tuple[Any, ...]] = []
    for row in rows:
        edits = row.payload.get("edits")
        for edit in edits if isinstance(edits, list) else []:
            if isinstance(edit, dict):
                values.append((row.seq, row.step, *_move(names, edit)))  # pyright: ignore[reportUnknownArgumentType]
    frame = pd.DataFrame(values, columns=columns)
    return frame.astype({"donor_score": float, "receiver_score": float, "count": "Int64"})


def groups_frame(folder: Folder, step: int | None = None) -> pd.DataFrame:
    """Return the input groups with loss, metric and, where recorded, `ece` and `brier`, evaluated last up to `step`."""
    with RunReader(folder) as reader:
        frame = pd.DataFrame({"group": reader.groups()})
        for column in ("loss", "metric", "ece", "brier"):
            values = _vector(reader, f"group_{column}", step)
            known = values is not None and len(values) == len(frame)
            if known or column in ("loss", "metric"):
                frame[column] = values if known else np.nan
    return frame


def gates_by_group(folder: Folder, step: int | None = None) -> pd.DataFrame:
    """Return the mean gate of each module in each group at the last evaluation up to `step`.

    Index: group names; columns: module names; no rows when gates were not recorded.
    """
    with RunReader(folder) as reader:
        groups, modules = reader.groups(), [module.name for module in reader.modules()]
        values = _vector(reader, "group_gate", step)
    if values is None or len(values) != len(groups) * len(modules):
        return pd.DataFrame(columns=modules)
    return pd.DataFrame(values.reshape(len(groups), len(modules)), index=groups, columns=modules)


def examples_frame(folder: Folder, step: int | None = None) -> pd.DataFrame:
    """Return the probe set with what the model made of it at the last evaluation up to `step`.

    Columns: text, text_pair, label, group, x, y, loss, prediction, probability, disagreement (NaN where not recorded).
    """
    columns = ["text", "text_pair", "label", "group", "x", "y"]
    with RunReader(folder) as reader:
        rows = reader.examples()
        frame = pd.DataFrame([[getattr(row, column) for column in columns] for row in rows], columns=columns)
        for column in ("loss", "prediction", "probability", "disagreement"):
            values = _vector(reader, f"probe_{column}", step)
            frame[column] = values if values is not None and len(values) == len(frame) else np.nan
    return frame


def probe_gates(folder: Folder, step: int | None = None) -> pd.DataFrame:
    """Return the gate of each module on each probe example at the last evaluation up to `step`.

    Index: positions of the examples; columns: module names; no rows when gates were not recorded.
    """
    return _probe_by_module(folder, "probe_gate", step)


def probe_effects(folder: Folder, step: int | None = None) -> pd.DataFrame:
    """Return how strongly each module acts on each probe example, as `probe_gates` returns gates."""
    return _probe_by_module(folder, "probe_effect", step)


def probe_importance(folder: Folder, step: int | None = None) -> pd.DataFrame:
    """Return what the loss of each probe example would rise by without each module, as `probe_gates` returns gates."""
    return _probe_by_module(folder, "probe_importance", step)


def _probe_by_module(folder: Folder, signal: str, step: int | None) -> pd.DataFrame:
    with RunReader(folder) as reader:
        modules = [module.name for module in reader.modules()]
        values = _vector(reader, signal, step)
    if values is None or not modules or len(values) % len(modules):
        return pd.DataFrame(columns=modules)
    return pd.DataFrame(values.reshape(-1, len(modules)), columns=modules)


def logs_frame(folder: Folder, last_n: int = 200) -> pd.DataFrame:
    """Return the last log lines: time (seconds since the epoch), level, message."""
    with RunReader(folder) as reader:
        rows = reader.logs(last_n)
    return pd.DataFrame([(row.time, row.level, row.message) for row in rows], columns=["time", "level", "message"])


def system_frame(folder: Folder) -> pd.DataFrame:
    """Return machine readings long: name, time (seconds since the epoch), value."""
    with RunReader(folder) as reader:
        rows = [(row.name, t, v) for row in reader.system() for t, v in zip(row.times, row.values, strict=True)]
    return pd.DataFrame(rows, columns=["name", "time", "value"])


def column_names(reader: RunReader, signal: SignalRow) -> list[str]:
    """Return a distinct name for each value of a signal's vector."""
    modules = [module.name for module in reader.modules()]
    outer: list[str] = modules
    if signal.axis == "group":
        outer = reader.groups()
    elif signal.axis in ("example", "member"):
        outer = [str(position) for position in range(signal.width)]
    if signal.axis == "component" and sum(module.max_rank for module in reader.modules()) == signal.width:
        names = [f"{module.name}/{index}" for module in reader.modules() for index in range(module.max_rank)]
    elif signal.axis == "example" and (count := len(reader.examples())) and signal.width == count * len(modules):
        names = [f"{position}/{module}" for position in range(count) for module in modules]
    elif signal.axis == "group" and signal.width == len(outer) * len(modules) != len(outer):
        names = [f"{group}/{module}" for group in outer for module in modules]
    else:
        names = outer
    if len(names) != signal.width or len(set(names)) != len(names) or "step" in names:
        return [f"{signal.axis} {position}" for position in range(signal.width)]
    return names


def _vector(reader: RunReader, name: str, step: int | None) -> FloatArray | None:
    if name not in reader.signals():
        return None
    vector = reader.last_vector(name, step)
    return None if vector is None else vector[1]


def _name(names: list[str], module: Any) -> str | None:
    if not isinstance(module, int) or isinstance(module, bool):
        return None
    return names[module] if 0 <= module < len(names) else f"module {module}"


def _move(names: list[str], edit: dict[str, Any]) -> tuple[Any, ...]:
    kind, count = edit.get("edit"), edit.get("count", 1)
    alone = edit.get("module")
    donor = edit.get("donor", alone if kind == "drop" else None)
    receiver = edit.get("receiver", alone if kind == "grow" else None)
    scores = [edit.get(key) for key in ("donor_score", "receiver_score")]
    return (
        str(kind),
        _name(names, donor),
        _name(names, receiver),
        count if isinstance(count, int) and abs(count) < 2**31 else None,
        *(float(score) if isinstance(score, int | float) else float("nan") for score in scores),
    )
