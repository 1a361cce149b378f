"""Advice that is asked for from a page: a job of its own, which continues when the page is left, and its answer.

It is about ranks, or about the learning rate: a `Topic` says what differs.

All of it is in the folder `.advice` of the runs folder, under a name that follows from the question: the same question
finds the answer that is there. The file of an answer on ranks is what `strategy.ranks_from` takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynlora.config_files import yaml_text
from dynlora.errors import storing
from dynlora.jobs import helper_job
from dynlora.jobs.environment import python_command
from dynlora.jobs.helper_job import Failure, HelperJob
from dynlora.jobs.spawn import Folder, locked, own_folder, runs_root
from dynlora.safe_files import write_text
from dynlora.store.advice import Answer, RateAnswer
from dynlora.store.record import Record

ADVICE_DIR = ".advice"
"""Folder of a runs folder that holds advice."""

MOST = 40
"""Answers that stay; the oldest go."""


@dataclass(frozen=True)
class Topic:
    """What advice is about.

    Attributes:
        name: ranks or rate.
        record: of an answer.
        options: of `dynlora advise`.
        question: what belongs to the question beside the settings and the data.
        without: sections of the settings that the look does not depend on.
        without_training: of section `train`, those settings.
    """

    name: str
    record: type[Record]
    options: tuple[str, ...]
    question: Mapping[str, Any]
    without: tuple[str, ...]
    without_training: tuple[str, ...] = ()

    def asks(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the answer depends on."""
        settings = {key: value for key, value in config.items() if key not in self.without}
        training = settings.get("train")
        if self.without_training and isinstance(training, Mapping):
            settings["train"] = {key: one for key, one in training.items() if key not in self.without_training}
        return {key: value for key, value in settings.items() if value != {} or not self.without_training}


RANKS = Topic("ranks", Answer, (), {"budget": 1.0, "leave_out": False}, ("name", "strategy", "log"))
RATE = Topic(
    "rate",
    RateAnswer,
    ("--rate",),
    {"topic": "rate"},
    ("name", "log"),
    ("lr", "steps", "epochs", "warmup", "schedule"),
)


def ask(config: Mapping[str, Any], runs_dir: Folder, topic: Topic = RANKS) -> None:
    """Start the look for a configuration of plain values, unless it runs already or its answer is there.

    Raises:
        StorageError: when the disk does not take the question.
        OSError: when no process can be started.
    """
    folder = own_folder(runs_root(runs_dir, make=True), ADVICE_DIR)
    answer = answer_file(config, runs_dir, topic)
    with locked(folder / "ask.lock", 10.0):
        job = look(config, runs_dir, topic)
        if job is not None and job.status in ("running", "done"):
            return
        helper_job.forget(answer)
        helper_job.forget_oldest(folder.glob("*.yaml"), MOST - 1)
        request = answer.with_suffix(".yaml")
        with storing("the configuration to advise on"):
            write_text(request, yaml_text(dict(config)))
        helper_job.start("advice", _command(request, answer, *topic.options), answer.with_suffix(helper_job.ENDING))


def look(config: Mapping[str, Any], runs_dir: Folder, topic: Topic = RANKS) -> HelperJob | None:
    """Return how a question stands, its answer as the result; None where nobody asked. Nothing is started."""
    answer = answer_file(config, runs_dir, topic)
    job = helper_job.follow(answer.with_suffix(helper_job.ENDING))
    if not answer.exists():
        return job
    advice = topic.record.read(answer)  # done where its file is there, whichever version wrote it
    if advice is None:
        damaged = f"{answer.name} holds no advice; remove it, and ask again"
        return HelperJob(kind="advice", status="failed", error=Failure(kind="CorruptRunError", message=damaged))
    return HelperJob(kind="advice", status="done", result=advice.model_dump(mode="json"))


def cancel(config: Mapping[str, Any], runs_dir: Folder, topic: Topic = RANKS) -> None:
    """End a look that runs, and forget it."""
    answer = answer_file(config, runs_dir, topic)
    if not answer.exists():
        helper_job.cancel(answer.with_suffix(helper_job.ENDING))
        helper_job.forget(answer)


def answer_file(config: Mapping[str, Any], runs_dir: Folder, topic: Topic = RANKS) -> Path:
    """Return the file of a question's answer; what the look does not depend on is not in its name."""
    text = yaml_text({"config": topic.asks(config), "data": _version(config), **topic.question})
    return runs_root(runs_dir) / ADVICE_DIR / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


def _version(config: Mapping[str, Any]) -> list[int]:
    """Return what changes when the file of rows does: nanoseconds of its last change, and bytes; none of a name."""
    path = (config.get("data") or {}).get("path")
    with suppress(OSError, ValueError, TypeError):
        if path:
            file = Path(path).stat()
            return [file.st_mtime_ns, file.st_size]
    return []


def _command(request: Path, answer: Path, *options: str) -> list[str]:
    return python_command("dynlora", "advise", *options, "--config", str(request), "--out", str(answer))
