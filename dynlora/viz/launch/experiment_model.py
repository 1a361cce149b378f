"""An experiment: methods x ranks x seeds on one data set, as a sweep; and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd
import yaml

from dynlora.analysis.frames import records
from dynlora.analysis.run_summary import seconds_taken
from dynlora.analysis.seed_groups import flat
from dynlora.config import RunConfig, StrategyConfig
from dynlora.errors import ConfigError
from dynlora.jobs.sweep import MAX_RUNS, SECTION
from dynlora.text import one_line, plural, rough_duration
from dynlora.viz.launch import form_model

PRESETS: dict[str, dict[str, Any]] = {
    "Quick look": {"train.steps": 100, "adapter.rank": 4, "data.max_eval": 500},
    "Teaching": {
        "train.steps": 80,
        "train.batch_size": 16,
        "train.lr": 2e-3,
        "adapter.rank": 4,
        "data.max_length": 48,
        "data.max_train": 2000,
        "data.max_eval": 200,
        "log.eval_every": 10,
        "log.every": 2,
        "strategy.warmup_steps": 10,
        "strategy.final_steps": 20,
        "strategy.allocate_every": 7,
        "strategy.moves": 12,
        "strategy.gates": "module",
    },
    "Instruction tuning": {
        "model.name": "smollm2-135m",
        "data.name": "arithmetic",
        "data.max_length": 256,
        "data.max_eval": 200,
        "train.steps": 200,
        "train.batch_size": 8,
        "train.lr": 5e-4,
        "adapter.rank": 8,
        "log.eval_every": 50,
        "log.generate_rows": 16,
        "log.generate_max": 96,
    },
    "Language modelling": {
        "model.name": "smollm2-135m",
        "data.name": "sentiment4-text",
        "data.max_length": 64,
        "data.max_eval": 400,
        "train.steps": 200,
        "train.batch_size": 8,
        "train.lr": 5e-4,
        "adapter.rank": 8,
        "log.eval_every": 50,
        "log.generate_rows": 8,
        "log.generate_max": 32,
    },
    "Quality": {"train.steps": 1500, "adapter.rank": 8, "train.lr": 5e-4},
    "Defaults": {},
}
"""Starting values of the form, by the name of the preset; a field that a strategy lacks is left out there."""

PRESET_WORDS = {
    "Quick look": "100 steps, to check that everything works.",
    "Teaching": "A tiny run for learning: frequent rank transfers, gates that see the input, many evaluations.",
    "Instruction tuning": "A language model learns to answer: prompts with completions, or conversations. "
    "Built-in word problems, or a file of your own.",
    "Language modelling": "A language model learns to continue plain text.",
    "Quality": "Long enough to compare methods.",
    "Defaults": "The default settings of `dynlora train`.",
}
"""What each preset is for."""

TWINS = {
    "same": "Same settings",
    "uniform": "Uniform baseline",
    "random": "Random control",
    "default": "Default method",
}
"""Name in the address and words of what can be made of another run."""

TWIN_WORDS = {
    "same": "The settings of the other run, for changes.",
    "uniform": "The same rank, seed, data and steps, with one rank for all modules: the baseline for dynamic ranks.",
    "random": "The same number of moves, chosen at random: the control for importance-based moves.",
    "default": "The same rank, seed, data and steps, with the default method, which moves rank.",
}
"""What each baseline is for."""

UNIFORM = "lora"
"""The strategy in which every module keeps the same rank: the control at an equal budget."""

DEFAULT = StrategyConfig().name  # pyright: ignore[reportCallIssue]
"""The method of a run whose configuration names none."""

RANDOM_CONTROL = ("allocation", "random")
"""The field, and its value, by which a strategy offers random moves."""


def twins(config: Mapping[str, Any], strategies: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the starting values of each baseline that a run has, by its name in the address.

    Args:
        config: the run's configuration; it may come from someone else's run.
        strategies: what the catalogue says of each strategy, by name.
    """
    values = {key: value for key, value in flat(config).items() if value is not None}
    title = one_line(values.get("name") or "a run", 80)
    configs = {"same": values}
    uniform = _by_method(UNIFORM, values, strategies)
    if uniform is not None:
        configs["uniform"] = uniform | {"name": f"uniform baseline of {title}"}
    key, value = f"strategy.{RANDOM_CONTROL[0]}", RANDOM_CONTROL[1]
    if has_control(strategies.get(str(values.get("strategy.name")), {})) and values.get(key) != value:
        configs["random"] = values | {key: value, "name": f"random control of {title}"}
    usual = None if values.get("strategy.name") == DEFAULT else _by_method(DEFAULT, values, strategies)
    if usual is not None:
        configs["default"] = usual | {"name": f"{DEFAULT} like {title}"}
    return configs


def _by_method(
    name: str, values: Mapping[str, Any], strategies: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return the values with another method and those of its fields that were set; None where they are the same."""
    if name not in strategies:
        return None
    settings = {f"strategy.{row['name']}" for row in strategies[name].get("fields", [])}
    changed = {key: value for key, value in values.items() if not key.startswith("strategy.") or key in settings}
    changed["strategy.name"] = name
    return None if changed == dict(values) else changed


def has_control(strategy: Mapping[str, Any]) -> bool:
    """Say whether a strategy offers random moves, the control for those by importance."""
    return any(
        row["name"] == RANDOM_CONTROL[0] and RANDOM_CONTROL[1] in row.get("choices", ())
        for row in strategy.get("fields", [])
    )


MOST_RANKS = 8
CONTROL = "random control of "
"""Begins the label of a method whose moves are random."""

USUAL = (UNIFORM, "dynamic", f"{CONTROL}dynamic")
"""Methods that are chosen to begin with: the baseline, what this tool is for, and its control."""


@dataclass(frozen=True)
class Experiment:
    """What is run.

    Attributes:
        methods: section `strategy` of the configuration, one a method.
        ranks: of the adapters before anything moves, in components a module.
        seeds: each is one run of every method at every rank.
    """

    methods: Sequence[Mapping[str, Any]]
    ranks: Sequence[int]
    seeds: Sequence[int]

    @property
    def n(self) -> int:
        """How many runs this makes."""
        return len(self.methods) * self.n_per_method

    @property
    def n_per_method(self) -> int:
        """How many runs of each method."""
        return len(self.ranks) * len(self.seeds)

    @property
    def lists(self) -> dict[str, list[Any]]:
        """The values that vary, by dotted key; seeds first, so that every method has a result early."""
        return {
            "seed": list(self.seeds),
            "adapter.rank": list(self.ranks),
            "strategy": [dict(one) for one in self.methods],
        }


def methods(strategies: Mapping[str, Mapping[str, Any]], start: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the section `strategy` of each method by its label, the usual ones first; controls are methods too.

    Args:
        strategies: what the catalogue says of each strategy, by name.
        start: starting values by dotted key; a strategy takes those that it has fields for.
    """
    methods: dict[str, dict[str, Any]] = {}
    key, random = RANDOM_CONTROL
    for name, strategy in strategies.items():
        fields = form_model.strategy_fields(strategy)
        own = {field.key.partition(".")[2]: field.fitting(start.get(field.key, field.default)) for field in fields}
        usual = {field.key.partition(".")[2]: field.default for field in fields}
        set_here = {part: value for part, value in own.items() if value != usual[part]}
        plain = {part: value for part, value in set_here.items() if (part, value) != RANDOM_CONTROL}
        methods[name] = {"name": name} | plain
        if has_control(strategy):
            methods[f"{CONTROL}{name}"] = {"name": name} | plain | {key: random}
    return {name: methods[name] for name in (*USUAL, *methods) if name in methods}


def ranks(text: str) -> list[int]:
    """Return the ranks that a text such as `4` or `2, 4, 8` names.

    Raises:
        ConfigError: when it names none, too many, or one that is no rank.
    """
    parts = [part for part in text.replace(" ", "").split(",") if part]
    if not 1 <= len(parts) <= MOST_RANKS:
        raise ConfigError(
            f"ranks {text[:40]!r}: names {len(parts)} ranks; give 1 to {MOST_RANKS}, such as 4 or 2, 4, 8"
        )
    field = form_model.config_field("adapter.rank")
    for part in parts:
        if not part.isdecimal() or len(part) > 6 or not (field.low or 1) <= int(part) <= (field.high or math.inf):
            raise ConfigError(
                f"rank {part[:20]!r}: must be a whole number, {field.range}; give ranks such as 4 or 2, 4, 8"
            )
    return sorted({int(part) for part in parts})


def checked(experiment: Experiment) -> Experiment:
    """Return an experiment that can be run.

    Raises:
        ConfigError: when it has no method, or too many runs.
    """
    if not experiment.methods:
        raise ConfigError("methods: none is chosen; choose one or more, such as lora and dynamic")
    if experiment.n > MAX_RUNS:
        raise ConfigError(
            f"experiment: {experiment.n:,} runs are more than {MAX_RUNS}; choose fewer methods, ranks or seeds"
        )
    return experiment


def base(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that all runs share: everything but what varies."""
    varies = ("seed", "adapter.rank")
    common = {key: value for key, value in values.items() if key not in varies and not key.startswith("strategy.")}
    return form_model.nested(common)


def configured(config: Mapping[str, Any], experiment: Experiment, method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a method's first run."""
    adapter = {**(config.get("adapter") or {}), "rank": experiment.ranks[0]}
    return {**config, "adapter": adapter, "strategy": dict(method), "seed": experiment.seeds[0]}


def label(method: Mapping[str, Any]) -> str:
    """Return what a method is called: its name, or the random control of it."""
    key, random = RANDOM_CONTROL
    return f"{CONTROL if method.get(key) == random else ''}{method['name']}"


def document(config: Mapping[str, Any], experiment: Experiment) -> str:
    """Return the file that `dynlora sweep --config` takes for the same experiment."""
    return yaml.safe_dump({**config, SECTION: experiment.lists}, sort_keys=False, allow_unicode=True)


def seconds_per_run(runs: pd.DataFrame, config: Mapping[str, Any]) -> float | None:
    """Return the seconds that a run of this configuration takes by the median of finished ones like it; None without.

    Like it are runs on the same model with the same batch and text length; their data may be another.

    Args:
        runs: as `run_picker.list_all` returns them.
        config: the configuration that all runs of the experiment share.
    """
    if runs.empty:
        return None
    pace = _pace_key(config)
    steps = _of(config, "train.steps")
    known = [
        seconds / row["step"]
        for row in records(runs[(runs["status"] == "finished") & runs["is_own"]])
        if (seconds := _seconds_taken(row)) is not None and _pace_key(row["config"]) == pace
    ]
    return median(known) * steps if known and isinstance(steps, int) and not _of(config, "train.epochs") else None


def _seconds_taken(row: Mapping[str, Any]) -> float | None:
    return seconds_taken(row) if row.get("step") and row.get("config") else None


def _pace_key(config: Mapping[str, Any]) -> tuple[Any, ...]:
    keys = ("model.name", "train.batch_size", "train.grad_accum", "train.precision", "data.max_length")
    return tuple(_of(config, key) for key in keys)


def _of(config: Mapping[str, Any], key: str) -> Any:
    """Return a value of a configuration, the default where it says nothing."""
    section, _, name = key.partition(".")
    value = (config.get(section) or {}).get(name)
    return _DEFAULTS[section][name] if value is None else value


_DEFAULTS = RunConfig.model_validate({}).model_dump()


def caption(experiment: Experiment, seconds: float | None, training: int, waiting: int) -> str:
    """Say how many runs these are and how long they take.

    Args:
        experiment: the experiment.
        seconds: that all runs take; None when that is not known.
        training: runs that are training.
        waiting: runs that are queued already.
    """
    parts = [plural(len(experiment.methods), "method")]
    if len(experiment.ranks) > 1:
        parts.append(plural(len(experiment.ranks), "rank"))
    parts.append(plural(len(experiment.seeds), "seed"))
    time = (
        "The time is not known before the first run of this model and length; press Check for an estimate."
        if seconds is None
        else f"About {rough_duration(seconds)} in total, one run at a time."
    )
    queue = form_model.queue_caption(training, waiting, experiment.n) if training + waiting else ""
    return " ".join(filter(None, [f"{' × '.join(parts)} = {plural(experiment.n, 'run')}.", time, queue]))
