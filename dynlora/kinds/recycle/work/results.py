"""The results of a recycle: few-shot accuracy of the meta-LoRA beside what one had before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dynlora.engine.loop.adapter_state import load_adapter_state
from dynlora.errors import ConfigError, DataError, DynloraError
from dynlora.kinds.recycle.work.few_shot_accuracy import (
    METHODS,
    TEXTS_A_CLASS,
    AveragedTeachers,
    FewShotTest,
    against_base,
    held_out_texts,
    summarised,
    teacher_features,
    texts_of_file,
)
from dynlora.kinds.recycle.work.steps import Recycling


@dataclass
class Measured:
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
    def of(cls, recycling: Recycling) -> Measured:
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
            "against_base": against_base(self.accuracy),
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
