"""The launch form without its widgets: its fields, what a filled form means, and experiments with their baselines."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd
import yaml

from dynlora.analysis.frames import records
from dynlora.analysis.planted_ranks import PLANTED_SETTINGS
from dynlora.analysis.run_summary import seconds_taken
from dynlora.analysis.seed_groups import LABELS, flat
from dynlora.assets import MODELS
from dynlora.config import RunConfig, Setting, StrategyConfig
from dynlora.config_files import value_text
from dynlora.errors import ConfigError, section_in
from dynlora.jobs.sweep import SECTION, count
from dynlora.text import one_line, plural, rough_duration, sentence_case

MAX_SEEDS = 20
KIND_WORDS = {"int": "whole number", "float": "number", "str": "text", "bool": "yes or no", "tuple": "texts"}


EMPTY = {
    "data.max_train": "all",
    "data.max_eval": "all",
    "data.train_groups": "all",
    "adapter.targets": "all",
    "train.max_grad_norm": "not clipped",
    "log.to": "none",
    "model.dropout": "value of the model",
    "model.quantization": "not quantised",
    "model.layers": "all",
}
"""What an empty field means, where it is not that a value is chosen automatically."""

TRAINING = ("train.steps", "train.batch_size", "train.lr", "adapter.rank")
MORE_DATA = (
    "data.task",
    "data.metric",
    "data.eval_fraction",
    "data.train_groups",
    "data.packing",
)
PLANTED = tuple(f"data.planted_{name}" for name in ("modules", "rank", "strength", "seed", "group"))
"""Settings of planted ranks, which no other task has."""
ROWS = ("data.max_train", "data.max_eval", "data.max_length")
MORE_TRAINING = (
    "train.epochs",
    "train.warmup",
    "train.schedule",
    "train.head_lr",
    "train.weight_decay",
    "train.max_grad_norm",
    "train.grad_accum",
    "train.precision",
    "train.gradient_checkpointing",
    "model.dtype",
    "model.quantization",
)
MORE_ADAPTER = ("adapter.alpha", "adapter.dropout", "adapter.targets", "model.layers", "model.dropout")
RECORDING = (
    "log.eval_every",
    "log.eval_rows",
    "log.every",
    "log.checkpoint_every",
    "log.generate_rows",
    "log.generate_interim",
    "log.generate_max",
    "log.retention",
    "log.to",
)
"""Keys of the configuration as the form groups them, in their order."""


class Field(Setting):
    """A setting as the form draws it, named by its dotted key."""

    @property
    def label(self) -> str:
        """Name and unit."""
        if self.name in LABELS:
            return sentence_case(LABELS[self.name])
        words = self.name.rpartition(".")[2].replace("_", " ")
        unit = f" ({self.unit})" if self.unit and not words.endswith(self.unit) else ""
        return f"{sentence_case(words)}{unit}"

    @property
    def empty(self) -> str:
        """What it means to leave the field empty."""
        return EMPTY.get(self.name, "automatic")

    @property
    def range(self) -> str:
        """The values it may take, in words; empty for any."""
        bounds = [f"{'at least' if self.gt is None else 'more than'} {self.low:g}"] if self.low is not None else []
        bounds += [f"{'at most' if self.lt is None else 'less than'} {self.high:g}"] if self.high is not None else []
        return ", ".join(bounds)

    @property
    def about(self) -> str:
        """What the field means, its range, its default and its key."""
        default = self.empty if self.default is None else self.default
        sentences = [
            self.help,
            f"Range: {self.range}." if self.range else "",
            f"Default: {default}.",
            f"Key: {self.name}.",
        ]
        return " ".join(part for part in sentences if part)

    def fitting(self, value: Any) -> Any:
        """Return a value that may come from a run of someone else's, or the default where the field cannot hold it."""
        if self.type == "tuple" and isinstance(value, list | tuple):
            value = tuple(str(item) for item in value)
        elif self.type == "str" and value is not None:
            value = str(value)
        elif self.type == "int" and isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if self.takes(value) else self.default


def config_field(key: str) -> Field:
    """Return a field of the configuration by its dotted key."""
    section, _, last = key.rpartition(".")
    return Field.of(key, (section_in(RunConfig, section) or RunConfig).model_fields[last])


def strategy_fields(strategy: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a strategy as the catalogue describes them."""
    return [Field(**{**row, "name": f"strategy.{row['name']}"}) for row in strategy.get("fields", [])]


def field_table(strategy: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the fields of a strategy as rows for people."""
    return [
        {
            "field": field.name,
            "default": "automatic" if field.default is None else str(field.default),
            "unit": field.unit,
            "values": ", ".join(field.choices) or field.range or KIND_WORDS.get(field.type, ""),
            "meaning": field.help,
        }
        for field in strategy_fields(strategy)
    ]


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as the configuration holds them; None leaves a key out."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value == "":
            continue
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return tree


def seeds(text: str) -> list[int]:
    """Return the seeds that a text such as `0`, `0..4`, `0-4` or `1, 5` names.

    Raises:
        ConfigError: when it names none, or more than `MAX_SEEDS`.
    """
    numbers: list[int] = []
    for part in text.replace("..", "-").replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or max(len(first), len(last)) > 9:
            raise ConfigError(f"seed {text[:40]!r}: write one number, a range such as 0..4, or a list such as 1, 5")
        span = range(int(first), int(last or first) + 1)
        if len(span) > MAX_SEEDS:
            raise ConfigError(f"seed {text[:40]!r}: is {len(span)} runs; start at most {MAX_SEEDS} at once")
        numbers += span
    if not 1 <= len(set(numbers)) <= MAX_SEEDS:
        raise ConfigError(f"seed {text[:40]!r}: is {len(set(numbers))} runs; start 1 to {MAX_SEEDS} at once")
    return sorted(set(numbers))


def command(config: Mapping[str, Any], runs_dir: str, between: str = " ") -> str:
    """Return the command line that starts the same run.

    Args:
        config: of the run.
        runs_dir: the runs folder.
        between: what is written before each option.
    """
    parts = [["dynlora", "train"]]
    for key, value in flat(config).items():
        parts.append(["--name", str(value)] if key == "name" else ["--set", f"{key}={value_text(value)}"])
    return between.join(shlex.join(part) for part in [*parts, ["--runs-dir", runs_dir]])


def model_caption(name: str) -> str:
    """Say what a built-in model is, its size, and what its first use needs; for other names, which are built in."""
    model = MODELS.get(name)
    if model is None:
        return f"A local folder or a hub id. Built-in models: {', '.join(MODELS)}."
    size = f"{model.size / 1e6:,.0f} MB"
    if model.cached:
        at_hand = f"{size}, downloaded"
    else:
        at_hand = f"{size}; the first use downloads {model.package.size / 1e6:,.0f} MB"
    return f"{model.description}; {at_hand}. Licence: {model.licence}."


def queue_caption(training: int, waiting: int, new: int = 1) -> str:
    """Say what has to end before new runs begin; empty when they begin at once.

    Args:
        training: runs that are training.
        waiting: runs that are queued already.
        new: runs that are about to be started.
    """
    ahead = training + waiting
    if not ahead:
        return "" if new == 1 else f"One run trains at a time: the first starts now, {new - 1} wait in the queue."
    first = [f"{training:,} run{' is' if training == 1 else 's are'} training"] if training else []
    first += [f"{waiting:,} {'is' if waiting == 1 else 'are'} in the queue"] if waiting else []
    if new == 1:
        return f"{' and '.join(first)}; a run started now gets position {ahead + 1:,}."
    return f"{' and '.join(first)}; {new} runs started now get positions {ahead + 1:,} to {ahead + new:,}."


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
    "Planted ranks": PLANTED_SETTINGS,
    "Quality": {"train.steps": 1500, "adapter.rank": 8, "train.lr": 5e-4},
    "Defaults": {},
}
"""Starting values of the form, by the name of the preset; a field that a strategy lacks is left out there."""

PRESET_WORDS = {
    "Quick look": "100 steps, to check that everything works.",
    "Teaching": "A tiny run for learning: rank is cut three times, gates see the input, many evaluations.",
    "Instruction tuning": "A language model learns to answer: prompts with completions, or conversations. "
    "Built-in word problems, or a file of your own.",
    "Language modelling": "A language model learns to continue plain text.",
    "Planted ranks": "A model learns a teacher that differs from it in four modules: one sees whether rank goes there.",
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
        fields = strategy_fields(strategy)
        own = {field.name.partition(".")[2]: field.fitting(start.get(field.name, field.default)) for field in fields}
        usual = {field.name.partition(".")[2]: field.default for field in fields}
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
    field = config_field("adapter.rank")
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
    count(experiment.lists)
    return experiment


def base(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that all runs share: everything but what varies."""
    varies = ("seed", "adapter.rank")
    common = {key: value for key, value in values.items() if key not in varies and not key.startswith("strategy.")}
    return nested(common)


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
    queue = queue_caption(training, waiting, experiment.n) if training + waiting else ""
    return " ".join(filter(None, [f"{' × '.join(parts)} = {plural(experiment.n, 'run')}.", time, queue]))
