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
        budget: share of the compared budget.
        steps: share of the compared steps; schedules shrink along.
        rates_of: the method whose chosen learning rate is used, instead of a grid of its own.
        targets: endings of the adapted modules' names that the model may have; None adapts every module of the blocks.
    """

    label: str
    engine: str = "dynlora"
    strategy: str = "dynamic"
    fields: Mapping[str, Any] = field(default_factory=dict)
    budget: float = 1.0
    steps: float = 1.0
    rates_of: str | None = None
    targets: tuple[str, ...] | None = None


GRIDS = {1: (2e-3, 4e-3, 8e-3), 2: (1e-3, 2e-3, 4e-3), 4: (1e-3, 2e-3, 4e-3)}
"""Learning rates that methods choose from on the tuning rows, by rank of the budget; `tune` continues past an edge."""

REPORTING_SEEDS = 100
"""Seeds of reported runs start here; everything before was used to choose."""

RATIO = 4.0
"""Rate of B over that of A in `lora-ratio`, as in LoRA+."""

ENDINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "-by-layer": ("gains compared within layers", {"rank_by": "layer"}),
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
    "dynamic-token-gates": Method("dynamic, one gate per token", fields={"gates": "token"}, rates_of=TUNED),
    "dynamic-rank-gates": Method("dynamic, one gate per component", fields={"gates": "rank"}, rates_of=TUNED),
    "dynamic-signal": Method("dynamic, signed importance", fields={"score": "signed"}, rates_of=TUNED),
    "dynamic-uncertain": Method("dynamic, importance × uncertainty", fields={"score": "uncertainty"}, rates_of=TUNED),
    "dynamic-magnitude": Method("dynamic, importance by norms", fields={"score": "magnitude"}, rates_of=TUNED),
    "dynamic-probe": Method("dynamic, growth by probe components", fields={"growth": "probe"}, rates_of=TUNED),
    "dynamic-gradient": Method("dynamic, growth by the gradients", fields={"growth": "gradient"}, rates_of=TUNED),
    "dynamic-softmax": Method("dynamic, toward softmax ranks", fields={"solver": "softmax"}, rates_of=TUNED),
    "dynamic-stabilized": Method("dynamic, rank-stabilized scaling", fields={"scaling": "rank_stabilized"}),
    "dynamic-ratio": Method(
        "dynamic, B at 4 × the learning rate, with back-off", fields={"lr_ratio": RATIO, "lr_backoff": 0.3}
    ),
    "dynamic-no-moves": Method("dynamic without reallocation", fields={"allocation": "none"}, rates_of=TUNED),
    "dynamic-commit-only": Method("dynamic, one-shot reallocation only", fields={"moves": 0}, rates_of=TUNED),
    "random-commit-only": Method(
        "dynamic, one-shot reallocation only, at random", fields={"allocation": "random", "moves": 0}, rates_of=TUNED
    ),
    "dynamic-no-commit": Method("dynamic, saliency swaps only", fields={"one_shot": False}, rates_of=TUNED),
    "dynamic-bounded": Method(  # halves around a budget of rank 4
        "dynamic, ranks 2 to 6", fields={"min_rank": 2, "growth_limit": 1.5}, rates_of=TUNED
    ),
    "dynamic-along": Method(
        "dynamic, new rows along the gradient", fields={"new_row_init": "gradient"}, rates_of=TUNED
    ),
    "dynamic-scalar": Method("dynamic, scalar weights", fields={"allocation": "scalar"}, rates_of=TUNED),
    "dynamic-eva": Method("dynamic, start along the inputs", fields={"init": "eva"}),
    "dynamic-ga": Method("dynamic, start along the gradients", fields={"init": "lora_ga"}),
    "dynamic-early": Method(
        "dynamic, initial ranks from gradients instead of one-shot",
        fields={"initial_ranks": "gradients", "one_shot": False},
        rates_of=TUNED,
    ),
    "dynamic-early-inputs": Method(
        "dynamic, initial ranks from inputs instead of one-shot",
        fields={"initial_ranks": "inputs", "one_shot": False},
        rates_of=TUNED,
    ),
    "lora-eva": Method("LoRA, start along the inputs", strategy="lora", fields={"init": "eva"}),
    "lora-ga": Method("LoRA, start along the gradients", strategy="lora", fields={"init": "lora_ga"}),
    "dynamic-half-steps": Method("dynamic, half the steps", steps=0.5, rates_of=TUNED),
    "dynamic-half-budget": Method("dynamic, half the parameters", fields={"budget_share": 0.5}, rates_of=TUNED),
    "dynamic-quarter": Method("dynamic, a quarter of the parameters", fields={"budget_share": 0.25}),
    "random-quarter": Method(
        "the same, at random", fields={"budget_share": 0.25, "allocation": "random"}, rates_of="dynamic-quarter"
    ),
    "lora-qv": Method("LoRA on query and value", strategy="lora", targets=("query", "value", "q_proj", "v_proj")),
}
"""Every method that a run can name; some ran while more of `dynamic` was a setting, and their results keep the name."""

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
