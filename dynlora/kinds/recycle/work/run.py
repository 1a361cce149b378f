"""A recycle from its settings to its end, and its test: how each way of making features does on the same episodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlora.analysis.stats import normal_reach
from dynlora.data_files.reader import read_table
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import load_adapter_state
from dynlora.engine.loop.hardware import describe_machine
from dynlora.engine.model.base_model import BaseModel
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError, DataError, DynloraError
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.few_shot import EpisodeDraw, episode_accuracy, rows_of_classes
from dynlora.kinds.recycle.work.materials import Materials
from dynlora.kinds.recycle.work.steps import MetaTraining, Recycling, SyntheticPool
from dynlora.kinds.recycle.work.token_space import MetaModel
from dynlora.kinds.sources import AveragedSources, Source, resumed
from dynlora.store.writer import RunWriter
from dynlora.training.progress_stream import StopRequest
from dynlora.training.stepwise import fastest_s, keep_adapter, results_of, tell_estimate

QUERIES = 15
"""Query examples of a class in a test episode."""

TEXTS_A_CLASS = 60
"""Texts of a class in a test, at most: each way reads all of them once."""

METHODS: Mapping[str, str] = {
    "base": "base model, prototypes",
    "averaged": "average of the teachers' adapters, prototypes",
    "best_teacher": "best single teacher, prototypes",
    "meta": "meta-LoRA on inverted inputs, prototypes",
    "noise": "meta-LoRA on inputs that were not inverted (control), prototypes",
}
"""What is compared, and what each is."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts of classes that nobody trained the meta-LoRA on.

    Attributes:
        texts: all of them.
        label: class index of each, (n,).
        classes: names of the classes.
        source: where they are from, for people.
    """

    texts: list[str]
    label: np.ndarray
    classes: list[str]
    source: str

    def at_most(self, n: int, seed: int) -> LabelledTexts:
        """Return at most n texts of each class, drawn once by key, in their order."""
        rng = np.random.default_rng(stream_seed(seed, "test texts"))
        chosen = np.sort(np.concatenate([rng.permutation(rows)[:n] for rows in rows_of_classes(self.label)]))
        return replace(self, texts=[self.texts[row] for row in chosen], label=self.label[chosen])


def texts_of_file(path: Path, text: str = "text", label: str = "label", *, once: bool = False) -> LabelledTexts:
    """Return the labelled texts of a table.

    Args:
        path: of the table.
        text: its column of texts.
        label: its column of labels.
        once: keep of a text that is repeated the first row alone, so that no episode asks for what it was given.

    Raises:
        DataError: when it cannot be read, or has no such columns; of a test (`once`) they have fixed names.
    """
    table = read_table(path)
    for name, option in ((text, "--text-column"), (label, "--label-column")):
        if name not in table.columns:
            remedy = f"rename one to {name}" if once else f"name one with {option}"
            raise DataError(
                f"{'--test' if once else '--support'} {path.name}: has no column {name}; {remedy} "
                f"({', '.join(table.columns)[:200]})"
            )
    columns = zip(table.values(text), table.values(label), strict=True)
    rows = [(str(one), str(of)) for one, of in columns if one not in (None, "") and of is not None]
    if not rows:
        raise DataError(f"{'--test' if once else '--support'} {path.name}: has no row with text and label; add some")
    if once:
        rows = _first_of_each(rows)
    classes = list(dict.fromkeys(of for _, of in rows))
    index = {name: number for number, name in enumerate(classes)}
    return LabelledTexts([one for one, _ in rows], np.array([index[of] for _, of in rows]), classes, path.name)


def _first_of_each(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the first of the rows (text, label) of each text; blanks around a text do not make it another."""
    first: dict[str, tuple[str, str]] = {}
    for row in rows:
        first.setdefault(row[0].strip(), row)
    return list(first.values())


def held_out_texts(teachers: Sequence[Source]) -> tuple[LabelledTexts, list[str]]:
    """Return the held-out texts of the teachers' own data that can still be read, and sentences on what cannot.

    Classes of different teachers are different classes; a text counts once, for the first teacher that has it.
    """
    texts: dict[str, int] = {}
    classes: list[str] = []
    notes: list[str] = []
    for teacher in teachers:
        try:
            rows, labels = teacher.held_out()
        except DynloraError as error:
            notes.append(str(error))
            continue
        for text, label in zip(rows.text, rows.label, strict=True):
            texts.setdefault(text, int(label) + len(classes))
        classes += [f"{teacher.name} / {name}" for name in labels]
    label = np.array(list(texts.values()), dtype=int)
    return LabelledTexts(list(texts), label, classes, "held-out examples of the teachers' data"), notes


@dataclass(frozen=True)
class FewShotTest:
    """The episodes of a test.

    Attributes:
        data: the texts.
        episodes: by number of shots.
    """

    data: LabelledTexts
    episodes: dict[int, list[Any]]

    @classmethod
    def of(cls, data: LabelledTexts, *, ways: int, shots: Sequence[int], episodes: int, seed: int) -> FewShotTest:
        """Draw the episodes.

        Raises:
            ConfigError: when the texts have too few classes or examples for any number of shots.
        """
        texts: dict[int, list[Any]] = {}
        for number in shots:
            rows = rows_of_classes(data.label, number + 1)
            if len(rows) >= ways:
                draw = EpisodeDraw(rows, ways, (number,), QUERIES, seed, "test episode")
                texts[number] = list(draw.first(episodes))
        if not texts:
            raise ConfigError(
                f"test {data.source}: has too few classes of more than {min(shots)} examples for {ways} ways; give a "
                "file with more, or lower ways"
            )
        return cls(data, texts)

    def accuracy(self, features: Tensor) -> dict[int, np.ndarray]:
        """Return the accuracy of each episode by shots, of features of all texts, (n, d)."""
        return {
            shots: np.array([episode_accuracy(features, episode) for episode in episodes])
            for shots, episodes in self.episodes.items()
        }


def mean_and_interval(values: np.ndarray) -> dict[str, float]:
    """Return the mean of accuracies, or their differences, and its 95 % interval (normal) over episodes."""
    mean = float(values.mean())
    half = normal_reach(values) if len(values) > 1 else 0.0
    return {"mean": mean, "low": max(mean - half, -1.0), "high": min(mean + half, 1.0)}


ByMethod = Mapping[str, Mapping[int, np.ndarray]]
"""Accuracy of each episode, by method and shots."""


def summarised(by_method: ByMethod) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean and interval by method and shots."""
    return {
        method: {str(shots): mean_and_interval(values) for shots, values in by_shots.items()}
        for method, by_shots in by_method.items()
    }


def against(by_method: ByMethod, other: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean and interval of the paired differences from another method, by method and shots."""
    theirs = by_method.get(other, {})
    rest = {name: by_shots for name, by_shots in by_method.items() if name != other}
    return summarised(
        {
            name: {shots: values - theirs[shots] for shots, values in by_shots.items() if shots in theirs}
            for name, by_shots in rest.items()
        }
    )


def teacher_features(model: AdaptedModel, meta: MetaModel, texts: Sequence[str]) -> Tensor:
    """Return the pooled state of texts in a teacher's backbone, (n, d).

    Raises:
        DynloraError: when the teacher is several members, which have no one state.
    """
    backbone: Any = model.base.model.base_model
    base = BaseModel(backbone, model.base.tokenizer, [], model.base.folder, model.base.task)
    return MetaModel(base, model.adapters, meta.pooling, meta.max_length).text_features(texts)


@torch.no_grad()
def averaged_features(averaged: AveragedSources, meta: MetaModel, texts: Sequence[str]) -> Tensor:
    """Return the pooled state of texts in a backbone with the mean weights, (n, d); those of `meta` are put back."""
    frozen = {
        f"{module.info.name}.{kind}": tensor
        for module in meta.adapters
        for kind, tensor in module.base_layer.named_parameters()
    }
    with averaged.replacing(frozen), meta.adapters.disabled():
        return meta.text_features(texts)


@dataclass
class RecycleMetrics:
    """Few-shot accuracy by method, as far as it is measured.

    Attributes:
        recycling: whose last step is done.
        test: the episodes; None where no labelled text can be read.
        notes: what a person should know, in sentences.
        accuracy: of each episode, by method and shots.
        best: id of the best single teacher, once known.
    """

    recycling: Recycling
    test: FewShotTest | None = None
    notes: list[str] = field(default_factory=list)
    accuracy: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    best: str | None = None

    @classmethod
    def of(cls, recycling: Recycling) -> RecycleMetrics:
        """Read the texts of the test and draw its episodes; without texts there is a note instead.

        Raises:
            DataError, ConfigError: when a file that was asked for cannot be used.
        """
        settings = recycling.materials.settings
        measured = cls(recycling)
        if settings.test is not None:
            data = texts_of_file(Path(os.path.expanduser(settings.test)), once=True)
        else:
            data, measured.notes = held_out_texts(recycling.materials.teachers)
        try:
            few = data.at_most(TEXTS_A_CLASS, settings.seed) if data.texts else data
            measured.test = FewShotTest.of(
                few, ways=settings.ways, shots=settings.shots, episodes=settings.test_episodes, seed=settings.seed
            )
        except ConfigError as error:
            if settings.test is not None:
                raise
            measured.notes.append(str(error))
        return measured

    def measure(self) -> Iterator[str]:
        """Measure one way after the other; yields the name of each before it is measured."""
        if self.test is None:
            return
        meta, texts = self.recycling.materials.meta, self.test.data.texts
        yield "base"
        with meta.adapters.disabled():
            self._take("base", meta.text_features(texts))
        self.recycling.use_learned()
        yield "meta"
        self._take("meta", meta.text_features(texts))
        if self.recycling.control is not None:
            yield "noise"
            load_adapter_state(meta.adapters, self.recycling.control)
            self._take("noise", meta.text_features(texts))
            self.recycling.use_learned()
        yield from self._measure_teachers(texts)

    def _measure_teachers(self, texts: list[str]) -> Iterator[str]:
        """Measure each teacher alone, and their average."""
        materials, averaged = self.recycling.materials, AveragedSources()
        alone: dict[str, dict[int, np.ndarray]] = {}
        for index, teacher in enumerate(materials.teachers):
            yield f"teacher {teacher.name}"
            model = materials.teacher(index)
            features = self._tried(lambda model=model: teacher_features(model, materials.meta, texts), teacher.run)
            if features is not None and self.test is not None:
                alone[teacher.run] = self.test.accuracy(features)
            self._tried(lambda model=model: averaged.add(model), teacher.run)
            materials.forget_teacher()
        if alone:
            self.best = max(alone, key=lambda run: float(np.mean([part.mean() for part in alone[run].values()])))
            self.accuracy["best_teacher"] = alone[self.best]
        if averaged.count == len(materials.teachers):
            yield "averaged"
            self._take("averaged", averaged_features(averaged, materials.meta, texts))

    def _take(self, method: str, features: Tensor) -> None:
        if self.test is not None:
            self.accuracy[method] = self.test.accuracy(features)

    def _tried(self, measure: Callable[[], Any], run: str) -> Any:
        """Return what is measured of a teacher, or None and a note where its method does not allow it."""
        try:
            return measure()
        except DataError:
            raise
        except DynloraError as error:
            self.notes.append(f"teacher {run} is left out of a comparison ({error})")
            return None

    def document(self, run_id: str) -> dict[str, Any]:
        """Return the results as the command prints them."""
        test = self.test
        return {
            "id": run_id,
            "accuracy": summarised(self.accuracy),
            "against_base": against(self.accuracy, "base"),
            "against_averaged": against(self.accuracy, "averaged"),
            "methods": {name: METHODS[name] for name in self.accuracy},
            "best_teacher": self.best,
            "test": None
            if test is None
            else {
                "source": test.data.source,
                "classes": len(test.data.classes),
                "texts": len(test.data.texts),
                "episodes": {str(shots): len(episodes) for shots, episodes in test.episodes.items()},
                "is_new": self.recycling.materials.settings.test is not None,
            },
            "notes": self.notes,
        }


def _begin(recycling: Recycling, writer: RunWriter) -> None:
    """Tell the store what the recycle is, and before its first step how long it takes.

    Raises:
        DataError, ConfigError: when the file of the test cannot be used: now, not after the work.
    """
    materials = recycling.materials
    of = materials.settings
    device = materials.meta.device
    writer.set_meta("machine", describe_machine(device, materials.precision))
    writer.set_meta("params", materials.meta.adapters.adapter_parameter_count())
    writer.set_meta(
        "recycle",
        {
            "teachers": [teacher.described() for teacher in materials.teachers],
            **of.model_dump(mode="json", include={"ways", "shots", "queries", "episodes", "iterations", "tokens"}),
            "public_text_digest": materials.digest,
            "model": materials.meta.base.folder.name,
            "stages": recycling.stages,
            "pooling": materials.meta.pooling,
            "kept": of.kept,
        },
    )
    recycling.define()
    if recycling.materials.settings.test is not None:
        RecycleMetrics.of(recycling)
    if recycling.step == 0:
        tell_estimate(writer, estimated(recycling.materials))


def _finish(recycling: Recycling, writer: RunWriter, stop: StopRequest) -> bool:
    """Measure the results and keep the meta-LoRA, all of it safe on the disk; False when asked to stop meanwhile.

    Raises:
        OSError: when the disk does not take them; the checkpoint is still there then.
    """
    results = results_of(RecycleMetrics.of(recycling), writer, stop)
    if results is None:
        return False
    recycling.use_learned()
    writer.set_meta("prototypes", recycling.prototypes())
    writer.set_meta("recycle_results", results)
    meta = recycling.materials.meta
    keep_adapter(
        meta.adapters,
        writer,
        step=recycling.step,
        task="classification",
        pooling=meta.pooling,
        max_length=meta.max_length,
    )
    return True


resume = partial(resumed, RecycleSettings, Materials, Recycling, _begin, _finish)
"""Starts a recycle, or continues it from its last checkpoint; takes the folder of the run."""


def estimated(materials: Materials) -> dict[str, Any]:
    """Return minutes (of all, and by stage), steps, parts and classes of a recycle; nothing is kept.

    The test at the end is left out: it reads each test text once for every teacher.
    """
    of, parts = materials.settings, materials.parts
    search = materials.inversion(0)
    step_s = fastest_s(search.advance)
    drop_at = of.drop_at or of.iterations
    later = of.kept / of.tokens if materials.space.gathers else 1.0
    inversion_s = len(parts) * step_s * (drop_at + later * (of.iterations - drop_at))
    training = MetaTraining(materials.meta, _probe_pool(materials), of, materials.autocast)
    episodes_s = of.episodes * (2 if of.noise else 1) * (fastest_s(training.advance) if of.episodes else 0.0)
    materials.forget_learning()
    return {
        "minutes": round((inversion_s + episodes_s) / 60, 2),
        "inversion_minutes": round(inversion_s / 60, 2),
        "episodes_minutes": round(episodes_s / 60, 2),
        "parts": len(parts),
        "classes": sum(len(part.classes) for part in parts),
    }


def _probe_pool(materials: Materials) -> SyntheticPool:
    """Return a pool of the right size whose inputs nobody searched: those of one class stand for all."""
    of, space = materials.settings, materials.space
    search = materials.inversion(0)
    z = search.z.detach()[: of.inputs]
    inputs = space.inputs(space.place(z))
    length = len(space.before) + of.kept + len(space.after)
    short = replace(
        inputs,
        embedded=inputs.embedded[:, :length],
        positions=inputs.positions[:, :length],
        mask=inputs.mask[:, :length],
    )
    return SyntheticPool([np.arange(of.inputs)] * of.ways, short)
