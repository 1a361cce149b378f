"""Settings of a run: their labels and their dotted keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

LABELS = {
    "name": "name of the run", "model.name": "model", "model.dropout": "model dropout, probability",
    "train.steps": "steps", "train.epochs": "epochs, instead of steps", "adapter.rank": "rank, components",
    "adapter.alpha": "alpha, scaling is alpha / rank", "adapter.targets": "modules to adapt",
    "train.lr": "learning rate", "train.head_lr": "learning rate of the head", "train.batch_size": "batch, examples",
    "train.weight_decay": "weight decay, per step", "train.max_grad_norm": "clip the gradient's norm at",
    "train.grad_accum": "batches a step", "train.precision": "precision of numbers",
    "data.max_length": "longest text, tokens", "data.max_eval": "held-out rows, at most",
    "data.max_train": "training rows, at most", "data.eval_fraction": "held out where nothing is, share of rows",
    "data.task": "task", "data.metric": "metric that decides", "data.group_by": "input groups by",
    "data.train_groups": "groups to train on",
    "data.text": "column of the text", "data.text_pair": "column of the second text",
    "data.label": "column of the label", "adapter.dropout": "adapter dropout, probability",
    "train.warmup": "warm-up, share of steps", "train.schedule": "learning rate falls",
    "log.eval_every": "evaluate every, steps", "log.checkpoint_every": "checkpoint every, steps",
    "log.every": "gradient norms every, steps",
}  # fmt: skip
"""What people call the configuration's fields, with the unit, where the key alone does not say it."""


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
