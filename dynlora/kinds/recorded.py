"""What a run that is made of finished runs recorded: its sources, its stages and what it measured on their data.

As little trusted as the rest of a run: a value of another kind counts as one that was never written.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dynlora.kinds.run_kind import NOTHING, Conclusion, RunKind
from dynlora.store.meta import count, finite, items, short_text, table
from dynlora.store.reader import RunReader
from dynlora.text import one_line, rough_duration

Item = TypeVar("Item")

MAX_NAME, MAX_NOTE, MAX_ITEMS = 200, 1000, 10_000


def text_of(limit: int) -> BeforeValidator:
    """Return what makes a text of at most `limit` characters of any value."""
    return BeforeValidator(lambda value: short_text(value, limit))


Short = Annotated[str, text_of(MAX_NAME)]
"""A name."""

Tally = Annotated[int, BeforeValidator(count)]
"""A whole number from zero on; 0 where it is unknown."""

Number = Annotated[float | None, BeforeValidator(finite)]
"""A number that can be drawn; None where it is unknown."""

Flag = Annotated[bool, BeforeValidator(lambda value: value is True)]
"""Whether something is so; False where it is unknown."""

Rows = Annotated[tuple[Item, ...], BeforeValidator(lambda value: items(value, MAX_ITEMS))]
"""The items of a list, none where it is unknown."""


class Recorded(BaseModel):
    """An object of a run's record; any value is one, keys that it lacks have their defaults."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _as_object(cls, value: Any) -> Any:
        return value if isinstance(value, cls) else table(value)


class Source(Recorded):
    """A run that another one was made of.

    Attributes:
        run: its id.
        name: its display name.
        classes: names; none for a run that writes texts.
        rank: of its adapter; 0 where unknown.
        strategy: its method.
    """

    run: Short = ""
    name: Short = ""
    classes: Rows[Short] = ()
    rank: Tally = 0
    strategy: Short = ""


class Stage(Recorded):
    """A stage of a run, and its last step."""

    name: Short = ""
    last: Tally = 0


class Interval(BaseModel):
    """A mean, or its difference from another, with the 95 % interval.

    Attributes:
        model: whose it is: a method, or the id of a source.
        source: what it is measured on: data or texts of a source, by its id, `ALL`, or a number of examples.
        mean, low, high: in the unit of what is measured.
        n: examples or texts that it is over; 0 where unknown.
    """

    model: str
    source: str
    mean: float
    low: float
    high: float
    n: int


ALL = "all"
"""Stands for all sources together."""


def intervals(value: Any, *, by_source: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table of tables, by model or source and the other; one without a number is left out."""
    for outer, inner in table(value).items():
        for key, row in table(inner).items():
            mean, low, high = (finite(table(row).get(name)) for name in ("mean", "low", "high"))
            if mean is not None and low is not None and high is not None:
                source, model = (outer, key) if by_source else (key, outer)
                names = {"model": model[:MAX_NAME], "source": source[:MAX_NAME]}
                yield {**names, "mean": mean, "low": low, "high": high, "n": count(table(row).get("texts"))}


ByModel = Annotated[tuple[Interval, ...], BeforeValidator(lambda value: tuple(intervals(value, by_source=False)))]
"""Intervals that were written by model and source."""

BySource = Annotated[tuple[Interval, ...], BeforeValidator(lambda value: tuple(intervals(value, by_source=True)))]
"""Intervals that were written by source and model."""


def interval_of(rows: Sequence[Interval], model: str, source: str = ALL) -> Interval | None:
    """Return the interval of a model and a source; None where it was not measured."""
    return next((row for row in rows if (row.model, row.source) == (model, source)), None)


class SourcedResult(Recorded):
    """All that a run recorded that is made of finished ones.

    Attributes:
        KIND: of the run; its plan is recorded under that key, its results under the key with `_results`.
        EVENT: kind of the events that are read.
        STAGES: what happens in each stage.
        sources: in order.
        stages: in order.
        minutes: estimated before the start; None where unknown.
        notes: what a person should know of the results.
    """

    KIND: ClassVar[str]
    EVENT: ClassVar[str]
    STAGES: ClassVar[Mapping[str, str]]

    sources: Rows[Source] = Field((), validation_alias=AliasChoices("sources", "teachers"))
    stages: Rows[Stage] = ()
    minutes: Number = None
    notes: Rows[Annotated[str, text_of(MAX_NOTE)]] = ()

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Return what a run has recorded so far.

        Raises:
            RunNotFoundError: when there is no such run.
            CorruptRunError: when it cannot be read.
        """
        with RunReader(folder) as reader:
            meta = reader.meta()
            payloads = [table(event.payload) for event in reader.events(kinds=[cls.EVENT])]
            values = {**table(meta.get(f"{cls.KIND}_results")), **table(meta.get(cls.KIND))}
            values["minutes"] = table(meta.get("estimate")).get("minutes")
            return cls.model_validate({**values, **cls.more(reader, meta, payloads)})

    @classmethod
    @abstractmethod
    def more(cls, reader: RunReader, meta: Mapping[str, Any], payloads: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what is recorded beside the plan and the results.

        Args:
            reader: of the run.
            meta: all that its store says of it.
            payloads: of its events, in order.
        """

    @property
    @abstractmethod
    def is_tested(self) -> bool:
        """Whether its results are there."""

    @abstractmethod
    def about(self) -> str:
        """Return the line under the title: what was made, and of what."""

    @abstractmethod
    def headline(self) -> str:
        """Return the conclusion in a sentence."""

    @abstractmethod
    def basis(self) -> str:
        """Return what the conclusion rests on."""

    def stage_at(self, step: int) -> str:
        """Return the name of the stage that a step belongs to, the last one after the end."""
        last = self.stages[-1].name if self.stages else ""
        return next((stage.name for stage in self.stages if step <= stage.last), last)

    def progress(self, step: int) -> str:
        """Return what happens now, and the time that was estimated."""
        stage, minutes = self.stage_at(step), ""
        if self.minutes is not None:
            minutes = f"; estimated before the start: {rough_duration(60 * self.minutes)}"
        return f"Now {self.STAGES.get(stage, stage or 'loading')}{minutes}."

    def names(self) -> dict[str, str]:
        """Return what each source is called, by its run; equal names get the end of the run's id."""
        times = Counter(one.name for one in self.sources)
        return {one.run: one.name if times[one.name] == 1 else f"{one.name} ({one.run[-4:]})" for one in self.sources}

    def notes_text(self) -> str:
        """Return the notes as sentences of one line."""
        return one_line(" ".join(f"{note[:1].upper()}{note[1:]}." for note in self.notes), 600)


class SourcedKind(RunKind):
    """A kind of run that is made of finished runs.

    Attributes:
        result: class of what it records.
    """

    page = "recycle"
    result: ClassVar[type[SourcedResult]]

    def read(self, folder: Path) -> Any:
        """Return what a run has recorded so far."""
        return self.result.read(folder)

    def conclusion(self, result: SourcedResult, chosen: Mapping[str, str] = NOTHING) -> Conclusion:
        """Return the conclusion of the test."""
        return Conclusion(result.headline(), result.basis())

    def progress(self, result: SourcedResult, step: int, chosen: Mapping[str, str] = NOTHING) -> Conclusion:
        """Return the stage of the step until the test is done."""
        return self.conclusion(result) if result.is_tested else Conclusion(result.progress(step), result.basis())

    def headline(self, result: SourcedResult) -> str:
        """Return what was made, and of what."""
        return result.about()
