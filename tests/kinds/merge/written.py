"""Merges as the engine records them, made by the real writer with numbers that are easy to check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter

SOURCES = [
    {"run": "s1", "name": "sums", "rank": 4, "strategy": "lora", "parameters": 60},
    {"run": "s2", "name": "tales", "rank": 2, "strategy": "dynamic", "parameters": 40},
]

PLAN: dict[str, Any] = {
    "method": "stack",
    "weights": [0.5, 0.5],
    "density": None,
    "sources": SOURCES,
    "budget": 60,
    "of": 100,
    "head": "none",
    "unit": "nats",
    "stages": [{"name": "modules", "first": 0, "last": 3}, {"name": "test", "first": 3, "last": 5}],
}

MERGED: dict[str, Any] = {
    "parameters": 50,
    "ranks": [
        {"module": "layers.0.q", "merge": 3, "sources": [4, 2]},
        {"module": "layers.0.v", "merge": 2, "sources": [2, 0]},
        {"module": "layers.1.q", "merge": 0, "sources": [0, 2]},
    ],
}


def interval(mean: float, reach: float = 0.01, n: int = 80) -> dict[str, float]:
    """Return a mean with its interval."""
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "texts": n, "tokens": 8 * n}


RESULTS: dict[str, Any] = {
    "method": "stack",
    "loss": {
        "s1": {"base": interval(3.0), "own": interval(2.0), "merge": interval(2.005)},
        "s2": {"base": interval(3.0), "own": interval(2.2), "merge": interval(2.5)},
    },
    "against_own": {"s1": {"merge": interval(0.005)}, "s2": {"merge": interval(0.3)}},
    "against_base": {"s1": {"merge": interval(-0.995)}, "s2": {"merge": interval(-0.5)}},
    "notes": ["the gates of source s2 count as their means in the merge"],
}


def written_merge(runs_dir: Path, *, state: str | None = "finished", until: int = 5, **meta: Any) -> Path:
    """Write a merge of three modules of two runs up to a step; without a state: killed."""
    facts = {
        "kind": "merge",
        "name": "a merge",
        "strategy": "merge_stack",
        "fidelity": "description",
        "model": "smollm2-135m",
        "data": "sums, tales",
        "seed": 0,
        "config": {"seed": 0},
        "merge": PLAN,
    }
    if state == "finished":
        facts["merge_results"] = RESULTS
    folder = RunWriter.create(runs_dir, config_yaml="kind: merge\n", meta={**facts, **meta}, max_steps=5)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.define_modules([ModuleRow(str(row["module"]), 0, "q", 8, 2, 6) for row in MERGED["ranks"]])
        for step in range(1, until + 1):
            if step == 3:
                writer.event(step, "merged", [], MERGED)
            writer.progress(step)
        if state is not None:
            writer.finish(state)
    return folder
