"""Runs as the pages meet them, written through the store's own writer: real in shape, small, and hostile on demand."""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter

KINDS = (
    ("attention.self.query", 8, 8),
    ("attention.self.key", 8, 8),
    ("attention.self.value", 8, 8),
    ("output.dense", 32, 8),
)
LAYERS = 3
FIRST = "20260101-000000-00000001"
"""Id of a run that is alone."""

N_MODULES = len(KINDS) * LAYERS
GROUPS = ("movies", "tweets")
N_EXAMPLES = 48
N_HELD_OUT = 40

HOSTILE = (
    "<img src=x onerror=alert(1)> ~~no~~ # top",
    "$x^2$ and :material/home: and :red[hot] :smile:",
    "=cmd()|' /C calc'!A0 **bold** [link](http://x.example) `code`",
    "%{customdata[0]} \u202e \x00 \n two lines" + "x" * 3000,
)
"""What a run's author may write to run code, to draw or to break the page."""


def config(strategy: str, seed: int) -> dict[str, object]:
    return {
        "name": None,
        "seed": seed,
        "model": {"name": "minilm"},
        "data": {"name": "sentiment4", "metric": "auto"},
        "adapter": {"rank": 4},
        "strategy": {"name": strategy},
        "train": {"steps": 40},
    }


def planted(*modules: int) -> dict[str, Any]:
    """Return what a run says of itself that was trained on planted ranks: some of its modules need rank."""
    sizes = {module_name(index): 1.0 for index in modules}
    return {"task_facts": {"planted": {"seed": 0, "rank": 8, "sizes": sizes, "distance": 1.0}}}


@dataclass(frozen=True)
class Written:
    """How a run is written.

    Attributes:
        state: queued, running, or how it ended.
        steps: that it made.
        strategy: its name.
        text: used wherever a run's author can put text.
        gates: record gates.
        error: why it failed.
        seed: of the run; losses lie a little higher with each, and other modules move.
        extras: record what newer runs do: losses of held-out rows, the base model, the machine.
        effects: record how strongly each module acts on each probe example.
        own: record signals, numbers and decisions that only this run's method knows, named by `text`.
        moves: move rank at step 10; else all modules keep theirs, as with plain LoRA.
    """

    state: str = "finished"
    steps: int = 40
    strategy: str = "dynamic"
    text: str = "fine"
    gates: bool = True
    error: str | None = None
    seed: int = 0
    extras: bool = False
    effects: bool = False
    own: bool = False
    moves: bool = True


def make_run(runs_dir: Path, *, run_id: str = FIRST, about: Mapping[str, Any] | None = None, **given: Any) -> Path:
    """Make a run; one that is over and has been made before is a copy of the first, its times those of now.

    Args:
        runs_dir: where.
        run_id: its id.
        about: what the run says of itself, in place of the usual.
        given: how it is written, see `Written`.
    """
    how = Written(**given)
    if about is not None or how.state in ("queued", "running"):
        return _write(runs_dir, run_id, how, about)
    folder = runs_dir / run_id
    folder.mkdir(parents=True)
    for name, content in _files(how).items():
        (folder / name).write_bytes(content)
    with sqlite3.connect(folder / "run.db") as database:
        database.execute("PRAGMA synchronous=OFF")
        for key, value in (("id", run_id), ("created", time.time())):
            database.execute("UPDATE meta SET value = ? WHERE key = ?", (json.dumps(value), key))
        database.execute("UPDATE status SET heartbeat = ?", (time.time(),))
    database.close()
    return folder


@functools.lru_cache(maxsize=64)
def _files(how: Written) -> Mapping[str, bytes]:
    """Return the files of a run that is over: 40 steps through the store's writer take 20 times as long as a copy."""
    with TemporaryDirectory() as place:
        folder = _write(Path(place), "20260101-000000-00000000", how)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write(runs_dir: Path, run_id: str, how: Written, about: Mapping[str, Any] | None = None) -> Path:
    """Write a run as `make_run` describes it."""
    text, seed, strategy = how.text, how.seed, how.strategy
    meta = {
        "name": text,
        "strategy": strategy,
        "model": "minilm",
        "data": "sentiment4",
        "seed": seed,
        "fidelity": "reconstruction",
        "config": config(strategy, seed),
        "labels": [text[:40], "positive"],
        "params": {"budget": 1152, "active": 1056, "allocated": 1600, "gate": 24 if how.gates else 0, "head": 10},
        "time": {"train_s": 4.0, "step_ms_median": 100.0, "strategy_ms_median": 0.5},
    }
    meta |= about or {}
    if how.own:
        meta["own_signals"] = {
            "group": {"title": text, "question": text, "unit": "", "choices": [], "grouping": True},
            "mask": {"title": text, "question": text, "choices": [text, "trained"], "grouping": False},
            "path": {"title": "path", "question": "Which path", "choices": [text, "low rank"], "grouping": False},
        }
    folder = RunWriter.create(
        runs_dir,
        run_id=run_id,
        config_yaml="seed: 0\n",
        meta=meta,
        max_steps=max(40, how.steps),
        state="queued" if how.state == "queued" else "running",
    )
    if how.state == "queued":
        return folder
    writer = RunWriter.open(folder, resume_from=None)
    define(writer, text, how.gates)
    for step in range(how.steps + 1):
        record(writer, step, text, how.gates, seed, moves=how.moves)
    if how.extras:
        record_extras(writer, how.steps, seed, strategy)
    if how.effects:
        record_effects(writer, how.steps)
    if how.own:
        record_own(writer, text)
    writer.log("warning", text)
    if how.state == "running":
        writer.commit()
        return folder
    writer.finish(how.state, how.error)
    return folder


def module_name(index: int) -> str:
    layer, kind = divmod(index, len(KINDS))
    return f"bert.encoder.layer.{layer}.{KINDS[kind][0]}"


def define(writer: RunWriter, text: str, gates: bool) -> None:
    writer.define_modules(
        [
            ModuleRow(module_name(i), i // len(KINDS), KINDS[i % len(KINDS)][0], *KINDS[i % len(KINDS)][1:], 8)
            for i in range(N_MODULES)
        ]
    )
    writer.define_groups([text[:200], *GROUPS[1:]])
    writer.define_examples(
        [
            {"text": f"{i} {text}", "label": "0", "group": str(i % 2), "x": float(i), "y": float(-i)}
            for i in range(N_EXAMPLES)
        ]
    )
    for name in ("rank", "importance", "grad_norm", "delta_norm", *(["gate"] if gates else [])):
        writer.define_signal(name, "module", "components" if name == "rank" else "", N_MODULES)
    for name in ("group_loss", "group_metric"):
        writer.define_signal(name, "group", "", len(GROUPS))
    for name in ("probe_loss", "probe_prediction", "probe_probability"):
        writer.define_signal(name, "example", "", N_EXAMPLES)
    if gates:
        writer.define_signal("group_gate", "group", "factor", len(GROUPS) * N_MODULES)
        writer.define_signal("probe_gate", "example", "factor", N_EXAMPLES * N_MODULES)


def record_extras(writer: RunWriter, step: int, seed: int, strategy: str) -> None:
    """Record what newer runs do; a longer name of the strategy has a lower loss on every held-out row."""
    for name in ("held_out_loss", "base_loss", "base_prediction"):
        writer.define_signal(name, "example", "", N_HELD_OUT if name == "held_out_loss" else N_EXAMPLES)
    draws = [np.random.default_rng(number).random(N_HELD_OUT) for number in (seed, seed + 100 * len(strategy))]
    losses = 2 + draws[0] + 0.1 * draws[1] - 0.1 * len(strategy)
    writer.vector("held_out_loss", step, losses)
    writer.vector("base_loss", step, np.full(N_EXAMPLES, 0.7))
    writer.vector("base_prediction", step, np.zeros(N_EXAMPLES))
    for name, axis, values in (
        ("group_ece", "group", [0.02, 0.3]),
        ("group_brier", "group", [0.1, 0.4]),
        ("group_disagreement", "group", [0.01, 0.2]),
        ("probe_disagreement", "example", np.arange(N_EXAMPLES) / 100),
    ):
        writer.define_signal(name, axis, "nats", len(values))
        writer.vector(name, step, values)
    writer.system({"rss_mib": 512.0, "cpu_percent": 150.0, "gpu_memory_mib": 2048.0})


def record_own(writer: RunWriter, text: str) -> None:
    """Record what one method alone knows: groups that merge at step 20, paths, a threshold, a search, decisions."""
    for name in ("group", "path"):
        writer.define_signal(name, "module", "", N_MODULES)
    writer.define_signal("kept_part", "component", "share", 8 * N_MODULES)
    writer.define_signal("mask", "component", "", 8 * N_MODULES)
    for step in (0, 20, 40):
        groups = np.arange(N_MODULES) if step < 20 else np.arange(N_MODULES) // 2 * 2
        writer.vector("group", step, groups)
        writer.vector("path", step, np.arange(N_MODULES) % 2)
        writer.vector("kept_part", step, 0.5 + 0.01 * (np.arange(8 * N_MODULES) % 3))
        writer.vector("mask", step, (np.arange(8 * N_MODULES) + step // 20) % 2)
        writer.scalar("threshold", "train", step, step / 40)
    edits = [{"edit": "tie", "modules": [2 * i, 2 * i + 1], "why": text} for i in range(N_MODULES // 2)]
    best = {"best_loss": 0.5, "parameters": 1000}
    tried = [{"round": i, **best, "population": [[1100, 0.7], [1000, 0.6 - i / 10]]} for i in range(2)]
    payload = {"budget": 1152, "budget_used": 1080, "edits": edits, "history": tried}
    writer.event(20, "reallocate", [0, 1], payload)


def record_effects(writer: RunWriter, step: int) -> None:
    """Record how strongly modules act, and how much they matter: module 1 only to the second group."""
    writer.define_signal("probe_effect", "example", "ratio", N_EXAMPLES * N_MODULES)
    effects = 0.1 + 0.01 * np.random.default_rng(1).random((N_EXAMPLES, N_MODULES))
    effects[1::2, 1] += 0.3
    writer.vector("probe_effect", step, effects.ravel())
    writer.define_signal("probe_importance", "example", "nats", N_EXAMPLES * N_MODULES)
    importance = np.where(np.arange(N_MODULES) == 2, 0.125, 0.0) * np.ones((N_EXAMPLES, 1))
    importance[1::2, 1] = 0.25
    writer.vector("probe_importance", step, importance.ravel())


def probe_gates() -> np.ndarray:
    """Return the gates of the probe examples: module 1 opens for the second group, the others vary by chance."""
    gates = 1 + 0.01 * np.random.default_rng(1).standard_normal((N_EXAMPLES, N_MODULES))
    gates[1::2, 1] += 0.2
    return gates


def ranks_at(step: int, seed: int = 0) -> np.ndarray:
    """Return the ranks: at step 10 module 0 gives one component to module 2, with each seed to the next."""
    ranks = np.full(N_MODULES, 4.0)
    if step >= 10:
        ranks[0], ranks[2 + seed] = 3, 5
    return ranks


def record(writer: RunWriter, step: int, text: str, gates: bool, seed: int = 0, *, moves: bool = True) -> None:
    draw = np.random.default_rng(step)
    writer.vector("rank", step, ranks_at(step if moves else 0, seed))
    writer.vector("importance", step, draw.random(N_MODULES) * 1e-6)
    if gates:
        writer.vector("gate", step, 1 + 0.01 * draw.standard_normal(N_MODULES))
    if step % 10 == 0:
        writer.vector("grad_norm", step, draw.random(N_MODULES))
        writer.vector("delta_norm", step, draw.random(N_MODULES))
        evaluate(writer, step, text, gates, seed)
    if step == 10 and moves:
        to = 2 + seed
        move = {"edit": "move", "donor": 0, "receiver": to, "count": 1, "donor_score": 1e-7, "receiver_score": 1e-6}
        writer.event(step, "reallocate", [0, to], {"budget": 1152, "budget_used": 1080, "edits": [move]})
    if step:
        writer.scalar("loss", "train", step, 0.7 - 0.005 * step + 0.01 * seed)
        writer.scalar("lr", "train", step, 1e-3 * (1 - step / 40))
        writer.scalar("step_ms", "train", step, 100.0)
        writer.scalar("strategy_ms", "train", step, 0.5)
    writer.progress(step)


def evaluate(writer: RunWriter, step: int, text: str, gates: bool, seed: int = 0) -> None:
    writer.scalar("loss", "validation", step, 0.7 - 0.004 * step)
    writer.scalar("accuracy", "validation", step, 0.5 + 0.008 * step - 0.01 * seed)
    writer.vector("group_loss", step, [0.6, 0.5])
    writer.vector("group_metric", step, [0.7, 0.8])
    writer.vector("probe_loss", step, np.arange(N_EXAMPLES) / 10)
    writer.vector("probe_prediction", step, np.arange(N_EXAMPLES) % 2)
    writer.vector("probe_probability", step, np.full(N_EXAMPLES, 0.6))
    if gates:
        writer.vector("group_gate", step, 1 + np.arange(len(GROUPS) * N_MODULES) / 1000)
        writer.vector("probe_gate", step, probe_gates().ravel())
    worst = [{"text": text, "text_pair": None, "label": text[:40], "prediction": "positive", "loss": 2.5}]
    payload = {
        "metrics": {"accuracy": 0.5},
        "labels": [text[:40], "positive"],
        "confusion": [[3, 1], [0, 4]],
        "worst": worst,
    }
    writer.event(step, "evaluate", [], payload)
