"""The variants of `dynamic` that are compared where placement is the question, and their controls."""

from __future__ import annotations

from typing import Any

FREE: dict[str, Any] = {"name": "dynamic", "min_rank": 0, "gates": "off"}

ALLOCATORS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora"},
    "dynamic": FREE,
    "dynamic, gates": {**FREE, "gates": "module"},
    "gates only": {"name": "dynamic", "allocation": "none", "gates": "module"},
    "dynamic, random": {**FREE, "allocation": "random"},
    "dynamic, spectral": {**FREE, "rank_by": "spectral"},
    "dynamic, family": {**FREE, "rank_by": "family"},
    "dynamic, first only": {**FREE, "moves": 0},
    "dynamic, family, first only": {**FREE, "rank_by": "family", "moves": 0},
    "dynamic, random, first only": {**FREE, "moves": 0, "allocation": "random"},
}
"""`min_rank` is 0 here at every rank, as it is by default at rank 1.

The random control drops components that have learned at every reallocation; after the first only, placements compare.
"""

RATE_OF = {"dynamic, family, first only": "dynamic, family"}
"""Controls, and the method whose learning rate they take; other parts of `dynamic` take that of `dynamic`."""

OWN_RATE = (
    "lora",
    "dynamic",
    "dynamic, gates",
    "gates only",
    "dynamic, family",
    "dynamic, spectral",
    "dynamic, random, first only",
)


def tuned_as(method: str) -> str:
    """Return the method whose tuned learning rate a method takes."""
    return method if method in OWN_RATE else RATE_OF.get(method, "dynamic")
