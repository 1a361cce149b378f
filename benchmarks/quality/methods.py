"""What is compared: each method by name, with everything that tells it from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dynlora import strategies


@dataclass(frozen=True)
class Method:
    """One side of a comparison.

    Attributes:
        label: for tables.
        engine: dynlora (our one training loop) or peft (PEFT in a plain loop).
        strategy: name of our strategy, or lora or adalora of PEFT.
        fields: the strategy's hyper-parameters that differ from the defaults.
        rates_of: the method whose chosen learning rate is used, instead of a grid of its own.
    """

    label: str
    engine: str = "dynlora"
    strategy: str = "dynamic"
    fields: Mapping[str, Any] = field(default_factory=dict)
    rates_of: str | None = None


GRIDS = {1: (2e-3, 4e-3, 8e-3), 2: (1e-3, 2e-3, 4e-3), 4: (1e-3, 2e-3, 4e-3)}
"""Learning rates that methods choose from on the tuning rows, by rank of the budget; `tune` continues past an edge."""

REPORTING_SEEDS = 100
"""Seeds of reported runs start here; everything before was used to choose."""

RATIO = 4.0
"""Rate of B over that of A in `lora-ratio`, as in LoRA+."""

ENDINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "-no-floor": ("minimum rank 0", {"min_rank": 0}),
}
"""Endings of a method's name: the same method, but for what the label and the fields say."""

TUNED = "dynamic-no-floor"
"""What chose the rates of `dynamic`: it was tuned before `min_rank=1` became its default."""

METHODS = {
    "lora": Method("LoRA", strategy="lora"),
    "lora-ratio": Method("LoRA, B at 4 × the learning rate", strategy="lora", fields={"lr_ratio": RATIO}),
    "peft-lora": Method("PEFT LoRA", engine="peft", strategy="lora"),
    "peft-adalora": Method("PEFT AdaLoRA", engine="peft", strategy="adalora"),
    "dynamic": Method("dynamic", rates_of=TUNED),
    "random": Method("dynamic, random reallocation", fields={"allocation": "random"}, rates_of=TUNED),
    "dynamic-no-gates": Method("dynamic without gates", fields={"gates": "off"}, rates_of=TUNED),
}
"""Every method that a run can name; further parts of `dynamic` ran before December 2026."""

CORE = ("lora", "lora-ratio", "peft-lora", "peft-adalora", "dynamic", "random")
"""The core comparison."""


def method_of(name: str) -> Method:
    """Return a method by name: one of `METHODS`, one with `ENDINGS` after it, or a strategy at its defaults.

    Raises:
        UnknownStrategyError: when it is neither.
    """
    if name in METHODS:
        return METHODS[name]
    for ending, (label, fields) in ENDINGS.items():
        if name.endswith(ending):
            base = name.removesuffix(ending)
            method = method_of(base)
            rates = None if name == TUNED else TUNED if base == TUNED else method.rates_of
            return replace(method, label=f"{method.label}, {label}", fields={**method.fields, **fields}, rates_of=rates)
    return Method(strategies.strategy_class(name).title or name, strategy=name)


def rates_source(method: str) -> str:
    """Return the method whose grid decides the rate of this one."""
    return method_of(method).rates_of or method
