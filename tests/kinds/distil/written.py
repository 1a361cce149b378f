"""Distillations as the engine records them, made by the real writer with numbers that are easy to check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.store.writer import RunWriter

TEACHERS = [
    {"run": "t1", "name": "sums", "classes": [], "rank": 4, "strategy": "lora"},
    {"run": "t2", "name": "tales", "classes": [], "rank": 8, "strategy": "dynamic"},
]


PLAN: dict[str, Any] = {
    "teachers": TEACHERS,
    "samples": 10,
    "held_out": 10,
    "tokens": 12,
    "train_steps": 4,
    "rank": 8,
    "start": "its token for the beginning of a text",
    "stages": [
        {"name": "samples", "first": 0, "last": 2},
        {"name": "held_out", "first": 2, "last": 4},
        {"name": "student", "first": 4, "last": 8},
    ],
}


def interval(mean: float, reach: float = 0.01, texts: int = 10) -> dict[str, float]:
    """Return a mean with its interval."""
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "texts": texts, "tokens": 100}


def by_teacher(mean: float) -> dict[str, dict[str, float]]:
    """Return a mean of all teachers and of each."""
    return {"all": interval(mean, texts=20), "t1": interval(mean - 0.02), "t2": interval(mean + 0.02)}


RESULTS: dict[str, Any] = {
    "method": "data_free_distillation",
    "kl": {"base": by_teacher(0.4), "student": by_teacher(0.1), "averaged": by_teacher(0.2)},
    "kl_against_base": {"student": by_teacher(-0.3), "averaged": by_teacher(-0.2)},
    "kl_against_average": {"student": by_teacher(-0.1)},
    "loss": {"t1": {"base": interval(3.0), "student": interval(2.5), "t1": interval(2.0), "t2": interval(3.1)}},
    "loss_against_base": {"t1": {"student": interval(-0.5), "t1": interval(-1.0)}},
    "methods": {"base": "base model", "student": "student", "averaged": "average of the teachers' adapters"},
    "texts": [
        {
            "teacher": run,
            "stage": stage,
            "texts": 10,
            "tokens": 60,
            "ended": 4,
            "empty": int(run == "t2"),
            "repeated": 0,
            "digest": "ab" * 32,
        }
        for stage in ("samples", "held_out")
        for run in ("t1", "t2")
    ],
    "notes": ["of 10 texts of teacher t2 (samples), 1 are empty and 0 repeat another"],
}


def written_distil(runs_dir: Path, *, state: str | None = "finished", until: int = 8, **meta: Any) -> Path:
    """Write a distillation of 4 steps of texts and 4 of the student up to a step; without a state: killed."""
    facts = {
        "kind": "distil",
        "name": "a student",
        "strategy": "data_free_distillation",
        "fidelity": "description",
        "model": "smollm2-135m",
        "data": "sums, tales",
        "seed": 0,
        "config": {"seed": 0},
        "distil": PLAN,
        "estimate": {"minutes": 2.0},
    }
    if state == "finished":
        facts["distil_results"] = RESULTS
    folder = RunWriter.create(runs_dir, config_yaml="kind: distil\n", meta={**facts, **meta}, max_steps=8)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.define_groups([str(one["name"]) for one in TEACHERS])
        for step in range(1, until + 1):
            _step(writer, step)
        if state is not None:
            writer.finish(state)
    return folder


def _step(writer: RunWriter, step: int) -> None:
    if step <= 4:
        stage, teacher = ("samples", "held_out")[step > 2], (step - 1) % 2
        texts = [{"text": f"<b>text</b> {step}", "tokens": 6, "ended": True}, {"text": "", "tokens": 1, "ended": True}]
        writer.scalar("text_tokens", stage, step, 6.0)
        writer.event(step, "texts", [], {"teacher": teacher, "stage": stage, "of": 10, "wanted": 10, "texts": texts})
    else:
        writer.scalar("kl", "student", step, 1.0 / step)
    writer.progress(step)
