"""One run in one JSON document, and where its adapter comes from, as `train` and `show` print it with `--json`."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, SkipValidation

from dynlora.errors import ConfigError, CorruptRunError
from dynlora.store.lifecycle import now
from dynlora.store.meta import (
    DECODE,
    FROM_EVENTS,
    TRAIN,
    config,
    continues_from_events,
    counts,
    finite,
    kind_of,
    metrics_of,
    moment,
    numbers,
    planned,
    short_text,
    table,
    text,
    texts,
    whole,
)
from dynlora.store.reader import RunReader
from dynlora.store.record import Count, Record, Which, one_line
from dynlora.store.rows import ModuleRow, Status
from dynlora.store.schema import check_run_id
from dynlora.store.writer import ACTIVITY
from dynlora.text import printable

ORIGIN_NAME = "dynlora_origin.json"


class Origin(Record):
    """Where an adapter comes from.

    Attributes:
        run: id of the run that trained it; None for an adapter of another tool.
        name: of that run, or of the adapter's folder.
        which: last or best adapter of the run.
        step: optimizer steps that it had behind it.
        parameters: that were kept.
        of: parameters of the whole adapter; None where that is not known.
    """

    VERSION: ClassVar[int] = 1

    run: Annotated[str, AfterValidator(check_run_id)] | None
    name: Annotated[str, one_line(200)]
    which: Which = "last"
    step: Count = 0
    parameters: Count | None = None
    of: Count | None = None

    @property
    def share(self) -> float | None:
        """The fraction of the whole adapter's parameters that was kept, 0 to 1; None where that is not known."""
        return self.parameters / self.of if self.parameters is not None and self.of else None


def read_origin(folder: Path) -> Origin:
    """Return where the adapter of a folder comes from; without such a file its name is all that is known."""
    return Origin.read(folder / ORIGIN_NAME) or Origin(run=None, name=printable(folder.name))


def origin_meta(origin: Origin) -> dict[str, Any]:
    """Return what a run keeps of the adapter that it starts from, as JSON values."""
    return {**origin.model_dump(), "share": origin.share}


def origin_of(value: Any) -> dict[str, Any] | None:
    """Return what a run says of where it starts from, as `origin_meta` made it; None where it says nothing of use."""
    try:
        origin = Origin.from_values({"format": Origin.VERSION, **table(value)})
    except CorruptRunError:
        return None
    share = finite(table(value).get("share"))
    return {**origin.model_dump(), "share": share if share is not None and 0 <= share <= 1 else None}


COPIED_NAME = "copied-from.json"
CHECKPOINT_STATES = ("checkpoint/state.json", ".checkpoint.old/state.json")
"""Where a checkpoint is: its place, or, after a crash between two renames, the old one."""


class Copied(Record):
    """Where a run was fetched from.

    Attributes:
        url: of the run, without what is secret of it.
        revision: digest of all that was fetched.
        fingerprint: of the files as they were put here, see `fingerprint`.
    """

    VERSION: ClassVar[int] = 1

    url: Annotated[str, one_line(2000)]
    revision: Annotated[str, one_line(2000)]
    fingerprint: Annotated[str, one_line(2000)]


def fingerprint(folder: Path) -> str:
    """Return what changes when a file of a run is written: a digest of names, sizes and times, no content."""
    rows: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in (COPIED_NAME, "launch.json") and not name.endswith(".lock"):
            status = path.lstat()
            rows.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(rows).encode("utf-8", "replace")).hexdigest()


def check_can_resume(folder: Path, opened: int) -> None:
    """Refuse to continue a run whose checkpoint was left where it came from: it would start over, its record deleted.

    A run of a kind that continues from its events needs none.

    Args:
        folder: of the run.
        opened: how often a writer opened it; a run that was never opened starts from the beginning anyway.

    Raises:
        ConfigError: one sentence that says what to do instead.
        CorruptRunError: when the run cannot be read.
    """
    copied = Copied.read(folder / COPIED_NAME)
    if copied is None or not opened or any((folder / name).is_file() for name in CHECKPOINT_STATES):
        return
    with RunReader(folder) as reader:
        if continues_from_events(reader.meta(("kind", FROM_EVENTS))):
            return
    raise ConfigError(
        f"resume {folder.name}: the run was fetched from {copied.url} without a checkpoint; send it there again with "
        "--with-checkpoint and fetch it again, or start a new run"
    )


Text = Annotated[str | None, PlainValidator(text), Field(default=None)]
"""What a run calls something; None where it does not say."""

Number = Annotated[int | None, PlainValidator(whole), Field(default=None)]
"""A whole number; None where it is unknown."""

Numbers = Annotated[dict[str, float | None], PlainValidator(numbers), Field(default_factory=dict)]
"""Numbers by name, whole ones as they were written."""

Counts = Annotated[dict[str, int], PlainValidator(counts), Field(default_factory=dict)]
"""Whole numbers from zero on by name."""

Table = Annotated[dict[str, Any], PlainValidator(table), Field(default_factory=dict)]
"""A JSON object."""

Texts = Annotated[list[str], PlainValidator(texts), Field(default_factory=list)]
"""A list of texts."""

Config = Annotated[dict[str, Any], PlainValidator(config), Field(default_factory=dict)]
"""A whole configuration."""

Place = Annotated[str, SkipValidation]
"""Name of a folder: it may hold bytes that are no text."""


class RunSummary(BaseModel):
    """A run as JSON values; what it says of itself is brought to its kind, a value of another counts as never written.

    Attributes:
        id, name, status, strategy, model, model_path, data, seed, step, max_steps: of the run.
        metrics: of the last evaluation.
        best: evaluation, with `rows` where these are a sample.
        params: parameters by what they are for.
        ranks: by module.
        time: seconds and milliseconds by what they were spent on.
        config: the whole configuration.
        kind: train, decode, recycle or another.
        evaluated: `rows` of the last evaluation, `of` all held-out examples.
        scaling: by module.
        created: seconds since the epoch.
        fidelity: of the method to its paper.
        own_signals: what the method records beside the usual.
        metric: the one that decides.
        labels: names of the classes.
        task, peft_task_type, task_facts: what is learned.
        planned_events: reallocations the schedule plans, or None.
        first_reallocation: step after which it plans the first.
        data_size, data_warnings, data_repairs: of the data, and what was done to its rows.
        origin: of a run that starts from an adapter: run, name, which, step, parameters, of, share; else None.
        ranks_are_sums: rows of an import are layers or families.
        machine: that it ran on.
        checkpoint_step: what a hard end falls back to.
        results: what a decode or a recycle found; empty for a training.
        activity: of a running run: `phase`, empty while it takes steps, and `remaining_s`, or None.
        error, stalled_s, heartbeat_age_s, other_host: see `Status`.
        folder: of the run.
    """

    model_config = ConfigDict(frozen=True)

    id: Place
    name: Place
    status: str
    strategy: Text
    model: Text
    model_path: Text
    data: Text
    seed: Number
    step: int = 0
    max_steps: int = 0
    metrics: Numbers
    best: Numbers
    params: Counts
    ranks: dict[str, int] = Field(default_factory=dict)
    time: Numbers
    config: Config
    kind: str = TRAIN
    evaluated: Counts
    scaling: Numbers
    created: Annotated[float | None, PlainValidator(moment)] = None
    fidelity: Text
    own_signals: Table
    metric: Text
    labels: Texts
    task: Text
    peft_task_type: Text
    task_facts: Table
    planned_events: Annotated[int | None, PlainValidator(planned)] = None
    first_reallocation: Number
    data_size: Table
    data_warnings: Texts
    data_repairs: Texts
    origin: Annotated[dict[str, Any] | None, PlainValidator(origin_of)] = None
    ranks_are_sums: bool = False
    machine: Table
    checkpoint_step: Number
    results: Table
    activity: dict[str, Any] | None = None
    error: str | None = None
    stalled_s: float | None = None
    heartbeat_age_s: float = 0.0
    other_host: bool = False
    folder: Place = ""

    def __getitem__(self, key: str) -> Any:
        """Return a value by its key, as panels of plug-ins that were written before ask for it."""
        return getattr(self, key)


def run_summary(folder: str | os.PathLike[str]) -> RunSummary:
    """Return what a run says of itself, and its state.

    Raises:
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    path = Path(os.path.abspath(folder))
    with RunReader(path) as reader:
        meta, status, ranks, modules = reader.meta(), reader.status(), last_ranks(reader), reader.modules()
    kind = kind_of(meta)
    values = {
        **meta,
        **asdict(status),
        "id": path.name,
        "name": text(meta.get("name")) or path.name,
        "ranks": ranks,
        "kind": kind,
        "ranks_are_sums": bool(table(meta.get("imported"))) and any(map(_is_sum, modules)),
        "results": table(meta.get(f"{kind}_results")),
        "activity": activity_of(meta, status),
        "folder": str(path),
    }
    if kind == DECODE:
        values["metrics"] = metrics_of(meta)
    return RunSummary.model_validate(values)


def activity_of(meta: Mapping[str, Any], status: Status) -> dict[str, Any] | None:
    """Return what a running run does now and the seconds it still needs, as of now; None where it has not said."""
    stored = table(meta.get(ACTIVITY))
    if status.status not in ("running", "stopping") or not stored:
        return None
    seconds, at = finite(stored.get("remaining_s")), moment(stored.get("at"))
    remaining = None if seconds is None or at is None else max(0.0, seconds - max(0.0, now() - at))
    return {"phase": short_text(stored.get("phase"), 200), "remaining_s": remaining}


FAILED_WITH = "failed_with"
"""Meta key of a run that failed: the class of the error, as sentences are for people."""


def failed_with(folder: str | os.PathLike[str]) -> str | None:
    """Return the name of the class of error that a run failed with last; None where it did not say."""
    with RunReader(folder) as reader:
        return text(reader.meta([FAILED_WITH]).get(FAILED_WITH))


def recorded_by(folder: str | os.PathLike[str]) -> str | None:
    """Return what recorded a run that was trained elsewhere, None for one that was trained here."""
    with RunReader(folder) as reader:
        return text(reader.meta(["recorded_by"]).get("recorded_by"))


def _is_sum(module: ModuleRow) -> bool:
    """Say whether the row of an imported run is a layer or a family: its name has no number, or nothing after it.

    A module outside of the blocks counts as one too: nothing tells whether that is the only one of its name.
    """
    return module.layer is None or module.name.rpartition(".")[2].isdigit()


def last_ranks(reader: RunReader) -> dict[str, int]:
    """Return the last recorded rank of each module by name, empty before the first."""
    if "rank" not in reader.signals():
        return {}
    vector = reader.last_vector("rank")
    if vector is None:
        return {}
    ranks = vector[1].tolist()
    names = [module.name for module in reader.modules()]
    return {name: round(rank) for name, rank in zip(names, ranks, strict=False) if math.isfinite(rank)}


def readable(folders: Iterable[Path]) -> tuple[dict[Path, RunSummary], list[str]]:
    """Return the summaries of the runs that can be read, by folder, and for each other run what is wrong with it.

    Raises:
        CorruptRunError: when none can be read.
    """
    summaries: dict[Path, RunSummary] = {}
    damaged: list[CorruptRunError] = []
    for folder in folders:
        try:
            summaries[folder] = run_summary(folder)
        except CorruptRunError as error:
            damaged.append(error)
    if damaged and not summaries:
        raise damaged[0]
    return summaries, [f"{str(error).rstrip('.')}; it is left out." for error in damaged]


ADAPTER_DIR = "peft_adapter"
"""Folder of a run that was trained elsewhere and only recorded; PEFT's files are in it."""

CALLBACK = "transformers"
"""What `recorded_by` says of a run that `RecordCallback` recorded."""


class TrainerRun(Record):
    """File of a Trainer's checkpoint that names the run it belongs to, by its id."""

    run: Annotated[str, AfterValidator(check_run_id)]


def recorded_adapter(folder: Path) -> Path | None:
    """Return the folder of a recorded run's adapter, None where there is none."""
    adapter = folder / ADAPTER_DIR
    is_there = (adapter / "adapter_config.json").is_file() and not adapter.is_symlink()
    return adapter if is_there else None


def check_looks_for_stops(folder: Path) -> None:
    """Refuse to ask the process of a run to stop that only records: its loop is another's and looks for no request.

    Raises:
        ConfigError: when the run is one of those.
        CorruptRunError: when it cannot be read.
    """
    if by := recorded_by(folder):
        raise ConfigError(f"run {folder.name}: is trained by a script with {by:.40}, so stop it there")
