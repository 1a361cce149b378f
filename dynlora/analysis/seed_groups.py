"""Runs that differ in their seed alone belong together: groups, their mean and band; settings by their dotted keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.run_summary import format_strategy, method_of
from dynlora.config import RunConfig
from dynlora.config_files import METHOD, RANKS_FROM, START_FROM, as_made
from dynlora.store.meta import section
from dynlora.store.search import flat
from dynlora.store.summary import RunSummary
from dynlora.text import one_line, source_name

LABELS = {
    "name": "run name",
    "model.name": "model",
    "model.layers": "blocks of the model",
    "model.dropout": "model dropout (probability)",
    "train.steps": "steps",
    "train.epochs": "epochs (instead of steps)",
    "strategy.ranks_from": "ranks from",
    "adapter.rank": "rank (components)",
    "adapter.alpha": "alpha (scaling = alpha / rank)",
    "adapter.targets": "target modules",
    "train.lr": "learning rate",
    "train.head_lr": "head learning rate",
    "train.batch_size": "batch size (examples)",
    "train.weight_decay": "weight decay (per step)",
    "train.max_grad_norm": "gradient clipping (norm)",
    "train.grad_accum": "gradient accumulation (batches)",
    "train.precision": "precision",
    "model.dtype": "dtype of frozen weights",
    "model.quantization": "quantization of frozen weights",
    "data.packing": "packing (several texts per sequence)",
    "data.max_length": "maximum length (tokens)",
    "data.max_eval": "maximum held-out examples",
    "data.max_train": "maximum training examples",
    "data.eval_fraction": "held-out fraction (without own split)",
    "data.task": "task",
    "data.metric": "deciding metric",
    "data.group_by": "input groups",
    "data.train_groups": "training groups",
    "data.repair": "repairs",
    "data.encoding": "encoding",
    "data.text": "text column",
    "data.text_pair": "second text column",
    "data.label": "label column",
    "adapter.dropout": "adapter dropout (probability)",
    "train.warmup": "warm-up (fraction of steps)",
    "train.schedule": "learning rate schedule",
    "log.eval_every": "evaluate every (steps)",
    "log.checkpoint_every": "checkpoint every (steps)",
    "log.eval_rows": "held-out examples per interim evaluation",
    "log.every": "gradient norms every (steps)",
    "log.retention": "retention every (evaluations)",
    "log.to": "trackers",
}
"""Names of the configuration's fields, with the unit, where the key alone does not say it; a label capitalizes them."""


BEFORE = {
    "model.dtype": "fp32",
    "data.packing": False,
    "train.gradient_checkpointing": False,
    "data.planted_modules": "4",
    "data.planted_rank": 8,
    "data.planted_strength": 0.3,
    "data.planted_seed": 0,
}
"""What runs did before these settings were there."""


def set_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are set, by dotted key, so that runs of every version can be told alike.

    Left out is what is empty, and what runs did before a setting was there: an older run lacks its key.
    """
    return {key: value for key, value in flat(config).items() if value is not None and BEFORE.get(key) != value}


DEFAULTS = flat(RunConfig.model_validate({}).model_dump())
"""What a run of today takes where nothing is set."""


def every_value(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings that a run had, by dotted key: of an older run those too that were not there yet.

    What is not known are settings of its method that its version did not have.
    """
    return {**DEFAULTS, **BEFORE, **flat(as_made(config))}


def differences_of(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], int]:
    """Return the settings in which runs differ, with the values of each in words, and how many settings are equal.

    The method is first; a setting that only some runs set is "not set" in the others. Left out are the seed, what is
    only recorded, and what a method of the runs does not have.
    """
    every = [every_value(config) for config in configs]
    is_one_method = len({values.get(METHOD) for values in every}) == 1
    keys = [key for key in dict.fromkeys(key for values in every for key in values) if not key.startswith("log.")]
    shared = [
        key
        for key in keys
        if key not in NOT_COMPARED
        and (all(key in values for values in every) or key in OF_EVERY_METHOD or (is_one_method and _is_of_method(key)))
    ]
    shared.sort(key=lambda key: not _is_of_method(key))
    words = {key: list(dict.fromkeys(_word(key, values.get(key, "not set")) for values in every)) for key in shared}
    differ = {key: values for key, values in words.items() if len(values) > 1}
    return differ, len(words) - len(differ)


OF_EVERY_METHOD = (f"strategy.{RANKS_FROM}", f"strategy.{START_FROM}")
"""Settings that every method has; a configuration holds them where they are set."""


def _is_of_method(key: str) -> bool:
    return key.startswith("strategy.")


SOURCES = ("model", "data")
"""Sections whose texts may be paths of this machine."""


def by_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration for others to read: models and data by name, no path of this machine."""
    return {key: _named(value) if key in SOURCES else value for key, value in config.items()}


def _named(value: Any) -> Any:
    """Return a value with each path in it as its last part."""
    if isinstance(value, Mapping):
        return {key: _named(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_named(part) for part in value]
    return source_name(value) if isinstance(value, str) else value


def launch_key(token: str, config: Mapping[str, Any]) -> str:
    """Return the idempotency key of a configuration in a session: the same form starts one run."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
    return f"{token}-{digest[:20]}"


CLOCKS = {
    "step": "step",
    "tokens": "training tokens",
    "rows": "training examples",
    "seconds": "training time (s)",
    "parameter-steps": "adapter parameters × steps",
}
"""What the x axis can count, and its title."""

GRID = 300
"""Most points of a mean line."""

NOT_COMPARED = (
    "seed",
    "name",
    "log.eval_rows",
    "log.generate_rows",
    "log.generate_interim",
    "log.generate_max",
    "log.retention",
    "log.to",
    "train.gradient_checkpointing",
)
"""Settings in which runs of one group may differ: none of them changes how a run trains or its last evaluation."""


@dataclass(frozen=True)
class Group:
    """Runs shown as one.

    Attributes:
        label: what is written for them; text of a run's author may be in it.
        runs: their ids, one for each seed.
        repeats: ids of older runs with a seed that is among them; they are no further evidence.
        method: that decides the colour, as `run_summary.method_of` returns it.
    """

    label: str
    runs: tuple[str, ...]
    repeats: tuple[str, ...] = ()
    method: str = ""

    @property
    def title(self) -> str:
        """The label with the number of seeds."""
        return f"{self.label}, n = {len(self.runs)}"

    @property
    def oldest(self) -> str:
        """The id of the oldest run."""
        return min((*self.runs, *self.repeats))


def grouped(rows: Sequence[Mapping[str, Any]], ignoring: Collection[str] = ()) -> list[Group]:
    """Return the runs in groups of equal configuration but for seed and name, in the order given, a seed counted once.

    Args:
        rows: of the list, or summaries as plain values.
        ignoring: further settings, by dotted key, in which runs of one group may differ.
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        members.setdefault(_key(row, ignoring), []).append(row)
    labels = _labels([runs[0] for runs in members.values()], ignoring)
    return [
        Group(label, *_by_seed(runs), method_of(runs[0])) for label, runs in zip(labels, members.values(), strict=True)
    ]


def _by_seed(members: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of the newest run of each configuration and seed, finished ones first, and those of the others.

    Ids begin with the time.
    """
    newest: dict[Any, tuple[bool, str]] = {}
    for summary in members:
        run, seed = str(summary["id"]), summary.get("seed")
        alike = run if seed is None else (seed, configuration(summary))
        worth = (summary.get("status") == "finished", run)
        newest[alike] = max(newest.get(alike, worth), worth)
    newest_runs = {run for _, run in newest.values()}
    ids = [str(summary["id"]) for summary in members]
    return tuple(run for run in ids if run in newest_runs), tuple(run for run in ids if run not in newest_runs)


def methods(summaries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the method of each run by its id: the strategy, and those of its own settings in which methods differ.

    A control such as random allocation is a method of its own, another learning rate is not.
    """
    others = {key for one in summaries for key in _settings(one, ()) if not key.startswith("strategy.")}
    return {run: group.label for group in grouped(summaries, others) for run in (*group.runs, *group.repeats)}


def by_method(summaries: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Return the runs in groups of one method each, whatever their other settings, in the order given."""
    members: dict[str, list[str]] = {}
    for run, method in methods(summaries).items():
        members.setdefault(method, []).append(run)
    rows = {str(summary["id"]): summary for summary in summaries}
    return [Group(label, tuple(runs), method=method_of(rows[runs[0]])) for label, runs in members.items()]


def alone(names: Mapping[str, str], summaries: Mapping[str, RunSummary]) -> list[Group]:
    """Return each run as its own group, by its display name."""
    return [Group(name, (run,), method=method_of(dict(summaries[run]))) for run, name in names.items()]


def _settings(summary: Mapping[str, Any], ignoring: Collection[str]) -> dict[str, Any]:
    """Return the settings in which runs of one group may not differ, by dotted key."""
    left_out = {*NOT_COMPARED, *ignoring}
    return {key: value for key, value in set_values(summary.get("config") or {}).items() if key not in left_out}


def other_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the settings beside the method, seed and log in which two configurations differ, by key, as words."""
    differ, _ = differences_of([first, second])
    return {key: (ours, theirs) for key, (ours, theirs) in differ.items() if not key.startswith("strategy.")}


def confounders(first: RunSummary, second: RunSummary) -> dict[str, tuple[str, str]]:
    """Return the settings that hide what the method does: those in which runs of two methods differ beside their rate.

    Runs of one method have none: there such a setting is what is compared.
    """
    ours, theirs = ((one.strategy, section(one.config, "strategy")) for one in (first, second))
    if ours == theirs:
        return {}
    return {key: words for key, words in other_differences(first.config, second.config).items() if key != "train.lr"}


def _word(key: str, value: Any) -> str:
    return "automatic" if value is None else one_line(_shown(key, value), 24)


def configuration(summary: Mapping[str, Any]) -> str:
    """Return a text that runs share which differ in nothing but seed and name."""
    return _key(summary, ())


def _key(summary: Mapping[str, Any], ignoring: Collection[str]) -> str:
    return json.dumps([summary.get("strategy"), _settings(summary, ignoring)], sort_keys=True, default=str)


def _labels(firsts: Sequence[Mapping[str, Any]], ignoring: Collection[str]) -> list[str]:
    """Return the strategy of each group; those of one strategy get the settings in which they differ, if set."""
    words = [one_line(format_strategy(summary), 60) for summary in firsts]
    settings = [_settings(summary, ignoring) for summary in firsts]
    alike = {word: [own for own, other in zip(settings, words, strict=True) if other == word] for word in set(words)}
    differ = {word: _differing(members) for word, members in alike.items()}
    labels = []
    for own, word in zip(settings, words, strict=True):
        keys = [key for key in differ[word] if own.get(key) is not None][:3]
        labels.append(", ".join([word, *(f"{_short(key)} {one_line(_shown(key, own[key]), 24)}" for key in keys)]))
    return [label if labels.count(label) == 1 else f"{label} ({i + 1})" for i, label in enumerate(labels)]


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]


def _shown(key: str, value: Any) -> Any:
    """Return a setting for a label: model, data and files by name."""
    is_source = key.partition(".")[0] in SOURCES or key in OF_EVERY_METHOD
    return source_name(value) if is_source and isinstance(value, str) else value


def _short(key: str) -> str:
    """Return the last part of a dotted key; of a name what it names."""
    section, _, last = key.rpartition(".")
    return section if last == "name" and section else last


def clock(kind: str, summary: RunSummary, each: pd.DataFrame, line: pd.DataFrame) -> pd.DataFrame | None:
    """Return what the x axis counts at each step: columns step and x; None when the run has not recorded it.

    tokens = those of each step added up, padding left out; rows = steps · batch_size · grad_accum; seconds =
    Σ step_ms / 1000, evaluations not counted; parameter-steps = Σ of the adapter parameters in use, gates included.

    Args:
        kind: one of `CLOCKS`.
        summary: of the run.
        each: columns step and value, every step: its ms or its tokens; asked for with seconds and tokens only.
        line: as `capacity.budget_line` returns it; asked for with parameter-steps only.
    """
    last = max(1, summary.step)
    if kind == "step":
        return pd.DataFrame({"step": [0, last], "x": [0.0, float(last)]})
    if kind == "rows":
        train = section(summary.config, "train")
        rows = [train.get("batch_size"), train.get("grad_accum") or 1]
        if not all(isinstance(value, int) for value in rows):
            return None
        return pd.DataFrame({"step": [0, last], "x": [0.0, float(last * rows[0] * rows[1])]})
    if kind in ("seconds", "tokens"):
        counted = each["value"].to_numpy(float).cumsum() / (1000 if kind == "seconds" else 1)
        steps = each["step"].to_numpy(float)
    else:
        known = line.dropna(subset=["parameters"])
        steps = known["step"].to_numpy(float)
        counted = (known["parameters"].to_numpy(float) * np.diff(steps, prepend=0.0)).cumsum()
    if not len(steps):
        return None
    if steps[0] > 0:
        steps, counted = np.append(0.0, steps), np.append(0.0, counted)
    return pd.DataFrame({"step": steps, "x": counted})


def placed(series: pd.DataFrame, clocks: Mapping[str, pd.DataFrame | None]) -> pd.DataFrame:
    """Return series (run, step, value) with the column `x`; runs without a clock are left out."""
    parts = []
    for run, part in series.groupby("run", sort=False):
        clock = clocks.get(str(run))
        if clock is not None:
            parts.append(part.assign(x=np.interp(part["step"], clock["step"], clock["x"])))
    return pd.concat(parts, ignore_index=True) if parts else series.iloc[:0].assign(x=[])


def bands(series: pd.DataFrame, groups: Sequence[Group], *, between: bool) -> pd.DataFrame:
    """Return mean, lowest and highest run of each group: columns group, step, x, mean, low, high, n.

    Runs are set side by side by their step; x is the mean of theirs.

    Args:
        series: columns run, step, x, value.
        groups: of the runs.
        between: take values between two recorded steps from the line through them; else only recorded ones count.
    """
    columns = ["group", "step", "x", "mean", "low", "high", "n"]
    frames = []
    for group in groups:
        part = series[series["run"].isin(group.runs)].dropna(subset=["value"])
        if part.empty:
            continue
        steps = np.unique(part["step"].to_numpy(float))
        if len(steps) > GRID:
            steps = np.unique(np.linspace(steps[0], steps[-1], GRID).round())
        runs = [one.drop_duplicates("step", keep="last").sort_values("step") for _, one in part.groupby("run")]
        values = np.stack([_at(steps, one, "value", between) for one in runs])
        places = np.stack([_at(steps, one, "x", between) for one in runs])
        known = np.isfinite(values)
        keep = known.any(axis=0)
        table = {
            "group": group.title,
            "step": steps,
            "x": np.nanmean(np.where(known, places, np.nan)[:, keep], axis=0),
            "mean": np.nanmean(values[:, keep], axis=0),
            "low": np.nanmin(values[:, keep], axis=0),
            "high": np.nanmax(values[:, keep], axis=0),
            "n": known.sum(axis=0)[keep],
        }
        frames.append(pd.DataFrame(table | {"step": steps[keep]}))
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _at(steps: np.ndarray, one: pd.DataFrame, column: str, between: bool) -> np.ndarray:
    own, values = one["step"].to_numpy(float), one[column].to_numpy(float)
    inside = (steps >= own[0]) & (steps <= own[-1]) if between else np.isin(steps, own)
    return np.where(inside, np.interp(steps, own, values), np.nan)
