"""Runs of any size in the real format, written through the store's own writer: for benchmarks of pages and store."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter

KINDS = (
    ("attention.self.query", 384, 384),
    ("attention.self.key", 384, 384),
    ("attention.self.value", 384, 384),
    ("attention.output.dense", 384, 384),
    ("intermediate.dense", 384, 1536),
    ("output.dense", 1536, 384),
    ("crossattention.self.query", 384, 384),
    ("crossattention.self.value", 384, 384),
)
RANK = 8
EVENTS = 40
"""Reallocations of a run, as a schedule plans them."""

EVALUATIONS = 40
GROUPS = ("short", "long")


def start_run(runs_dir: Path, steps: int, modules: int, name: str, kinds: int = 6) -> RunWriter:
    """Make a run of so many steps and modules, recorded up to its last step, and return its open writer."""
    config = {"name": name, "seed": 0, "adapter": {"rank": RANK}, "train": {"steps": steps}}
    budget = sum(RANK * sum(KINDS[module % kinds][1:]) for module in range(modules))
    meta = {
        "name": name,
        "strategy": "dynamic",
        "model": "minilm",
        "data": "sentiment4",
        "seed": 0,
        "config": config,
        "fidelity": "reconstruction",
        "metric": "accuracy",
        "labels": ["negative", "positive"],
        "params": {"budget": budget, "active": budget, "allocated": 2 * budget, "gate": 0, "head": 770},
        "time": {"train_s": steps / 10, "step_ms_median": 100.0, "strategy_ms_median": 0.1},
    }
    folder = RunWriter.create(runs_dir, config_yaml="seed: 0\n", meta=meta, max_steps=2 * steps, state="running")
    writer = RunWriter.open(folder, resume_from=None)
    rows = [
        ModuleRow(f"encoder.layer.{i // kinds}.{KINDS[i % kinds][0]}", i // kinds, *KINDS[i % kinds], 2 * RANK)
        for i in range(modules)
    ]
    writer.define_modules(rows)
    writer.define_groups(GROUPS)
    for signal in ("rank", "importance", "grad_norm"):
        writer.define_signal(signal, "module", "components" if signal == "rank" else "", modules)
    ranks = np.full(modules, float(RANK), dtype=np.float32)
    for step in range(steps + 1):
        record(writer, step, steps, ranks)
    writer.commit()
    return writer


def record(writer: RunWriter, step: int, steps: int, ranks: np.ndarray) -> None:
    """Record one step; at a reallocation `ranks` changes, one component from a module to its neighbour."""
    modules, draw = len(ranks), np.random.default_rng(step)
    if step and step % max(1, steps // EVENTS) == 0:
        _reallocate(writer, step, ranks)
    writer.vector("rank", step, ranks)
    writer.vector("importance", step, draw.random(modules, dtype=np.float32) * 1e-6)
    if step % 10 == 0:
        writer.vector("grad_norm", step, draw.random(modules, dtype=np.float32))
    if step:
        for name, value in (("loss", 0.7), ("lr", 1e-3), ("step_ms", 100.0), ("strategy_ms", 0.1)):
            writer.scalar(name, "train", step, value * (1 - step / (4 * steps)))
    if step % max(1, steps // EVALUATIONS) == 0:
        writer.scalar("accuracy", "validation", step, 0.5 + 0.4 * step / (2 * steps))
        writer.event(step, "evaluate", [], {"metrics": {"accuracy": 0.5}})
    writer.progress(step)


def _reallocate(writer: RunWriter, step: int, ranks: np.ndarray) -> None:
    donor = step // 7 % len(ranks)
    receiver = (donor + 1) % len(ranks)
    if ranks[donor] < 1:
        return
    ranks[donor] -= 1
    ranks[receiver] += 1
    move = {"edit": "move", "donor": donor, "receiver": receiver, "count": 1, "donor_score": 1e-7}
    writer.event(step, "reallocate", [donor, receiver], {"edits": [{**move, "receiver_score": 1e-6}]})


def finish_run(writer: RunWriter) -> Path:
    """End a run and return its folder."""
    writer.finish("finished")
    return writer.folder


def many_runs(runs_dir: Path, number: int) -> None:
    """Make so many small finished runs: one is recorded, the others are copies of its folder under ids of their own."""
    first = finish_run(start_run(runs_dir, 200, 36, "a run"))
    for index in range(1, number):
        shutil.copytree(first, runs_dir / f"20260101-000000-{index:08x}")
