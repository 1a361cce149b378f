"""What the names of a tracker's series mean: a split and a metric, or the rank or importance of a module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dynlora.integrations.trackers.base import IMPORTANCE, RANK

SPLITS = {
    "train": "train", "training": "train", "eval": "validation", "evaluation": "validation", "val": "validation",
    "valid": "validation", "validation": "validation", "dev": "validation", "test": "validation",
}  # fmt: skip
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
    found = _OF_MODULES.match(name)
    word, module = (found[1], found[2]) if found else ("", "")
    if not found and (found := _MODULES_OWN.match(name)):
        word, module = found[2], found[1]
    signal = IMPORTANCE if word.lower() == IMPORTANCE else RANK
    return signal, _OF_PEFT.sub("", _OF_PEFT.sub("", module)).strip("./")


def _scalar_of(name: str) -> tuple[str, str]:
    """Return (metric, split) of a name; without a known first part it is a number of training."""
    found = _SPLIT.match(name)
    split, metric = (SPLITS[found[1].lower()], found[2]) if found else ("train", name)
    return METRICS.get(metric, metric), split
