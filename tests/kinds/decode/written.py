"""Decodes as the engine records them, made by the real writer with solutions that are easy to count by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynlora.store.writer import RunWriter

POINTS = (
    {"key": "threshold=0.5", "accept": "threshold", "value": 0.5},
    {"key": "threshold=0.9", "accept": "threshold", "value": 0.9},
    {"key": "constant=0.5", "accept": "constant", "value": 0.5},
    {"key": "draft", "accept": "draft", "value": None},
    {"key": "target", "accept": "target", "value": None},
)
RIGHT = {
    "threshold=0.5": (1, 1, 1, 0),
    "threshold=0.9": (1, 1, 1, 0),
    "constant=0.5": (1, 0, 0, 0),
    "draft": (0, 1, 0, 0),
    "target": (1, 1, 1, 0),
}
FLOPS = {"threshold=0.5": 60, "threshold=0.9": 80, "constant=0.5": 55, "draft": 40, "target": 100}


def solution(point: str, problem: int) -> dict[str, Any]:
    """Return a solution of two steps; with a rule the second step of an odd problem was rejected."""
    alone = point in ("draft", "target")
    rejected = not alone and problem % 2 == 1
    writer = "target" if point == "target" else "draft"
    first = {
        "by": writer,
        "text": f"{problem} + 1 = {problem + 1}\n",
        "ids": [1, 2],
        "reward": None if alone else 0.95,
        "accepted": None if alone else True,
        "discarded": None,
    }
    second = {**first, "text": f"#### {problem + 1}"}
    if rejected:
        gone = {"text": "#### 99", "ids": [3, 4, 5]}
        second |= {"by": "target", "reward": 0.2, "accepted": False, "discarded": gone}
    kept = 0 if point == "target" else 2 if rejected else 4
    return {
        "point": point,
        "problem": problem,
        "question": f"What is {problem} + 1?",
        "reference": str(problem + 1),
        "answer": str(problem + 1),
        "right": bool(RIGHT[point][problem]),
        "text": first["text"] + second["text"],
        "ended": "end",
        "steps": [first, second],
        "tokens": {"draft_kept": kept, "draft_discarded": 3 if rejected else 0, "target": 4 - kept},
        "prefilled": {"draft": 5, "target": 6, "reward": 7},
        "flops": FLOPS[point],
        "flops_with_prefill": FLOPS[point] + 50,
        "seconds": 0.5,
    }


def written_decode(
    runs_dir: Path,
    *,
    problems: int = 4,
    points: Sequence[dict[str, Any]] = POINTS,
    state: str | None = "finished",
    **meta: Any,
) -> Path:
    """Write a decode and return its folder; without a state it stays as if its process had been killed."""
    roles = {
        "draft": {"run": "d", "name": "small", "layers": 15},
        "target": {"run": "t", "name": "large"},
        "reward": {"kind": "oracle"},
    }
    plan = {"points": list(points), "roles": roles, "problems": problems, "step_string": "\n", "data": "arithmetic"}
    facts = {
        "kind": "decode",
        "name": "a decode",
        "strategy": "rsd",
        "fidelity": "code",
        "model": "smollm2-135m",
        "data": "arithmetic",
        "seed": 0,
        "config": {"seed": 0},
        "decode": plan,
    }
    keys = [str(point["key"]) for point in points]
    folder = RunWriter.create(
        runs_dir, config_yaml="kind: decode\n", meta={**facts, **meta}, max_steps=problems * len(keys)
    )
    with RunWriter.open(folder, resume_from=None) as writer:
        for step, (key, problem) in enumerate(((key, i) for key in keys for i in range(problems)), 1):
            writer.event(step, "problem", [], solution(key, problem))
            writer.progress(step)
        if state is not None:
            writer.finish(state)
    return folder
