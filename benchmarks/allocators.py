"""The variants of `dynamic` that are compared where placement is the question, and their controls."""

from __future__ import annotations

from typing import Any

RANDOM_RANKS = "random ranks"
"""Key of a side whose ranks are drawn once for each seed, before its first step, at the parameters of uniform rank."""

FROZEN_SCALES = "frozen scales"
"""Key of a side whose scales are those that `lora, scale` learned with the same seed, and stay.

`learned`: where they were learned; `mean`: their mean everywhere; `shuffled`: dealt out to other modules.
"""

SCALING = "alpha / r"
"""Key of a side whose scaling is another than 2, that of all others."""

HEAD_RATE = "head_lr"
"""Key of a side whose head has a learning rate of its own; elsewhere it is that of the adapters."""

RATE = "lr"
"""Key of a side whose learning rate is given with it; elsewhere it is tuned, or that of `--rates`."""

FREE: dict[str, Any] = {"name": "dynamic", "min_rank": 0, "gates": "off", "explore": 1.0}
"""`dynamic` within the budget: what all sides but the wide ones are."""

WIDE: dict[str, Any] = {**FREE, "explore": 8.0}

GATES: dict[str, Any] = {**FREE, "gates": "module", "scale_lr_ratio": 1.0}
"""Input gates at the rate of A, which was the default when most figures were measured."""

GATES_AT_10: dict[str, Any] = {**FREE, "gates": "module", "scale_lr_ratio": 10.0}

FROZEN: dict[str, Any] = {"name": "lora", "scale": "learned", "scale_lr_ratio": 0.0}

ALLOCATORS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora"},
    "lora, scale": {"name": "lora", "scale": "learned"},
    "lora, scale at 0": {"name": "lora", "scale": "learned", "scale_lr_ratio": 0.0},
    "lora, scale at 0.1": {"name": "lora", "scale": "learned", "scale_lr_ratio": 0.1},
    "lora, scale at 10": {"name": "lora", "scale": "learned", "scale_lr_ratio": 10.0},
    "lora, learned scale frozen": {**FROZEN, FROZEN_SCALES: "learned"},
    "lora, mean scale frozen": {**FROZEN, FROZEN_SCALES: "mean"},
    "lora, shuffled scale frozen": {**FROZEN, FROZEN_SCALES: "shuffled"},
    "lora, scaling 1": {"name": "lora", SCALING: 1.0},
    "lora, scaling 0.5": {"name": "lora", SCALING: 0.5},
    "lora, scaling 0.25": {"name": "lora", SCALING: 0.25},
    "lora, at 0.004": {"name": "lora", RATE: 0.004},
    "lora, fast head": {"name": "lora", HEAD_RATE: 0.0175},
    "lora, plus, fast head": {"name": "lora", "lr_ratio": 16.0, HEAD_RATE: 0.0175},
    "random ranks, fast head": {"name": "lora", RANDOM_RANKS: True, HEAD_RATE: 0.0175},
    "lora, head at 0.005": {"name": "lora", HEAD_RATE: 0.005},
    "lora, head at 0.01": {"name": "lora", HEAD_RATE: 0.01},
    "lora, head at 0.04": {"name": "lora", HEAD_RATE: 0.04},
    "lora, head at 0.1": {"name": "lora", HEAD_RATE: 0.1},
    "lora, 0.0025, head at 0.01": {"name": "lora", RATE: 0.0025, HEAD_RATE: 0.01},
    "lora, 0.0025, head at 0.04": {"name": "lora", RATE: 0.0025, HEAD_RATE: 0.04},
    "lora, scale, head at 0.01": {"name": "lora", "scale": "learned", HEAD_RATE: 0.01},
    "lora, scale, head at 0.04": {"name": "lora", "scale": "learned", HEAD_RATE: 0.04},
    "random ranks, head at 0.04": {"name": "lora", RANDOM_RANKS: True, HEAD_RATE: 0.04},
    "random ranks, scale, head at 0.04": {"name": "lora", "scale": "learned", RANDOM_RANKS: True, HEAD_RATE: 0.04},
    "lora, scaling 0.25, slow head": {"name": "lora", SCALING: 0.25, HEAD_RATE: 0.004},
    "random ranks": {"name": "lora", RANDOM_RANKS: True},
    "dynamic": FREE,
    "dynamic, scale": {**FREE, "gates": "scale"},
    "dynamic, scale at 10": {**FREE, "gates": "scale", "scale_lr_ratio": 10.0},
    "dynamic, fast head": {**FREE, HEAD_RATE: 0.0175},
    "dynamic, scale, fast head": {**FREE, "gates": "scale", HEAD_RATE: 0.0175},
    "dynamic, head at 0.04": {**FREE, HEAD_RATE: 0.04},
    "dynamic, scale, head at 0.01": {**FREE, "gates": "scale", HEAD_RATE: 0.01},
    "dynamic, scale, head at 0.04": {**FREE, "gates": "scale", HEAD_RATE: 0.04},
    "dynamic, gates, head at 0.01": {**GATES, HEAD_RATE: 0.01},
    "dynamic, gates, head at 0.04": {**GATES, HEAD_RATE: 0.04},
    "dynamic, token, head at 0.04": {**GATES, "gates": "token", HEAD_RATE: 0.04},
    "dynamic, gates at 10, head at 0.01": {**GATES_AT_10, HEAD_RATE: 0.01},
    "dynamic, scaling 1": {**FREE, SCALING: 1.0},
    "dynamic, scaling 0.5": {**FREE, SCALING: 0.5},
    "dynamic, gates": GATES,
    "dynamic, gates at 10": GATES_AT_10,
    "dynamic, token at 10": {**FREE, "gates": "token", "scale_lr_ratio": 10.0},
    "gates only": {"name": "dynamic", "allocation": "none", "gates": "module", "scale_lr_ratio": 1.0},
    "dynamic, random": {**FREE, "allocation": "random"},
    "dynamic, wide, head at 0.01": {**WIDE, HEAD_RATE: 0.01},
    "dynamic, wide, fast head": {**WIDE, HEAD_RATE: 0.0175},
    "dynamic, wide, random, fast head": {**WIDE, "allocation": "random", HEAD_RATE: 0.0175},
    "dynamic, wide, head at 0.04": {**WIDE, HEAD_RATE: 0.04},
    "dynamic, its defaults, head at 0.04": {"name": "dynamic", HEAD_RATE: 0.04},
    "dynamic, wide": WIDE,
    "dynamic, random, first only": {**FREE, "moves": 0, "allocation": "random"},
}
"""`min_rank` is 0 here at every rank, as it is by default at rank 1.

Random ranks with a scale have the scales' parameters beyond those of uniform rank, one for each module. The control
`allocation=random` drops components that have learned at every reallocation; after the first only, placements compare.
"""

WHY = tuple(name for name, values in ALLOCATORS.items() if values["name"] == "lora" and "scale_lr_ratio" in values)
"""Sides that ask why a scale gains; they train at the rate of `lora, scale` where `OWN_RATE` names them not."""

RATE_OF = {
    "dynamic, random": "dynamic",
    "lora, scaling 0.25, slow head": "lora, scaling 0.25",
    "lora, head at 0.005": "lora, fast head",
    "lora, head at 0.1": "lora, fast head",
    "random ranks, fast head": "lora, fast head",
    "random ranks, head at 0.04": "lora, head at 0.04",
    "random ranks, scale, head at 0.04": "lora, scale, head at 0.04",
    "dynamic, head at 0.04": "dynamic, scale, head at 0.04",
    "dynamic, fast head": "dynamic, scale, fast head",
    **dict.fromkeys(WHY, "lora, scale"),
}
"""Controls and parts, and the method whose learning rate they take."""

OWN_RATE = (
    "lora",
    "lora, scale",
    "lora, scale at 10",
    "lora, scaling 1",
    "lora, scaling 0.5",
    "lora, scaling 0.25",
    "lora, fast head",
    "lora, head at 0.01",
    "lora, head at 0.04",
    "lora, scale, head at 0.01",
    "lora, scale, head at 0.04",
    "lora, plus, fast head",
    "random ranks",
    "dynamic, scale",
    "dynamic, scale at 10",
    "dynamic, scale, fast head",
    "dynamic, scale, head at 0.01",
    "dynamic, scale, head at 0.04",
    "dynamic, gates, head at 0.01",
    "dynamic, gates, head at 0.04",
    "dynamic, token, head at 0.04",
    "dynamic, scaling 1",
    "dynamic, scaling 0.5",
    "dynamic",
    "dynamic, gates",
    "dynamic, gates at 10",
    "dynamic, gates at 10, head at 0.01",
    "dynamic, token at 10",
    "gates only",
    "dynamic, wide, head at 0.01",
    "dynamic, wide, fast head",
    "dynamic, wide, random, fast head",
    "dynamic, wide, head at 0.04",
    "dynamic, its defaults, head at 0.04",
    "dynamic, wide",
    "dynamic, random, first only",
)


def tuned_as(method: str) -> str:
    """Return the method whose tuned learning rate a method takes.

    Raises:
        KeyError: where neither `OWN_RATE` nor `RATE_OF` has the method.
    """
    return method if method in OWN_RATE else RATE_OF[method]


def parts_of(method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a method, and what a benchmark sets itself: ranks, scales, alpha, rates."""
    values = dict(ALLOCATORS[method])
    own = (RANDOM_RANKS, FROZEN_SCALES, SCALING, HEAD_RATE, RATE)
    return values, {key: values.pop(key) for key in own if key in values}
