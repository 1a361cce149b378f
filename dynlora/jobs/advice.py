"""Advice that is asked for from a page: a job of its own, which continues when the page is left, and its answer.

All of it is in the folder `.advice` of the runs folder, under a name that follows from the question: the same question
finds the answer that is there. The file of an answer is what `strategy.ranks_from` takes.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dynlora.config_files import yaml_text
from dynlora.errors import storing
from dynlora.jobs import helper_job
from dynlora.jobs.helper_job import Failure, HelperJob
from dynlora.jobs.spawn import Folder, locked, own_folder, runs_root
from dynlora.safe_files import write_text
from dynlora.store.record import Count, Part, Record, Row, Whole

ADVICE_DIR = ".advice"
"""Folder of a runs folder that holds advice."""

MOST = 40
"""Answers that stay; the oldest go."""


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
    answer = folder / _name(config, budget, leave_out=leave_out)
    with locked(folder / "ask.lock", 10.0):
        job = _job(answer)
        if job is not None and job.status in ("running", "done"):
            return
        helper_job.forget(answer)
        helper_job.forget_oldest(folder.glob("*.yaml"), MOST - 1)
        request = answer.with_suffix(".yaml")
        with storing("the configuration to advise on"):
            write_text(request, yaml_text(dict(config)))
        helper_job.start("advice", _command(request, answer, budget, leave_out), answer.with_suffix(helper_job.ENDING))


def look(
    config: Mapping[str, Any], runs_dir: Folder, *, budget: float = 1.0, leave_out: bool = False
) -> HelperJob | None:
    """Return how a question stands, its answer as the result; None where nobody asked. Nothing is started."""
    return _job(answer_file(config, runs_dir, budget=budget, leave_out=leave_out))


def cancel(config: Mapping[str, Any], runs_dir: Folder, *, budget: float = 1.0, leave_out: bool = False) -> None:
    """End a look that runs, and forget it."""
    answer = answer_file(config, runs_dir, budget=budget, leave_out=leave_out)
    job = _job(answer)
    if job is not None and job.status == "running":
        helper_job.cancel(answer.with_suffix(helper_job.ENDING))
        helper_job.forget(answer)


def answer_file(config: Mapping[str, Any], runs_dir: Folder, *, budget: float = 1.0, leave_out: bool = False) -> Path:
    """Return the file of a question's answer."""
    return runs_root(runs_dir) / ADVICE_DIR / _name(config, budget, leave_out=leave_out)


def _name(config: Mapping[str, Any], budget: float, *, leave_out: bool) -> str:
    """Return the name of an answer's file: what the look does not depend on is left out."""
    question = {key: value for key, value in config.items() if key not in ("name", "strategy", "log")}
    text = yaml_text({"config": question, "data": _version(config), "budget": budget, "leave_out": leave_out})
    return f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


def _version(config: Mapping[str, Any]) -> list[int]:
    """Return what changes when the file of rows does: nanoseconds of its last change, and bytes; none of a name."""
    path = (config.get("data") or {}).get("path")
    with suppress(OSError, ValueError, TypeError):
        if path:
            file = Path(path).stat()
            return [file.st_mtime_ns, file.st_size]
    return []


def _command(request: Path, answer: Path, budget: float, leave_out: bool) -> list[str]:
    options = ["--config", str(request), "--out", str(answer), "--budget", f"{budget:g}"]
    return [sys.executable, "-m", "dynlora", "advise", *options, *(["--leave-out"] if leave_out else [])]


def _job(answer: Path) -> HelperJob | None:
    """Return the job of an answer: done where its file is there, whichever version wrote it."""
    job = helper_job.follow(answer.with_suffix(helper_job.ENDING))
    if not answer.exists():
        return job
    advice = Answer.read(answer)
    if advice is None:
        damaged = f"{answer.name} holds no advice; remove it, and ask again"
        return HelperJob(kind="advice", status="failed", error=Failure(kind="CorruptRunError", message=damaged))
    return HelperJob(kind="advice", status="done", result=advice.model_dump(mode="json"))
