"""What was found, as means with intervals and paired differences; written and printed."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.distil.setting import AGAINST, TAUGHT
from benchmarks.distil.work import Work
from dynlora.analysis.stats import per_token


def summary(work: Work) -> dict[str, Any]:
    """Return means with intervals, and the student's paired differences, by task; texts, and two of each teacher."""
    loss = {name: work.figures["loss"][str(index)] for index, name in enumerate(TAUGHT)}
    kl = {name: {model: of[index] for model, of in work.figures["kl"].items()} for index, name in enumerate(TAUGHT)}
    every = {
        model: [np.concatenate(part).tolist() for part in zip(*of, strict=True)]
        for model, of in work.figures["kl"].items()
    }
    distilling = work.distilling
    return {
        "setting": vars(work.setting),
        "data": TAUGHT,
        "loss": {name: table(of) for name, of in loss.items()},
        "kl": {"all": table(every)} | {name: table(of) for name, of in kl.items()},
        "texts": [
            {key: one[key] for key in ("name", "stage", "texts", "mean_tokens", "ended", "empty", "repeated")}
            for one in distilling.described_texts()
        ],
        "examples": {
            name: [distilling._shown(texts, row)["text"] for row in range(4)]
            for name, texts in zip(TAUGHT, distilling.texts["samples"], strict=True)
        },
        "start": distilling.materials.start.what,
        "last_loss": work.figures.get("last_loss", {}),
        "cpu_seconds": work.figures["seconds"],
    }


def table(by_model: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Return nats per token of each model, and what the student has more than others."""
    of = {model: (np.array(sums), np.array(counts)) for model, (sums, counts) in by_model.items()}
    rows: dict[str, Any] = {model: three(*one) for model, one in of.items()}
    if "student" in of:
        sums, counts = of["student"]
        rows["student against"] = {
            other: three(sums - of[other][0], counts) for other in (*AGAINST, *TAUGHT) if other in of
        }
    return rows


def three(sums: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return mean and ends of the 95 % interval, nats per token."""
    estimate = per_token(sums, counts)
    return [estimate["mean"], estimate["low"], estimate["high"]]


def report(figures: dict[str, Any]) -> None:
    """Print the tables."""
    for what in ("loss", "kl"):
        for task, rows in figures[what].items():
            print(f"\n{what} in nats per token, {task}")
            against = rows.get("student against", {})
            for model, row in rows.items():
                if model != "student against":
                    difference = f"   student {_signed(against[model])}" if model in against else ""
                    print(f"  {model:12} {row[0]:.3f} ({row[1]:.3f} to {row[2]:.3f}){difference}")


def _signed(row: list[float]) -> str:
    return f"{row[0]:+.3f} ({row[1]:+.3f} to {row[2]:+.3f})"
