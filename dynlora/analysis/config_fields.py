"""Settings of a run: their labels and their dotted keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dynlora.text import source_name

LABELS = {
    "name": "run name",
    "model.name": "model",
    "model.layers": "blocks of the model",
    "model.dropout": "model dropout (probability)",
    "train.steps": "steps",
    "train.epochs": "epochs (instead of steps)",
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


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration with dotted keys."""
    settings: dict[str, Any] = {}
    for key, value in config.items():
        settings |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return settings


BEFORE = {"model.dtype": "fp32", "data.packing": False, "train.gradient_checkpointing": False}
"""What runs did before these settings were there."""


def set_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are set, by dotted key, so that runs of every version can be told alike.

    Left out is what is empty, and what runs did before a setting was there: an older run lacks its key.
    """
    return {key: value for key, value in flat(config).items() if value is not None and BEFORE.get(key) != value}


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
