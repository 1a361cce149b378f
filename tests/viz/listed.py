"""Rows of the list of runs as plain values, for the views that take hundreds of them."""

from __future__ import annotations

from typing import Any


def listed(  # noqa: PLR0913
    number: int,
    seed: int = 0,
    strategy: str = "dynamic",
    accuracy: float | None = 0.8,
    lr: float = 1e-3,
    rank: int = 4,
    data: str = "sst2",
    status: str = "finished",
    name: str | None = None,
    **method: Any,
) -> dict[str, Any]:
    """Return the row of a run."""
    config = {
        "name": name,
        "seed": seed,
        "model": {"name": "minilm"},
        "data": {"name": data, "path": None},
        "adapter": {"rank": rank, "alpha": None},
        "strategy": {"name": strategy, **method},
        "train": {"lr": lr, "steps": 40},
    }
    return {
        "id": f"20260101-000000-{number:08x}",
        "name": name or f"run {number}",
        "status": status,
        "strategy": strategy,
        "fidelity": "code",
        "model": "minilm",
        "data": data,
        "seed": seed,
        "step": 40,
        "max_steps": 40,
        "metric": "accuracy",
        "best": {"accuracy": accuracy},
        "metrics": {} if accuracy is None else {"accuracy": accuracy, "loss": 1 - accuracy},
        "params": {"budget": 1000 * rank, "active": 990 * rank, "gate": 4},
        "time": {"train_s": 10.0 + number},
        "config": config,
        "tags": [],
        "note": "",
    }


def swept_rows() -> list[dict[str, Any]]:
    """Return two strategies x three rates x two ranks x three seeds; 4e-3 is best, the first better by 0.02."""
    rows = []
    for number in range(36):
        strategy, lr = ("dynamic", "lora")[number // 18], (1e-3, 2e-3, 4e-3)[number // 6 % 3]
        rank, seed = (2, 4)[number // 3 % 2], number % 3
        accuracy = 0.7 + 20 * lr + 0.01 * seed + 0.005 * rank + (0.02 if number < 18 else 0)
        rows.append(listed(number, seed, strategy, accuracy, lr, rank))
    return rows
