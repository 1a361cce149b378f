"""What a recycle recorded: its teachers, the words of its synthetic inputs, and how good the meta-LoRA is.

As little trusted as the rest of a run: a value of another kind counts as one that was never written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dynlora.store.meta import count, finite, items, short_text, table
from dynlora.store.reader import RunReader
from dynlora.store.rows import Event

WORDS = "words"
"""Kind of the event that holds the nearest words of a class's inputs."""

MAX_TEACHERS, MAX_CLASSES, MAX_INPUTS, MAX_TOKENS, MAX_NAME, MAX_WORD = 500, 10_000, 64, 512, 200, 80


@dataclass(frozen=True)
class Teacher:
    """A run that taught.

    Attributes:
        run: its id.
        name: its display name.
        classes: names.
        rank: of its adapter; 0 where unknown.
        strategy: its method.
    """

    run: str
    name: str
    classes: tuple[str, ...]
    rank: int
    strategy: str


@dataclass(frozen=True)
class Inverted:
    """The synthetic inputs of a class.

    Attributes:
        group: position of the class in the pool.
        inputs: for some inputs the nearest word of each token that is left.
        agreement: fraction of the inputs that the teacher assigns to the class; None where unknown.
    """

    group: int
    inputs: tuple[tuple[str, ...], ...]
    agreement: float | None


@dataclass(frozen=True)
class Accuracy:
    """Few-shot accuracy of a method, or its difference from another: mean and 95 % interval over the episodes."""

    method: str
    shots: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Place:
    """The prototype of a class in the plane of the first two principal components."""

    teacher: str
    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Recycle:
    """All that a recycle recorded.

    Attributes:
        teachers: in order.
        classes: "teacher / class" of each class in the pool, in order.
        ways, queries, episodes, iterations, tokens: of its settings; 0 where unknown.
        stages: (name, last step) of each, in order.
        inverted: by position of the class.
        accuracy: of each method and number of shots.
        against_base: the same, less that of the base model on the same episodes.
        against_averaged: the same, less that of the average of the adapters.
        methods: what each method is called.
        tested: source, classes, texts and whether no teacher knows them; empty before the test.
        places: of the prototypes.
        minutes: estimated before the start; None where unknown.
        notes: what a person should know of the results.
    """

    teachers: tuple[Teacher, ...]
    classes: tuple[str, ...]
    ways: int
    queries: int
    episodes: int
    iterations: int
    tokens: int
    stages: tuple[tuple[str, int], ...]
    inverted: Mapping[int, Inverted]
    accuracy: tuple[Accuracy, ...]
    against_base: tuple[Accuracy, ...]
    against_averaged: tuple[Accuracy, ...]
    methods: Mapping[str, str]
    tested: Mapping[str, Any]
    places: tuple[Place, ...]
    minutes: float | None
    notes: tuple[str, ...]


def read_recycle(folder: str | os.PathLike[str]) -> Recycle:
    """Return what a recycle has recorded so far.

    Raises:
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        meta = reader.meta(("recycle", "recycle_results", "prototypes", "estimate"))
        events, classes = reader.events(kinds=[WORDS]), reader.groups()
    plan, results = table(meta.get("recycle")), table(meta.get("recycle_results"))
    inversions = [_inverted(event) for event in events]
    return Recycle(
        teachers=tuple(teacher_of(table(row)) for row in items(plan.get("teachers"), MAX_TEACHERS)),
        classes=tuple(classes),
        ways=count(plan.get("ways")),
        queries=count(plan.get("queries")),
        episodes=count(plan.get("episodes")),
        iterations=count(plan.get("iterations")),
        tokens=count(plan.get("tokens")),
        stages=tuple(stage_of(table(row)) for row in items(plan.get("stages"), MAX_TOKENS)),
        inverted={one.group: one for one in inversions},
        accuracy=tuple(_accuracy(results.get("accuracy"))),
        against_base=tuple(_accuracy(results.get("against_base"))),
        against_averaged=tuple(_accuracy(results.get("against_averaged"))),
        methods={str(key): short_text(value, MAX_NAME) for key, value in table(results.get("methods")).items()},
        tested=table(results.get("test")),
        places=tuple(_places(meta.get("prototypes"))),
        minutes=finite(table(meta.get("estimate")).get("minutes")),
        notes=tuple(short_text(note, 1000) for note in items(results.get("notes"), 100)),
    )


def teacher_of(row: Mapping[str, Any]) -> Teacher:
    """Return a teacher as a run recorded it."""
    return Teacher(
        run=short_text(row.get("run"), MAX_NAME),
        name=short_text(row.get("name"), MAX_NAME),
        classes=tuple(short_text(name, MAX_NAME) for name in items(row.get("classes"), MAX_CLASSES)),
        rank=count(row.get("rank")),
        strategy=short_text(row.get("strategy"), MAX_NAME),
    )


def stage_of(row: Mapping[str, Any]) -> tuple[str, int]:
    """Return the name of a stage, and its last step."""
    return short_text(row.get("name"), MAX_NAME), count(row.get("last"))


def _inverted(event: Event) -> Inverted:
    row = table(event.payload)
    inputs = [items(words, MAX_TOKENS) for words in items(row.get("words"), MAX_INPUTS)]
    shortened = tuple(tuple(short_text(word, MAX_WORD) for word in words) for words in inputs)
    return Inverted(count(row.get("group")), shortened, finite(row.get("agreement")))


def intervals_of(value: Any) -> Iterator[tuple[str, str, float, float, float, Mapping[str, Any]]]:
    """Yield each row of a table of tables: its keys, mean, low, high and itself; one without a number is left out."""
    for outer, inner in table(value).items():
        for key, row in table(inner).items():
            mean, low, high = (finite(table(row).get(name)) for name in ("mean", "low", "high"))
            if mean is not None and low is not None and high is not None:
                yield outer[:MAX_NAME], key[:MAX_NAME], mean, low, high, table(row)


def _accuracy(value: Any) -> list[Accuracy]:
    return [
        Accuracy(method, int(shots), mean, low, high)
        for method, shots, mean, low, high, _ in intervals_of(value)
        if shots.isdecimal() and len(shots) < 6
    ]


def _places(value: Any) -> list[Place]:
    rows = [table(row) for row in items(value, MAX_CLASSES)]
    points = [(row, finite(row.get("x")), finite(row.get("y"))) for row in rows]
    return [
        Place(short_text(row.get("teacher"), MAX_NAME), short_text(row.get("class"), MAX_NAME), x, y)
        for row, x, y in points
        if x is not None and y is not None
    ]
