"""Ways of making features: meta-LoRAs that learn from one source each, and what one has without learning."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks import results
from benchmarks.recycle.setting import BEGAN, DROPPING, FEW, MODULE, VARIANTS
from benchmarks.recycle.tables import three
from benchmarks.recycle.work import Work, digest_of
from dynlora.kinds.recycle.work.run import FewShotTest, averaged_features, teacher_features
from dynlora.kinds.recycle.work.steps import MetaTraining, Pool, Recycling
from dynlora.kinds.recycle.work.token_space import MetaModel
from dynlora.kinds.sources import AveragedSources


@dataclass(frozen=True)
class TextPool:
    """Texts whose classes are known.

    Attributes:
        rows: of each class, places among the texts.
        texts: all of them.
    """

    rows: Sequence[np.ndarray]
    texts: list[str]

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the pooled state of some texts, (n, d)."""
        return meta.features(meta.tokens([self.texts[row] for row in rows]))


def real_pool(work: Work) -> TextPool:
    """Return the data that the teachers learned from."""
    of = work.setting
    taught = work.intents.taught[: of.teachers * of.classes]
    rows = work.intents.train[work.intents.train["label"].isin(taught)].reset_index(drop=True)
    return TextPool([np.flatnonzero(rows["label"] == name) for name in taught], list(rows["text"]))


def pool_of(work: Work, source: str) -> tuple[Recycling, Pool]:
    """Return what a meta-LoRA learns from."""
    if source in DROPPING:
        few = min(FEW, work.setting.teachers)
        recycling = work.recycling(drop=DROPPING[source], teachers=few)
        return recycling, recycling.pool()
    recycling = work.recycling()
    if source == "real":
        return recycling, real_pool(work)
    return recycling, recycling.pool(control=source == "noise", words=source == "words")


def learned(work: Work, test: FewShotTest, source: str, seed: int) -> None:
    """Train a meta-LoRA and keep its accuracy."""
    recycling, pool = pool_of(work, source)
    materials = recycling.materials
    settings = materials.settings.model_copy(update={"seed": seed})
    materials.forget_learning()
    for module in materials.meta.adapters:
        module.reset_parameters(seed)
    training_ = MetaTraining(materials.meta, pool, settings, materials.autocast)
    start = time.process_time()
    first = []
    while not training_.is_done:
        training_.advance()
        first = [*first, training_.accuracy][:10]
    work.figures["seconds"][f"episodes, {source}, seed {seed}"] = time.process_time() - start
    work.figures.setdefault("first_episodes", {})[f"{source}, seed {seed}"] = float(np.mean(first))
    work.take(f"{source}, seed {seed}", test.accuracy(materials.meta.text_features(test.data.texts)))


def tune(work: Work, file: str) -> None:
    """Compare settings on intents that neither teachers nor the test have; print them, and write them after each."""
    of = work.setting
    test = work.test(sorted(work.intents.taught[of.teachers * of.classes :]))
    kept: dict[str, Any] = work.figures.setdefault("tuning", {})
    gains: dict[str, Any] = {}
    for name, values in VARIANTS.items():
        settings = work.settings(min(FEW, of.teachers), **{**BEGAN, **values})
        key = digest_of(settings)
        if key not in kept:
            recycling = work.inverted(f"tuning, {name}", settings)
            materials = recycling.materials
            training_ = MetaTraining(materials.meta, recycling.pool(), materials.settings, materials.autocast)
            with materials.meta.adapters.disabled():
                base = test.accuracy(materials.meta.text_features(test.data.texts))
            while not training_.is_done:
                training_.advance()
            accuracy = test.accuracy(materials.meta.text_features(test.data.texts))
            kept[key] = {str(shots): three(values - base[shots]) for shots, values in accuracy.items()}
            work.keep()
        gains[name] = kept[key]
        results.write(f"{file}-tune", {"setting": vars(of), "teachers": FEW, "against base": gains}, MODULE)
        print(f"{name}: " + ", ".join(f"{s}-shot {100 * v[0]:+.2f} points" for s, v in gains[name].items()), flush=True)


def linear(features: torch.Tensor, test: FewShotTest) -> dict[int, np.ndarray]:
    """Return the accuracy of a logistic regression on the support's features, episode by episode."""
    table = features.numpy()
    accuracies = {}
    for shots, episodes in test.episodes.items():
        values = []
        for episode in episodes:
            ways, queries = episode.query.shape
            head = LogisticRegression(C=1.0, max_iter=200)
            head.fit(table[episode.support.ravel()], np.arange(ways).repeat(shots))
            right = head.predict(table[episode.query.ravel()]) == np.arange(ways).repeat(queries)
            values.append(right.mean())
        accuracies[shots] = np.array(values)
    return accuracies


def without_learning(work: Work, test: FewShotTest) -> None:
    """Keep the accuracy of the base, of a linear head on it, of each teacher and of their average."""
    materials = work.recycling().materials
    with materials.meta.adapters.disabled():
        features = materials.meta.text_features(test.data.texts)
    work.take("base", test.accuracy(features))
    work.take("linear head", linear(features, test))
    averaged = AveragedSources()
    for number, _ in enumerate(materials.teachers):
        model = materials.teacher(number)
        work.take(f"teacher {number}", test.accuracy(teacher_features(model, materials.meta, test.data.texts)))
        averaged.add(model)
        materials.forget_teacher()
    work.take("averaged", test.accuracy(averaged_features(averaged, materials.meta, test.data.texts)))
