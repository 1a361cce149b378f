"""What a check says of a run, as `dynlora preflight --json` prints it: real in shape, and hostile on demand."""

from __future__ import annotations

from typing import Any


def preflight_document(text: str = "a fine film", events: list[int] | None = None, steps: int = 80) -> dict[str, Any]:
    moves = [17, 24, 31, 38, 45, 52, 59] if events is None else events
    kinds = (("attention.self.query", 6, 384, 384), ("output.dense", 6, 1536, 384))
    return {
        "params": {"budget": 64_512, "active": 64_000, "allocated": 130_000, "gate": 108, "head": 770, "frozen": 22e6},
        "kinds": [
            {
                "kind": kind,
                "modules": n,
                "d_in": wide,
                "d_out": out,
                "active": 4 * n * (wide + out),
                "allocated": 8 * n * (wide + out),
            }
            for kind, n, wide, out in kinds
        ],
        "modules": 12,
        "tokens": {
            "train": {"rows": 2000, "mean": 24.9, "max": 48, "limit": 48, "cut_share": 0.032},
            "held_out": {"rows": 200, "mean": 25.0, "max": 48, "limit": 48, "cut_share": 0.03},
        },
        "memory_mib": {
            "total": 219.0,
            "weights": 87.9,
            "gradients_and_moments": 3.8,
            "activations": 128.0,
            "estimate": "weights; ...",
        },
        "time": {"step_s": 1.4, "evaluation_s": 4.46, "total_minutes": 2.5},
        "schedule": {
            "steps": steps,
            "epochs": 0.64,
            "warmup_steps": 5,
            "shape": "linear",
            "events": moves,
            "evaluations": list(range(0, steps + 1, 10)),
            "checkpoint_every": 8,
        },
        "precision": "fp32",
        "device": "cpu",
        "task": "classification",
        "labels": [text[:40], "positive"],
        "metric": "accuracy",
        "data": "sentiment4",
        "preview": [
            {
                "row": 1,
                "text": text,
                "text_pair": None,
                "label": text[:40],
                "group": "tweets",
                "tokens": ["[CLS]", *text.split(), "[SEP]"],
                "cut": False,
            },
            {
                "row": 1714,
                "text": "no",
                "text_pair": None,
                "label": "positive",
                "group": "nyt",
                "tokens": ["[CLS]", "no", "[SEP]"],
                "cut": True,
            },
        ],
        "warnings": [f"The run sees 64% of the training rows; {text}"],
    }
