"""A recycle from its settings to its end: the folder, the steps, the results, and what survives a stop or a crash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dynlora.engine.loop.adapter_state import load_adapter_state
from dynlora.engine.loop.hardware import describe_machine
from dynlora.errors import ConfigError, DataError, DynloraError
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.few_shot_accuracy import (
    METHODS,
    TEXTS_A_CLASS,
    AveragedTeachers,
    FewShotTest,
    against,
    held_out_texts,
    summarised,
    teacher_features,
    texts_of_file,
)
from dynlora.kinds.recycle.work.materials import Materials
from dynlora.kinds.recycle.work.meta_training import MetaTraining, SyntheticPool
from dynlora.kinds.recycle.work.steps import Recycling
from dynlora.store.writer import RunWriter
from dynlora.training.folder_work import Outcome
from dynlora.training.progress_stream import StopRequest
from dynlora.training.stepwise import fastest_s, keep_adapter, results_of, run_steps, tell_estimate


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
        materials, averaged = self.recycling.materials, AveragedTeachers()
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
            self._take("averaged", averaged.features(materials.meta, texts))

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


def resume(folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Outcome:
    """Start a recycle, or continue it from its last checkpoint.

    Raises:
        ConfigError: when it is finished, running, or may be running elsewhere.
        CorruptRunError: when it cannot be read.
    """
    load = partial(_load, RecycleSettings.of_run(folder), folder.parent)
    return run_steps(folder, load, _finish, begin=_begin, force=force, progress=progress, is_new=is_new)


def _load(settings: RecycleSettings, runs_dir: Path, writer: RunWriter) -> Recycling:
    """Return the recycle before its first step."""
    writer.log("info", f"Loading {len(settings.teachers)} teachers' base model")
    writer.commit()
    return Recycling(Materials.load(settings, runs_dir), writer)


def _begin(recycling: Recycling, writer: RunWriter) -> None:
    """Tell the store what the recycle is, and before its first step how long it takes.

    Raises:
        DataError, ConfigError: when the file of the test cannot be used: now, not after the work.
    """
    _describe(writer, recycling)
    recycling.define()
    if recycling.materials.settings.test is not None:
        RecycleMetrics.of(recycling)
    if recycling.step == 0:
        tell_estimate(writer, estimated(recycling.materials))


def _describe(writer: RunWriter, recycling: Recycling) -> None:
    """Tell the store what the recycle is made of, where it runs and how long it is."""
    materials = recycling.materials
    of = materials.settings
    device = materials.meta.device
    writer.set_meta("machine", describe_machine(device, materials.precision))
    writer.set_meta("params", materials.meta.adapters.adapter_parameter_count())
    writer.set_meta(
        "recycle",
        {
            "teachers": [teacher.described() for teacher in materials.teachers],
            "ways": of.ways,
            "shots": list(of.shots),
            "queries": of.queries,
            "episodes": of.episodes,
            "iterations": of.iterations,
            "tokens": of.tokens,
            "public_text_digest": materials.digest,
            "model": materials.meta.base.folder.name,
            "stages": recycling.stages,
            "pooling": materials.meta.pooling,
            "kept": of.kept,
        },
    )


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
