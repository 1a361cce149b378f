"""The launch form without its widgets: fields from the configuration's schema, and what a filled form means."""

from __future__ import annotations

import shlex
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from dynlora.analysis.seed_groups import LABELS, flat
from dynlora.assets import MODELS
from dynlora.config import RunConfig
from dynlora.config_files import value_text
from dynlora.errors import ConfigError
from dynlora.text import sentence_case

MAX_SEEDS = 20
RULES = ("ge", "gt", "le", "lt")
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
MORE_DATA = ("data.task", "data.metric", "data.eval_fraction", "data.train_groups", "data.packing")
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


@dataclass(frozen=True)
class Field:
    """One field of the form.

    Attributes:
        key: dotted key in the configuration.
        kind: int, float, str, bool, or tuple for a list of texts.
        default: its value when nothing is entered; None for empty.
        help: what it means, with its unit.
        unit: of the value, may be empty.
        optional: may stay empty.
        low: least value, or None.
        high: greatest value, or None.
        choices: the values it can take, empty for any.
        low_open: it must be more than `low`, not just as much.
        high_open: it must be less than `high`.
    """

    key: str
    kind: str
    default: Any
    help: str
    unit: str = ""
    optional: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = field(default=())
    low_open: bool = False
    high_open: bool = False

    @property
    def name(self) -> str:
        """The last part of the key, in words."""
        return self.key.rpartition(".")[2].replace("_", " ")

    @property
    def label(self) -> str:
        """Name and unit."""
        if self.key in LABELS:
            return sentence_case(LABELS[self.key])
        unit = f" ({self.unit})" if self.unit and not self.name.endswith(self.unit) else ""
        return f"{sentence_case(self.name)}{unit}"

    @property
    def empty(self) -> str:
        """What it means to leave the field empty."""
        return EMPTY.get(self.key, "automatic")

    @property
    def range(self) -> str:
        """The values it may take, in words; empty for any."""
        bounds = [f"{'more than' if self.low_open else 'at least'} {self.low:g}"] if self.low is not None else []
        bounds += [f"{'less than' if self.high_open else 'at most'} {self.high:g}"] if self.high is not None else []
        return ", ".join(bounds)

    @property
    def about(self) -> str:
        """What the field means, its range, its default and its key."""
        default = self.empty if self.default is None else self.default
        sentences = [
            self.help,
            f"Range: {self.range}." if self.range else "",
            f"Default: {default}.",
            f"Key: {self.key}.",
        ]
        return " ".join(part for part in sentences if part)

    def fitting(self, value: Any) -> Any:
        """Return a value that may come from a run of someone else's, or the default where the field cannot hold it."""
        if value is None:
            return None if self.optional else self.default
        if self.kind == "tuple":
            items = tuple(str(item) for item in value) if isinstance(value, list | tuple) else None
            known = items is None or not self.choices or set(items) <= set(self.choices)
            return items if items is not None and known else self.default
        if self.choices or self.kind == "str":
            return str(value) if not self.choices or str(value) in self.choices else self.default
        if isinstance(value, bool) or self.kind == "bool":
            return value if isinstance(value, bool) and self.kind == "bool" else self.default
        if not isinstance(value, int | float) or (self.kind == "int" and not float(value).is_integer()):
            return self.default
        inside = (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        return value if inside else self.default


def config_field(key: str) -> Field:
    """Return a field of the configuration by its dotted key."""
    owner: type[BaseModel] = RunConfig
    *sections, last = key.split(".")
    for section in sections:
        owner = typing.cast("type[BaseModel]", owner.model_fields[section].annotation)
    info = owner.model_fields[last]
    kinds, choices = _types(info.annotation)
    return Field(
        key,
        kinds[0],
        info.get_default(),
        info.description or "",
        optional=len(kinds) > 1,
        choices=choices,
        **_bounds({rule: getattr(item, rule) for item in info.metadata for rule in RULES if hasattr(item, rule)}),
    )


def strategy_fields(strategy: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a strategy as the catalogue describes them."""
    return [
        Field(
            f"strategy.{row['name']}",
            row["type"],
            row.get("default"),
            row.get("help", ""),
            row.get("unit", ""),
            bool(row.get("optional")),
            choices=tuple(row.get("choices") or ()),
            **_bounds(row),
        )
        for row in strategy.get("fields", [])
    ]


def field_table(strategy: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the fields of a strategy as rows for people."""
    return [
        {
            "field": field.key,
            "default": "automatic" if field.default is None else str(field.default),
            "unit": field.unit,
            "values": ", ".join(field.choices) or field.range or KIND_WORDS.get(field.kind, ""),
            "meaning": field.help,
        }
        for field in strategy_fields(strategy)
    ]


def _types(hint: Any) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of the plain types (`none` for an optional one, last) and the choices of a hint."""
    if typing.get_origin(hint) is typing.Literal:
        return ["str"], typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return _types(typing.get_args(hint)[0])
    if typing.get_origin(hint) is tuple:
        return ["tuple"], _types(typing.get_args(hint)[0])[1]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        members = [_types(option) for option in typing.get_args(hint)]
        names = [name for option, _ in members for name in option]
        return sorted(names, key=lambda name: name == "NoneType"), members[0][1]
    return [getattr(hint, "__name__", "str")], ()


def _bounds(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounds of a field from rules such as `ge` and `lt`."""
    low, high = rules.get("ge", rules.get("gt")), rules.get("le", rules.get("lt"))
    return {"low": low, "high": high, "low_open": "gt" in rules, "high_open": "lt" in rules}


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
