"""What a recycle recorded, and what that says in sentences: teachers, words of the inputs, accuracy.

As little trusted as the rest of a run: a value of another kind counts as one that was never written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.analysis.stats import FEWEST_PAIRS
from dynlora.store import queries
from dynlora.store.meta import count, finite, items, short_text, table
from dynlora.store.reader import RunReader
from dynlora.store.rows import Event
from dynlora.text import one_line, percent, plural, rough_duration, signed

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


META, BASE, AVERAGED = "meta", "base", "averaged"
ORDER = (META, BASE, AVERAGED, "best_teacher", "noise")
"""Methods in the order in which they are shown."""

NAMES = {
    META: "Meta-LoRA",
    BASE: "Base model",
    AVERAGED: "Average of the adapters",
    "best_teacher": "Best teacher",
    "noise": "Meta-LoRA on noise (control)",
}

LOW = 0.95
"""Agreement below this is named: the teacher does not see its class in the inputs."""

MOST_NAMED = 24
"""Classes that an axis can name."""

POINTS = 600
"""Most points of a series."""

WINDOW = 15
"""Episodes of which the band of their accuracy is made."""


def method_name(method: str) -> str:
    """Return what a method is called."""
    return NAMES.get(method, method.replace("_", " ").capitalize())


@dataclass(frozen=True)
class Better:
    """A method that is better than the meta-LoRA at a number of examples: by the paired interval, or both apart.

    Attributes:
        method: which.
        shots: examples per class.
        other: its mean accuracy.
        meta: that of the meta-LoRA.
    """

    method: str
    shots: int
    other: float
    meta: float


def better_than_meta(result: Recycle) -> list[Better]:
    """Return every method that is better than the meta-LoRA, at each number of examples, the fewest first."""
    mine = {row.shots: row for row in result.accuracy if row.method == META}
    paired = {(AVERAGED, row.shots) for row in result.against_averaged if row.method == META and row.high < 0}
    pairs = [
        Better(row.method, row.shots, row.mean, mine[row.shots].mean)
        for row in result.accuracy
        if row.shots in mine and (row.low > mine[row.shots].high or (row.method, row.shots) in paired)
    ]
    return sorted(pairs, key=lambda pair: pair.shots)


def always_better(result: Recycle) -> str | None:
    """Return the method that is better than the meta-LoRA at all its numbers of examples; the best of several."""
    tested = {row.shots for row in result.accuracy if row.method == META}
    pairs = better_than_meta(result)
    sums: dict[str, float] = {}
    for method in {pair.method for pair in pairs}:
        own = {pair.shots: pair.other for pair in pairs if pair.method == method}
        if own.keys() == tested:
            sums[method] = sum(own.values())
    return max(sums, key=lambda method: (sums[method], method), default=None)


def agreement_frame(result: Recycle, folder: Path) -> pd.DataFrame:
    """Return the last agreement of each class, the lowest first: columns class, teacher, agreement.

    Args:
        result: of the recycle.
        folder: of the run.
    """
    try:
        last = queries.signal_at(folder, "class_agreement", [queries.run_summary(folder)["max_steps"]]).iloc[:, 0]
    except KeyError:
        return pd.DataFrame(columns=["class", "teacher", "agreement"])
    rows = [
        {"class": name.partition(" / ")[2] or name, "teacher": name.partition(" / ")[0], "agreement": value}
        for name, value in zip(result.classes, last.tolist(), strict=False)
    ]
    frame = pd.DataFrame(rows, columns=["class", "teacher", "agreement"])
    return frame.sort_values(["agreement", "teacher", "class"], kind="stable").reset_index(drop=True)


def accuracy_frame(rows: tuple[Accuracy, ...]) -> pd.DataFrame:
    """Return few-shot accuracies, or differences of them, with methods in the order of `ORDER`.

    Columns: method, name, shots, mean, low, high.
    """
    places = {method: place for place, method in enumerate(ORDER)}
    ordered = sorted(rows, key=lambda row: (row.shots, places.get(row.method, len(places)), row.method))
    table = [
        {
            "method": row.method,
            "name": method_name(row.method),
            "shots": row.shots,
            "mean": row.mean,
            "low": row.low,
            "high": row.high,
        }
        for row in ordered
    ]
    return pd.DataFrame(table, columns=["method", "name", "shots", "mean", "low", "high"])


def episodes_frame(scalars: pd.DataFrame) -> pd.DataFrame:
    """Return the episodes' accuracy with a band of its spread: columns step, value, mean, low, high.

    The band is the mean over `WINDOW` episodes, one standard deviation up and down, within 0 and 1.

    Args:
        scalars: as `queries.scalars_frame` returns them.
    """
    rows = scalars[(scalars["name"] == "episode_accuracy") & (scalars["split"] == META)][["step", "value"]]
    window = rows["value"].rolling(WINDOW, min_periods=1, center=True)
    mean, spread = window.mean(), window.std().fillna(0.0)
    return rows.assign(mean=mean, low=(mean - spread).clip(0, 1), high=(mean + spread).clip(0, 1)).reset_index(
        drop=True
    )


def places_frame(result: Recycle) -> pd.DataFrame:
    """Return the prototypes in the plane: columns teacher, class, x, y."""
    rows = [{"teacher": one.teacher, "class": one.name, "x": one.x, "y": one.y} for one in result.places]
    return pd.DataFrame(rows, columns=["teacher", "class", "x", "y"])


def stage_at(result: Recycle, step: int) -> str:
    """Return the name of the stage that a step belongs to, the last one after the end."""
    return next((name for name, last in result.stages if step <= last), result.stages[-1][0] if result.stages else "")


def teachers_frame(result: Recycle) -> pd.DataFrame:
    """Return the teachers: columns teacher, classes, strategy, rank, run."""
    rows = [[one.name, len(one.classes), one.strategy, one.rank, one.run] for one in result.teachers]
    return pd.DataFrame(rows, columns=["teacher", "classes", "strategy", "rank", "run"])


TEACH = "Runs teach one LoRA"
"""What teachers are picked for."""

NO_TEACHER = (
    "No finished run can teach yet. A teacher is a run that classifies, or writes texts, and kept its adapter: launch "
    "one first."
)

WHAT = (
    "Finished classifiers teach one meta-LoRA, without their data: synthetic inputs are made of each teacher, and the "
    "meta-LoRA learns to tell their classes by a few examples. A new task then needs a few examples and no training."
)
PURPOSE = (
    "One adapter is made of several finished ones, without their data: for when you have many adapters, or their data "
    "is gone."
)
EVIDENCE = (
    "Recorded on 60 new intents, one example per class: the meta-LoRA beat the average of 4 adapters of smollm2-135m "
    "by 2.2 points (95 % CI 0.6 to 3.8, 3 seeds). It did not beat the average of 12 adapters of minilm: +0.1 points "
    "(\N{MINUS SIGN}0.3 to +0.5, one seed). Test yours."
)
"""What `benchmarks/results/recycle-*.json` have, where it wins and where it does not."""

STAGES = {"inversion": "making synthetic inputs", "episodes": "learning from episodes", "noise": "learning from noise"}
"""What happens in each stage."""

WITHOUT_TRAINING = {
    AVERAGED: "Averaging the adapters, without training,",
    "best_teacher": "The best teacher alone, without training,",
}
"""Ways that need no meta-LoRA, as the subject of a sentence."""


def about(result: Recycle) -> str:
    """Return the line under the title: who taught, and what."""
    ways = f"; an episode asks for {result.ways} of them" if result.ways else ""
    return f"{plural(len(result.teachers), 'teacher')} with {len(result.classes):,} classes{ways}"


def headline(result: Recycle) -> str:
    """Return the conclusion: how the meta-LoRA compares with the base model, and a way that always beats it."""
    gaps = sorted((one for one in result.against_base if one.method == META), key=lambda one: one.shots)
    simpler = _always_better(result)
    if not gaps:
        sentence = "Not tested yet." if not result.accuracy else "Few-shot accuracy was measured without a base model."
        return f"{sentence} {simpler}".strip()
    if _episodes(result) < FEWEST_PAIRS:
        return f"Too few episodes to compare the meta-LoRA with the base model: {_gaps(gaps)}. {simpler}".strip()
    better = [one for one in gaps if one.low > 0]
    worse = [one for one in gaps if one.high < 0]
    if better:
        but = f" It is worse {_gaps(worse)}." if worse else ""
        return f"The meta-LoRA beats the base model {_gaps(better)}.{but} {_beats_average(result)}{simpler}".strip()
    instead = simpler or "Use the base model."
    if worse:
        return f"The meta-LoRA is worse than the base model {_gaps(worse)}. {instead}"
    return f"The meta-LoRA is not significantly different from the base model {_gaps(gaps)}. {instead}"


def _beats_average(result: Recycle) -> str:
    """Return where the meta-LoRA beats the average of the adapters; nothing where it does not."""
    rows = [row for row in result.against_averaged if row.method == META and row.low > 0]
    ordered = sorted(rows, key=lambda row: row.shots)
    return f"It beats the average of the adapters too, {_gaps(ordered)}. " if rows else ""


def _at_each(differences: Sequence[tuple[int, str]]) -> str:
    """Return what is said of each number of examples, the unit once: at 1 example per class: a; at 5: b."""
    first = differences[0][0] if differences else 0
    unit = " example per class" if first == 1 else " examples per class"
    return "; ".join(f"at {shots}{unit if shots == first else ''}: {what}" for shots, what in differences)


def _gaps(rows: Sequence[Accuracy]) -> str:
    """Return the difference from the base model at each number of examples, with its interval."""
    return _at_each([(row.shots, _gap(row)) for row in rows])


def _gap(row: Accuracy) -> str:
    low, mean, high = (signed(100 * value, 1) for value in (row.low, row.mean, row.high))
    return f"{mean} points (95 % CI {low} to {high})"


def basis(result: Recycle) -> str:
    """Return what the conclusion rests on."""
    if not result.accuracy:
        return WHAT
    tested, notes = result.tested, one_line(" ".join(result.notes), 400)
    classes = tested.get("classes")
    of = f" of {classes} classes" if isinstance(classes, int) else ""
    new = (
        "The test is a file that was given, not compared with the teachers' data."
        if tested.get("is_new") is True
        else "The teachers know these classes, so a new task may be harder."
    )
    paired = f"Paired over {_episodes(result):,} episodes{of}, {result.ways} at a time."
    return f"{_simpler(result)}{paired} {new} {notes}".strip()


def _simpler(result: Recycle) -> str:
    """Return which ways are better at some numbers of examples, the best at each; nothing that the headline says."""
    pairs = [pair for pair in better_than_meta(result) if pair.method != always_better(result)]
    best = {pair.shots: pair for pair in sorted(pairs, key=lambda pair: pair.other)}
    sentences = [best[shots] for shots in sorted(best)]
    methods = dict.fromkeys(pair.method for pair in sentences)
    return "".join(
        f"{method_name(method)} is better {_against([pair for pair in sentences if pair.method == method])}. "
        for method in methods
    )


def _always_better(result: Recycle) -> str:
    """Return the way that is better than the meta-LoRA at every number of examples; nothing where it is the base."""
    method = always_better(result)
    if method in (None, BASE):
        return ""
    pairs = [pair for pair in better_than_meta(result) if pair.method == method]
    return f"{WITHOUT_TRAINING.get(method, method_name(method))} is better {_against(pairs)}."


def _against(pairs: Sequence[Better]) -> str:
    """Return the accuracies of a way and of the meta-LoRA at each number of examples."""
    return _at_each([(pair.shots, f"{percent(pair.other)} against {percent(pair.meta)}") for pair in pairs])


def _episodes(result: Recycle) -> int:
    """Return the episodes of the test; 0 where unknown."""
    return max((count(value) for value in table(result.tested.get("episodes")).values()), default=0)


def progress(result: Recycle, step: int) -> str:
    """Return what happens now, and the time that was estimated."""
    stage = stage_at(result, step)
    minutes = "" if result.minutes is None else f"; estimated before the start: {rough_duration(60 * result.minutes)}"
    return f"Now {STAGES.get(stage, stage or 'loading')}{minutes}."
