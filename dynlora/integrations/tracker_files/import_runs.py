"""Runs of TensorBoard become runs of a runs folder: what its names and settings mean; importing again adds the new."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.addresses import hidden
from dynlora.config import RunConfig, config_keys, parse_config
from dynlora.config_files import parse_value, set_key
from dynlora.errors import ConfigError
from dynlora.integrations.trackers.base import FAMILIES_KEY, IMPORTANCE, NAME_KEY, RANK
from dynlora.peft_adapter.uniform import places
from dynlora.store.jsontext import MAX_WHOLE
from dynlora.store.meta import meta_of, table
from dynlora.store.notes import annotate_notes
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow
from dynlora.store.schema import DB_NAME, MAX_SIZE
from dynlora.store.writer import RunWriter
from dynlora.text import printable

TITLE = "TensorBoard"
MAX_RUNS = 1000
"""Most runs of one folder."""

MAX_SERIES = 4000
"""Most series of numbers of a run; those after them are left out."""

MAX_VALUES = 2_000_000
"""Most numbers of a run; those after them are left out."""

MAX_PARAMS = 500
"""Most settings of a run."""

LONGEST_NAME, LONGEST_PARAM = 200, 6000
"""Most characters of a name, and of a setting's value."""

Series = dict[int, float]
"""Numbers by step."""


@dataclass
class TrackerRun:
    """One run of TensorBoard.

    Attributes:
        place: file or folder the run is in, absolute.
        name: for people.
        created: seconds since the epoch; 0 where it is not said.
        status: finished, failed or stopped.
        params: settings by name, as they are written.
        series: numbers by name and step.
        notes: what was left out, in sentences.
    """

    place: str
    name: str
    created: float = 0.0
    status: str = "finished"
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    series: dict[str, Series] = field(default_factory=dict[str, Series])
    notes: list[str] = field(default_factory=list[str])
    _values: int = 0

    def add(self, name: str, step: int, value: float) -> None:
        """Keep one number; a further one of the same name and step takes its place.

        What has no step from 0 on is left out.
        """
        if not 0 <= step < MAX_WHOLE:
            return self._leave_out("numbers without a step from 0 on")
        series = self.series.get(name)
        if series is None:
            if len(self.series) >= MAX_SERIES:
                return self._leave_out(f"all after the first {MAX_SERIES:,} names")
            name = printable(name, LONGEST_NAME) or "unnamed"
            series = self.series.setdefault(name, {})
        if step not in series:
            if self._values >= MAX_VALUES:
                return self._leave_out(f"all after the first {MAX_VALUES:,} numbers")
            self._values += 1
        series[step] = value
        return None

    def take_params(self, values: Mapping[str, Any]) -> None:
        """Keep settings; nested ones get dotted names."""
        for key, value in _flat(values, 0):
            if len(self.params) >= MAX_PARAMS and key not in self.params:
                return self._leave_out(f"all after the first {MAX_PARAMS:,} settings")
            text = hidden(value[:LONGEST_PARAM]) if isinstance(value, str) else value
            self.params[printable(key, LONGEST_NAME)] = text
        return None

    def _leave_out(self, what: str) -> None:
        sentence = f"{what} are left out"
        if sentence not in self.notes:
            self.notes.append(sentence)


DEEPEST = 8
"""Levels of nested settings that are read."""


def _flat(values: Mapping[str, Any], depth: int, prefix: str = "") -> list[tuple[str, Any]]:
    """Return settings with dotted names."""
    flat: list[tuple[str, Any]] = []
    for key, value in list(values.items())[: 4 * MAX_PARAMS]:
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth < DEEPEST:
            flat += _flat(value, depth + 1, f"{name}.")
        elif value is not None:
            flat.append((name, value if isinstance(value, bool | int | float | str) else str(value)[:LONGEST_PARAM]))
    return flat


UNKNOWN = "unknown"
"""Method of a run that does not say which it is."""

ADALORA, MASKED = "adalora", ".lora_E"
"""Method of a run that names the factors which only that method has."""

LIKELY: Mapping[str, Sequence[str]] = {
    "seed": ("seed",),
    "model.name": ("model_name_or_path", "_name_or_path", "base_model_name_or_path", "model_name", "model"),
    "data.name": ("dataset_name", "dataset", "task_name", "data"),
    "adapter.rank": ("lora_r", "r", "rank", "init_r", "lora_rank", "lora.r", "peft_config.default.r"),
    "adapter.alpha": ("lora_alpha", "alpha", "lora.alpha", "peft_config.default.lora_alpha"),
    "strategy.name": ("peft_type", "peft_config.default.peft_type", "method"),
    "train.batch_size": ("per_device_train_batch_size", "train_batch_size", "batch_size"),
    "train.grad_accum": ("gradient_accumulation_steps",),
    "train.lr": ("learning_rate", "lr"),
    "train.weight_decay": ("weight_decay",),
}
"""Settings, and what other programs call them."""


def imported_config(run: TrackerRun, name: str, steps: int, method: str | None, data: str | None) -> RunConfig:
    """Return the configuration of a run.

    Args:
        run: as the event files hold it.
        name: for people.
        steps: it has.
        method: name of its method; None where its settings say it, if anything does.
        data: name of its data; None where its settings say it.
    """
    values = _understood(run)
    masked = any(MASKED in one for one in run.series)
    settings = {"name": name or UNKNOWN, "train.steps": max(1, steps), "strategy.name": method, "data.name": data}
    for key, value in settings.items():
        if value is not None:
            set_key(values, key, value)
    values["train"].pop("epochs", None)
    values.setdefault("strategy", {}).setdefault("name", ADALORA if masked else UNKNOWN)
    values.setdefault("model", {}).setdefault("name", UNKNOWN)
    if not {"name", "path"} & values.setdefault("data", {}).keys():
        values["data"]["name"] = TITLE
    values.pop("log", None)
    return parse_config(values)


def _understood(run: TrackerRun) -> dict[str, Any]:
    """Return the settings of a run that the configuration takes."""
    values: dict[str, Any] = {}
    keys = config_keys()
    for key in keys:
        for likely in (key, *LIKELY.get(key, ())):
            if likely in run.params and _fits(values, key, run.params[likely]):
                break
    for key, value in run.params.items():
        if key.startswith("strategy.") and key.count(".") == 1 and key not in keys:
            _fits(values, key, value)
    return values


def _fits(values: dict[str, Any], key: str, raw: Any) -> bool:
    """Set a key where the configuration takes the value; say whether it does."""
    value = _read(raw) if isinstance(raw, str) else raw
    if value is None:
        return False
    if key == "strategy.name" and isinstance(value, str):
        value = value.rpartition(".")[2].lower()
    tried = json.loads(json.dumps(values))
    try:
        set_key(tried, key, value)
        parse_config(tried)
    except ConfigError:
        return False
    set_key(values, key, value)
    return True


def _read(text: str) -> Any:
    """Return the value of a text: trackers keep settings as texts. Words such as off stay words."""
    value = None if text == "None" else parse_value(text)
    return text if isinstance(value, bool) and text.lower() not in ("true", "false") else value


SPLITS = {
    "train": "train",
    "training": "train",
    "eval": "validation",
    "evaluation": "validation",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "validation",
}
"""First parts of names, before a slash, a dot or an underscore."""

METRICS = {"learning_rate": "lr", "grad_norm": "grad_norm_total", "Budget/sum_param": "adapter_parameters"}
"""Other programs' names of what the run store has under another."""

_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?:/|_|\.|-)(.+)\Z", re.IGNORECASE | re.DOTALL)
_OF_MODULES = re.compile(r"(rank|ranknum|importance)/(.+)\Z", re.IGNORECASE | re.DOTALL)
_MODULES_OWN = re.compile(r"(.+)[/.](rank|ranknum)\Z", re.IGNORECASE | re.DOTALL)
_OF_PEFT = re.compile(r"\Abase_model\.model\.|\.lora_[A-Za-z]+(?:\.[A-Za-z0-9_]+)?\Z")


@dataclass(frozen=True)
class Names:
    """What each series of a run is.

    Attributes:
        scalars: (metric, split) of each name.
        modules: name of a series by signal (rank or importance) and module, in order of appearance.
    """

    scalars: Mapping[str, tuple[str, str]]
    modules: Mapping[str, Mapping[str, str]]


def understood(names: Iterable[str]) -> Names:
    """Return what names of series mean; of two that mean the same the second keeps its own name."""
    scalars: dict[str, tuple[str, str]] = {}
    modules: dict[str, dict[str, str]] = {RANK: {}, IMPORTANCE: {}}
    for name in names:
        signal, module = _module_of(name)
        if module and module not in modules[signal]:
            modules[signal][module] = name
            continue
        meaning = _scalar_of(name)
        scalars[name] = (name, "train") if meaning in scalars.values() else meaning
    return Names(scalars, modules)


def _module_of(name: str) -> tuple[str, str]:
    """Return (signal, module) of a name, the module empty where it is of none."""
    match = _OF_MODULES.match(name)
    word, module = (match[1], match[2]) if match else ("", "")
    if not match and (match := _MODULES_OWN.match(name)):
        word, module = match[2], match[1]
    signal = IMPORTANCE if word.lower() == IMPORTANCE else RANK
    return signal, _OF_PEFT.sub("", _OF_PEFT.sub("", module)).strip("./")


def _scalar_of(name: str) -> tuple[str, str]:
    """Return (metric, split) of a name; without a known first part it is a number of training."""
    match = _SPLIT.match(name)
    split, metric = (SPLITS[match[1].lower()], match[2]) if match else ("train", name)
    return METRICS.get(metric, metric), split


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
