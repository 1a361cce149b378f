"""Advice before training, asked for from a page: a job of its own, which continues when the page is left.

It is about ranks, or about the learning rate: a `Topic` says what differs.

All of it is in the folder `.advice` of the runs folder, under a name that follows from the question: the same question
finds the answer that is there. The file of an answer on ranks is what `strategy.ranks_from` takes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dynlora.config_files import yaml_text
from dynlora.errors import storing
from dynlora.jobs import helper_job
from dynlora.jobs.environment import python_command
from dynlora.jobs.helper_job import Failure, HelperJob
from dynlora.jobs.spawn import Folder, locked, own_folder, runs_root
from dynlora.safe_files import write_text
from dynlora.store.record import Count, Part, Record, Row, Whole


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


Rate = Annotated[float, Field(gt=0, le=1e3)]
"""A learning rate."""

Loss = Annotated[float, Field(ge=-1e30, le=1e30)]
"""A loss that a picture can hold."""


class RateTest(Part):
    """One range test.

    Attributes:
        seed: of its batches and draws.
        rates: of the steps, rising.
        losses: of each step's batch, nats, before the step; None where it is no number to draw.
        control: of the same batches while the adapters stay; empty where the head has their rate.
    """

    seed: Count
    rates: Row[Rate] = Field(min_length=1, max_length=10_000)
    losses: Row[Loss | None] = Field(min_length=1, max_length=10_000)
    control: Row[Loss | None] = Field(default=(), max_length=10_000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse steps without a rate, and rates that do not grow."""
        if len(self.rates) != len(self.losses) or len(self.control) not in (0, len(self.losses)):
            raise ValueError("another number of losses")
        if any(later <= earlier for earlier, later in itertools.pairwise(self.rates)):
            raise ValueError("rates that do not grow")
        return self


class RateLook(Part):
    """What a suggested rate is made from.

    Attributes:
        method: that was tested.
        rank: uniform rank of the adapters.
        steps: of all tests.
        rows: training examples that these steps took.
        seconds: of a clock, loading included.
    """

    method: str
    rank: Count
    steps: Count
    rows: Count
    seconds: float


class RankCapacity(Part):
    """Whether the rank is enough.

    Attributes:
        nats: loss of the base model per example, with a fitted head for classes.
        irreducible: part of it that is known to be chance.
        examples: of the training data.
        bits: to be learned, at most.
        parameters: of the adapters.
        capacity: bits that these hold, about.
        verdict: of the two.
    """

    nats: float
    irreducible: float
    examples: Count
    bits: float
    parameters: Count
    capacity: float
    verdict: Literal["ample", "tight", "too small"]


class RateAnswer(Record):
    """A suggested learning rate as `dynlora advise --rate --out` writes it.

    Attributes:
        rate: None where the tests suggest none.
        why: then: flat, breaks or short.
        low, high: least and largest rate that a half of the steps of a test suggests; None where one suggests none.
        level: how far these agree.
        steepest: rate at which the loss falls fastest.
        lowest: rate from which on it rises; None where it falls to the end.
        breaks: rate at which training breaks; None where it does not.
        default: the rate in the settings.
        tests: one, or two where the halves of the first one disagree.
        capacity: whether the rank is enough; None where the task's loss is not in nats.
    """

    MAX_BYTES: ClassVar[int] = 1_000_000

    rate: Rate | None
    why: Literal["", "flat", "breaks", "short"]
    low: Rate | None
    high: Rate | None
    level: Literal["high", "moderate", "low"]
    steepest: Rate | None
    lowest: Rate | None
    breaks: Rate | None
    default: Rate
    tests: Row[RateTest] = Field(min_length=1, max_length=10)
    look: RateLook
    capacity: RankCapacity | None = None

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        """Refuse an answer that has neither a rate nor a reason."""
        if (self.rate is None) != bool(self.why):
            raise ValueError("no rate and no reason")
        return self


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
