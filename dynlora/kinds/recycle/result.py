"""What a recycle recorded, and what that says in sentences: teachers, words of the inputs, accuracy.

As little trusted as the rest of a run: a value of another kind counts as one that was never written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BeforeValidator, Field

from dynlora.analysis.stats import FEWEST_PAIRS
from dynlora.kinds.recorded import (
    MAX_ITEMS,
    Interval,
    Number,
    Recorded,
    Rows,
    Short,
    SourcedResult,
    Tally,
    intervals,
    text_of,
)
from dynlora.store import queries
from dynlora.store.meta import count, items, table
from dynlora.store.reader import RunReader
from dynlora.text import one_line, percent, plural, signed

WORDS = "words"
"""Kind of the event that holds the nearest words of a class's inputs."""

MAX_WORD = 80


class Inverted(Recorded):
    """The synthetic inputs of a class.

    Attributes:
        group: position of the class in the pool.
        inputs: for some inputs the nearest word of each token that is left.
        agreement: fraction of the inputs that the teacher assigns to the class; None where unknown.
    """

    group: Tally = 0
    inputs: Rows[Rows[Annotated[str, text_of(MAX_WORD)]]] = Field((), alias="words")
    agreement: Number = None


class Accuracy(Interval):
    """Few-shot accuracy of a method, or its difference from another: mean and 95 % interval over the episodes."""

    @property
    def shots(self) -> int:
        """Examples per class."""
        return int(self.source)


def _accuracy(value: Any) -> tuple[dict[str, Any], ...]:
    """Return the rows of a table by method and number of examples."""
    rows = intervals(value, by_source=False)
    return tuple(row for row in rows if row["source"].isdecimal() and len(row["source"]) < 6)


Accuracies = Annotated[tuple[Accuracy, ...], BeforeValidator(_accuracy)]


class Place(Recorded):
    """The prototype of a class in the plane of the first two principal components."""

    teacher: Short = ""
    name: Short = Field("", alias="class")
    x: Number = None
    y: Number = None


class Recycle(SourcedResult):
    """All that a recycle recorded.

    Attributes:
        classes: "teacher / class" of each class in the pool, in order.
        ways, queries, episodes, iterations, tokens: of its settings; 0 where unknown.
        inverted: by position of the class.
        accuracy: of each method and number of shots.
        against_base: the same, less that of the base model on the same episodes.
        against_averaged: the same, less that of the average of the adapters.
        tested: source, classes, texts and whether no teacher knows them; empty before the test.
        places: of the prototypes.
    """

    KIND = "recycle"
    EVENT = WORDS
    STAGES = {
        "inversion": "making synthetic inputs",
        "episodes": "learning from episodes",
        "noise": "learning from noise",
    }

    classes: tuple[str, ...] = ()
    ways: Tally = 0
    queries: Tally = 0
    episodes: Tally = 0
    iterations: Tally = 0
    tokens: Tally = 0
    inverted: Mapping[int, Inverted] = Field(default_factory=dict[int, Inverted])
    accuracy: Accuracies = ()
    against_base: Accuracies = ()
    against_averaged: Accuracies = ()
    tested: Annotated[Mapping[str, Any], BeforeValidator(table)] = Field(default_factory=dict[str, Any], alias="test")
    places: Rows[Place] = ()

    @classmethod
    def more(cls, reader: RunReader, meta: Mapping[str, Any], payloads: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the classes, the inputs of each by its position, and the prototypes that have a place."""
        inversions = map(Inverted.model_validate, payloads)
        places = map(Place.model_validate, items(meta.get("prototypes"), MAX_ITEMS))
        return {
            "classes": reader.groups(),
            "inverted": {one.group: one for one in inversions},
            "places": [one for one in places if one.x is not None and one.y is not None],
        }

    @property
    def is_tested(self) -> bool:
        """Whether its few-shot accuracy is measured."""
        return bool(self.accuracy)

    def about(self) -> str:
        """Return the line under the title: who taught, and what."""
        ways = f"; an episode asks for {self.ways} of them" if self.ways else ""
        return f"{plural(len(self.sources), 'teacher')} with {len(self.classes):,} classes{ways}"

    def headline(self) -> str:
        """Return the conclusion: how the meta-LoRA compares with the base model, and a way that always beats it."""
        gaps = sorted((one for one in self.against_base if one.model == META), key=lambda one: one.shots)
        simpler = _always_better(self)
        if not gaps:
            sentence = (
                "Not tested yet." if not self.accuracy else "Few-shot accuracy was measured without a base model."
            )
            return f"{sentence} {simpler}".strip()
        if _episodes(self) < FEWEST_PAIRS:
            return f"Too few episodes to compare the meta-LoRA with the base model: {_gaps(gaps)}. {simpler}".strip()
        better = [one for one in gaps if one.low > 0]
        worse = [one for one in gaps if one.high < 0]
        if better:
            but = f" It is worse {_gaps(worse)}." if worse else ""
            return f"The meta-LoRA beats the base model {_gaps(better)}.{but} {_beats_average(self)}{simpler}".strip()
        instead = simpler or "Use the base model."
        if worse:
            return f"The meta-LoRA is worse than the base model {_gaps(worse)}. {instead}"
        return f"The meta-LoRA is not significantly different from the base model {_gaps(gaps)}. {instead}"

    def basis(self) -> str:
        """Return what the conclusion rests on."""
        if not self.accuracy:
            return WHAT
        tested, notes = self.tested, one_line(" ".join(self.notes), 400)
        classes = tested.get("classes")
        of = f" of {classes} classes" if isinstance(classes, int) else ""
        new = (
            "The test is a file that was given, not compared with the teachers' data."
            if tested.get("is_new") is True
            else "The teachers know these classes, so a new task may be harder."
        )
        paired = f"Paired over {_episodes(self):,} episodes{of}, {self.ways} at a time."
        return f"{_simpler(self)}{paired} {new} {notes}".strip()


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
    mine = {row.shots: row for row in result.accuracy if row.model == META}
    paired = {(AVERAGED, row.shots) for row in result.against_averaged if row.model == META and row.high < 0}
    pairs = [
        Better(row.model, row.shots, row.mean, mine[row.shots].mean)
        for row in result.accuracy
        if row.shots in mine and (row.low > mine[row.shots].high or (row.model, row.shots) in paired)
    ]
    return sorted(pairs, key=lambda pair: pair.shots)


def always_better(result: Recycle) -> str | None:
    """Return the method that is better than the meta-LoRA at all its numbers of examples; the best of several."""
    tested = {row.shots for row in result.accuracy if row.model == META}
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
        last = queries.signal_at(folder, "class_agreement", [queries.run_summary(folder).max_steps]).iloc[:, 0]
    except KeyError:
        last = ()
    parts = (name.partition(" / ") for name in result.classes)
    rows = [(own or teacher, teacher, value) for (teacher, _, own), value in zip(parts, last, strict=False)]
    frame = pd.DataFrame(rows, columns=["class", "teacher", "agreement"])
    return frame.sort_values(["agreement", "teacher", "class"], kind="stable").reset_index(drop=True)


def accuracy_frame(rows: tuple[Accuracy, ...]) -> pd.DataFrame:
    """Return few-shot accuracies, or differences of them, with methods in the order of `ORDER`.

    Columns: method, name, shots, mean, low, high.
    """
    places = {method: place for place, method in enumerate(ORDER)}
    ordered = sorted(rows, key=lambda row: (row.shots, places.get(row.model, len(places)), row.model))
    table = [(row.model, method_name(row.model), row.shots, row.mean, row.low, row.high) for row in ordered]
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
    rows = [(one.teacher, one.name, one.x, one.y) for one in result.places]
    return pd.DataFrame(rows, columns=["teacher", "class", "x", "y"])


def teachers_frame(result: Recycle) -> pd.DataFrame:
    """Return the teachers: columns teacher, classes, strategy, rank, run."""
    rows = [[one.name, len(one.classes), one.strategy, one.rank, one.run] for one in result.sources]
    return pd.DataFrame(rows, columns=["teacher", "classes", "strategy", "rank", "run"])


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

WITHOUT_TRAINING = {
    AVERAGED: "Averaging the adapters, without training,",
    "best_teacher": "The best teacher alone, without training,",
}
"""Ways that need no meta-LoRA, as the subject of a sentence."""


def _beats_average(result: Recycle) -> str:
    """Return where the meta-LoRA beats the average of the adapters; nothing where it does not."""
    rows = [row for row in result.against_averaged if row.model == META and row.low > 0]
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
