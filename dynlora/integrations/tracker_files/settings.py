"""The configuration that says of an imported run what its own settings say, as far as they are understood."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynlora.config import RunConfig, config_keys, parse_config
from dynlora.config_files import parse_value, set_key
from dynlora.errors import ConfigError
from dynlora.integrations.tracker_files.tracker_run import TITLE, TrackerRun
from dynlora.integrations.trackers.base import IMPORTANCE, RANK

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
