"""The launch form without its widgets: fields from the configuration's schema, and what a filled form means."""

from __future__ import annotations

import hashlib
import json
import shlex
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dynlora.config import RunConfig
from dynlora.errors import ConfigError

MAX_SEEDS = 20

PRESETS: dict[str, dict[str, Any]] = {
    "Quick look": {"train.steps": 100, "adapter.rank": 4, "data.max_eval": 500},
    "Defaults": {},
    "Quality": {"train.steps": 1500, "adapter.rank": 8, "train.lr": 5e-4},
}
"""Starting values of the form, by the name of the preset."""


LABELS = {
    "name": "name of the run", "model.name": "model", "train.steps": "steps", "adapter.rank": "rank, components",
    "train.lr": "learning rate", "train.batch_size": "batch, examples", "data.max_length": "longest text, tokens",
    "data.max_eval": "held-out rows, at most", "data.max_train": "training rows, at most",
    "data.group_by": "input groups by", "data.text": "column of the text", "data.label": "column of the label",
    "adapter.dropout": "adapter dropout, probability", "train.warmup": "warm-up, share of steps",
    "train.schedule": "learning rate falls", "log.eval_every": "evaluate every, steps",
    "log.checkpoint_every": "checkpoint every, steps", "log.every": "gradient norms every, steps",
}  # fmt: skip
"""What people call the configuration's fields, with the unit, where the key alone does not say it."""


@dataclass(frozen=True)
class Field:
    """One field of the form.

    Attributes:
        key: dotted key in the configuration.
        kind: int, float, str or bool.
        default: its value when nothing is entered; None for empty.
        help: what it means, with its unit.
        unit: of the value, may be empty.
        optional: may stay empty.
        low: least value, or None.
        high: greatest value, or None.
        choices: the values it can take, empty for any.
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

    @property
    def name(self) -> str:
        """The last part of the key, in words."""
        return self.key.rpartition(".")[2].replace("_", " ")

    @property
    def label(self) -> str:
        """Name and unit."""
        if self.key in LABELS:
            return LABELS[self.key]
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def about(self) -> str:
        """What the field means, its range and its key."""
        bounds = [f"least {self.low:g}"] if self.low is not None else []
        bounds += [f"most {self.high:g}"] if self.high is not None else []
        return " ".join([self.help, f"({', '.join(bounds)})" if bounds else "", f"Key: {self.key}."]).replace("  ", " ")


def config_field(key: str) -> Field:
    """Return a field of the configuration by its dotted key."""
    owner: type[BaseModel] = RunConfig
    *sections, last = key.split(".")
    for section in sections:
        owner = typing.cast("type[BaseModel]", owner.model_fields[section].annotation)
    info = owner.model_fields[last]
    kinds, choices = _types(info.annotation)
    low, high = _bounds(info)
    return Field(
        key, kinds[0], info.get_default(), info.description or "", optional=len(kinds) > 1, low=low, high=high,
        choices=choices,
    )  # fmt: skip


def strategy_fields(strategy: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a strategy as the catalogue describes them."""
    return [
        Field(
            f"strategy.{row['name']}", row["type"], row.get("default"), row.get("help", ""), row.get("unit", ""),
            bool(row.get("optional")), row.get("ge", row.get("gt")), row.get("le", row.get("lt")),
            tuple(row.get("choices") or ()),
        )
        for row in strategy.get("fields", [])
    ]  # fmt: skip


def field_table(strategy: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the fields of a strategy as rows for people."""
    return [
        {
            "field": field.key, "default": "automatic" if field.default is None else str(field.default),
            "unit": field.unit, "values": ", ".join(field.choices) or field.kind, "meaning": field.help,
        }
        for field in strategy_fields(strategy)
    ]  # fmt: skip


def _types(hint: Any) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of the plain types (`none` for an optional one, last) and the choices of a hint."""
    if typing.get_origin(hint) is typing.Literal:
        return ["str"], typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return _types(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        found = [_types(option) for option in typing.get_args(hint)]
        names = [name for option, _ in found for name in option]
        return sorted(names, key=lambda name: name == "NoneType"), found[0][1]
    return [getattr(hint, "__name__", "str")], ()


def _bounds(info: FieldInfo) -> tuple[float | None, float | None]:
    low = high = None
    for rule in info.metadata:
        low = getattr(rule, "ge", getattr(rule, "gt", None)) if low is None else low
        high = getattr(rule, "le", getattr(rule, "lt", None)) if high is None else high
    return low, high


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as the configuration holds them; None leaves a key out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value == "":
            continue
        *sections, last = key.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return found


def seeds(text: str) -> list[int]:
    """Return the seeds that a text such as `0`, `0-4` or `0..4` or `1, 5` names.

    Raises:
        ConfigError: when it names none, or more than `MAX_SEEDS`.
    """
    found: list[int] = []
    for part in text.replace("..", "-").replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or max(len(first), len(last)) > 9:
            raise ConfigError(f"seed {text[:40]!r}: write one number, a span such as 0-4, or a list such as 1, 5")
        span = range(int(first), int(last or first) + 1)
        if len(span) > MAX_SEEDS:
            raise ConfigError(f"seed {text[:40]!r}: names {len(span)} runs; start at most {MAX_SEEDS} at once")
        found += span
    if not 1 <= len(set(found)) <= MAX_SEEDS:
        raise ConfigError(f"seed {text[:40]!r}: names {len(set(found))} runs; start 1 to {MAX_SEEDS} at once")
    return sorted(set(found))


def data_key(source: str) -> str:
    """Say whether a data source is a file or folder of this machine, or a name."""
    local = source.startswith((".", "/", "~")) or source.lower().endswith((".csv", ".jsonl", ".json", ".parquet"))
    return "data.path" if local or Path(source).exists() else "data.name"


def command(config: Mapping[str, Any], runs_dir: str) -> str:
    """Return the command line that starts the same run."""
    parts = ["dynlora", "train"]
    for key, value in flat(config).items():
        text = value if isinstance(value, str) else json.dumps(value)
        parts += ["--name", text] if key == "name" else ["--set", f"{key}={text}"]
    return " ".join(shlex.quote(part) for part in [*parts, "--runs-dir", runs_dir])


def yaml_text(config: Mapping[str, Any]) -> str:
    """Return the configuration as a file that `dynlora train --config` reads."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def launch_key(token: str, config: Mapping[str, Any]) -> str:
    """Return the idempotency key of a configuration in a session: the same form starts one run."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
    return f"{token}-{digest[:20]}"
