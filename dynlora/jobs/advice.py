"""Advice that is asked for from a page: a process of its own, which continues when the page is left, and its answer.

All of it lies in the folder `.advice` of the runs folder, under a name that follows from what was asked: the same
question finds the answer that is there. The file of an answer is what `strategy.ranks_from` takes.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dynlora.config_files import yaml_text
from dynlora.errors import storing
from dynlora.jobs.spawn import Folder, end_child, locked, own_folder, reap, runs_root, spawn_detached
from dynlora.safe_files import tail, write_text
from dynlora.store.process import ProcessNote
from dynlora.store.record import Count, Part, Record, Row, Whole

ADVICE_DIR = ".advice"
"""Folder of a runs folder that holds advice."""

KEPT = 40
"""Answers that are kept; the oldest go."""

STEP = re.compile(r"step (\d+) of (\d+)")
PARTS = (".json", ".log", ".yaml", ".pid")


class AdvisedModule(Part):
    """A module and the rank it is to have."""

    name: str
    layer: Whole | None
    kind: str
    d_in: Count
    d_out: Count
    rank: Count
    gain_share: float


class AdvisedFamily(Part):
    """Modules of one kind, and whether they may be left out."""

    name: str
    modules: Count
    mean_rank: float
    parameters_share: float
    gain_share: float
    gain_per_parameter: float
    low: float
    high: float
    can_go: bool


class AdvisedLayers(Part):
    """What a step takes without the lowest layers."""

    without_layers: Count
    of: Count
    modules: Count
    gain_share: float
    step_time: float
    low: float
    high: float


class Confidence(Part):
    """How far two halves of the look agree."""

    correlation: float | None
    agreement: float
    level: Literal["high", "moderate", "low"]


class Look(Part):
    """What advice is made from."""

    warm_steps: Count
    look_steps: Count
    rows: Count
    seconds: float


class Answer(Record):
    """Advice as `dynlora advise --out` writes it, beside settings of PEFT that are made of it."""

    MAX_BYTES: ClassVar[int] = 4_000_000

    ranks: dict[str, Count]
    scaling: dict[str, float]
    parameters: Count
    budget: Count
    uniform_rank: Count
    task_type: str
    modules: Row[AdvisedModule] = Field(max_length=20_000)
    families: Row[AdvisedFamily] = Field(min_length=1, max_length=20_000)
    layers: Row[AdvisedLayers] = Field(max_length=20_000)
    confidence: Confidence
    look: Look

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse ranks or scalings of other modules."""
        if not {module.name for module in self.modules} == set(self.ranks) == set(self.scaling):
            raise ValueError("ranks of other modules")
        return self


@dataclass(frozen=True)
class Advice:
    """What became of a question.

    Attributes:
        state: none (never asked), running, done or failed.
        found: the answer, as `dynlora advise --json` prints it; empty until done.
        said: why it failed, in a sentence; empty otherwise.
        step, of: how far it has come while running; 0 of 0 at first.
        file: of the answer.
    """

    state: str
    found: Mapping[str, Any]
    said: str
    step: int
    of: int
    file: Path


def ask(config: Mapping[str, Any], runs_dir: Folder, *, budget: float = 1.0, leave_out: bool = False) -> None:
    """Start the look, unless it runs already or its answer is there.

    Args:
        config: the configuration as plain values.
        runs_dir: folder of the runs; made when missing.
        budget: part of uniform LoRA's parameters.
        leave_out: whether weak families get no rank.

    Raises:
        StorageError: when the disk does not take the question.
        OSError: when no process can be started.
    """
    folder = own_folder(runs_root(runs_dir, make=True), ADVICE_DIR)
    place = folder / _name(config, budget, leave_out=leave_out)
    with locked(folder / "ask.lock", 10.0):
        if _state(place).state in ("running", "done"):
            return
        _forget(place)
        _tidy(folder)
        request = place.with_suffix(".yaml")
        with storing("the configuration to advise on"):
            write_text(request, yaml_text(dict(config)))
        pid = spawn_detached(
            _command(request, place.with_suffix(".json"), budget, leave_out), place.with_suffix(".log")
        )
        with storing("the number of the process that advises"):
            ProcessNote.of_pid(pid).write(place.with_suffix(".pid"))


def look(config: Mapping[str, Any], runs_dir: Folder, *, budget: float = 1.0, leave_out: bool = False) -> Advice:
    """Return what became of a question; nothing is started."""
    reap()
    place = runs_root(runs_dir) / ADVICE_DIR / _name(config, budget, leave_out=leave_out)
    return _state(place)


def cancel(config: Mapping[str, Any], runs_dir: Folder, *, budget: float = 1.0, leave_out: bool = False) -> None:
    """End a look that this server started, and forget it."""
    place = runs_root(runs_dir) / ADVICE_DIR / _name(config, budget, leave_out=leave_out)
    note = ProcessNote.at(place.with_suffix(".pid"))
    if note.pid is not None and _state(place).state == "running":
        end_child(note.pid)
        _forget(place)


def _name(config: Mapping[str, Any], budget: float, *, leave_out: bool) -> str:
    """Return the name of a question: what the look does not depend on is left out."""
    asked = {key: value for key, value in config.items() if key not in ("name", "strategy", "log")}
    text = yaml_text({"config": asked, "data": _version(config), "budget": budget, "leave_out": leave_out})
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _version(config: Mapping[str, Any]) -> list[int]:
    """Return what changes when the file of rows does: nanoseconds of its last change, and bytes; none of a name."""
    path = (config.get("data") or {}).get("path")
    with suppress(OSError, ValueError, TypeError):
        if path:
            found = Path(path).stat()
            return [found.st_mtime_ns, found.st_size]
    return []


def _command(request: Path, answer: Path, budget: float, leave_out: bool) -> list[str]:
    asked = ["--config", str(request), "--out", str(answer), "--budget", f"{budget:g}"]
    return [sys.executable, "-m", "dynlora", "advise", *asked, *(["--leave-out"] if leave_out else [])]


def _state(place: Path) -> Advice:
    """Return what the files of a question say."""
    file, log = place.with_suffix(".json"), place.with_suffix(".log")
    if file.exists():
        answer = Answer.read(file)
        if answer is None:
            return Advice("failed", {}, f"{file.name} holds no advice; remove it, and ask again", 0, 0, file)
        return Advice("done", answer.model_dump(mode="json"), "", 0, 0, file)
    note = ProcessNote.read(place.with_suffix(".pid"))
    if note is None:
        return Advice("none", {}, "", 0, 0, file)
    said = tail(log)
    if note.is_alive:
        steps = STEP.findall(said)
        step, of = map(int, steps[-1]) if steps else (0, 0)
        return Advice("running", {}, "", step, of, file)
    line = said.splitlines()[-1] if said else "its process exited without an error message"
    return Advice("failed", {}, line.removeprefix("Error: "), 0, 0, file)


def _forget(place: Path) -> None:
    for ending in PARTS:
        place.with_suffix(ending).unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """Remove the oldest answers, so that the folder does not grow for ever."""
    asked = sorted(folder.glob("*.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    for request in asked[KEPT - 1 :]:
        if _state(request).state != "running":
            _forget(request)
