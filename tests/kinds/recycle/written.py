"""Recycles as the engine records them, made by the real writer with numbers that are easy to check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.store.writer import RunWriter

TEACHERS = [
    {"run": "t1", "name": "films", "classes": ["good", "bad"], "rank": 4, "strategy": "lora"},
    {"run": "t2", "name": "shops", "classes": ["happy", "angry"], "rank": 8, "strategy": "dynamic"},
]
CLASSES = ["films / good", "films / bad", "shops / happy", "shops / angry"]


def interval(mean: float, reach: float = 0.01) -> dict[str, float]:
    """Return a mean with its interval."""
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


RESULTS = {
    "accuracy": {
        "base": {"1": interval(0.7), "5": interval(0.8)},
        "meta": {"1": interval(0.75), "5": interval(0.8)},
        "noise": {"1": interval(0.6), "5": interval(0.7)},
    },
    "against_base": {"meta": {"1": interval(0.05), "5": interval(0.0)}, "noise": {"1": interval(-0.1)}},
    "methods": {"base": "prototypes of the base model", "meta": "meta-LoRA"},
    "test": {"source": "new.csv", "classes": 6, "texts": 60, "episodes": {"1": 200, "5": 200}, "is_new": True},
    "notes": [],
}


def written_recycle(runs_dir: Path, *, state: str | None = "finished", until: int = 8, **meta: Any) -> Path:
    """Write a recycle of 4 iterations and 4 episodes up to a step, and return its folder; without a state: killed."""
    stages = [{"name": "inversion", "first": 0, "last": 4}, {"name": "episodes", "first": 5, "last": 8}]
    plan = {
        "teachers": TEACHERS,
        "ways": 3,
        "shots": [1, 5],
        "queries": 2,
        "episodes": 4,
        "iterations": 4,
        "tokens": 6,
        "stages": stages,
    }
    facts = {
        "kind": "recycle",
        "name": "a recycle",
        "strategy": "lora_recycle",
        "fidelity": "code",
        "model": "minilm",
        "data": "films, shops",
        "seed": 0,
        "config": {"seed": 0},
        "recycle": plan,
        "estimate": {"minutes": 2.0},
    }
    if state == "finished":
        places = [
            {"teacher": name.split(" / ")[0], "class": name.split(" / ")[1], "x": x, "y": -x}
            for x, name in enumerate(CLASSES)
        ]
        facts |= {"recycle_results": RESULTS, "prototypes": places}
    folder = RunWriter.create(runs_dir, config_yaml="kind: recycle\n", meta={**facts, **meta}, max_steps=8)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.define_groups(CLASSES)
        writer.define_signal("class_agreement", "group", "fraction", len(CLASSES))
        writer.define_signal("tokens_kept", "group", "tokens", len(CLASSES))
        for step in range(1, until + 1):
            _step(writer, step)
        if state is not None:
            writer.finish(state)
    return folder


def _step(writer: RunWriter, step: int) -> None:
    if step <= 4:
        writer.scalar("inversion_loss", "inversion", step, 1.0 / step)
        writer.scalar("agreement", "inversion", step, step / 4)
        writer.vector("class_agreement", step, [step / 4, step / 4, step / 8, 1.0])
        writer.vector("tokens_kept", step, [6.0 if step < 2 else 3.0] * len(CLASSES))
        words = [["fine", "<b>film</b>"], ["great"]]
        writer.event(step, "words", [], {"group": step - 1, "words": words, "agreement": step / 4})
    else:
        writer.scalar("episode_loss", "meta", step, 1.0)
        writer.scalar("episode_accuracy", "meta", step, 0.5 + step / 16)
    writer.progress(step)
