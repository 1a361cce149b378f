"""The use of a recycle: a few labelled texts of a new task, and predictions at once, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlora import assets
from dynlora.engine.loop.adapter_state import checked_state, load_adapter_state
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.errors import ConfigError, CorruptRunError
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.episodes import distances
from dynlora.kinds.recycle.work.meta_model import MetaModel, add_meta_lora, load_backbone
from dynlora.store.meta import section, text, whole
from dynlora.store.reader import RunReader

MOST_SUPPORT = 2000
"""Support texts at most."""

Support = Mapping[str, Sequence[str]] | Sequence[tuple[str, str]]
"""Texts by label, or (text, label) pairs."""


@dataclass(frozen=True)
class FewShot:
    """A classifier of prototypes.

    Attributes:
        meta: makes the features.
        labels: names of the classes.
        texts: of the support.
        label: class index of each support text, (n,).
        support: features of the support, (n, d).
        prototypes: mean features of each class, (classes, d).
    """

    meta: MetaModel
    labels: list[str]
    texts: list[str]
    label: np.ndarray
    support: Tensor
    prototypes: Tensor

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return for each text its label, its squared distances to the prototypes, and the nearest support example.

        Raises:
            ConfigError: when there is no text, or a blank one.
        """
        if not texts or not all(text.strip() for text in texts):
            raise ConfigError("text: is empty; give one text or several")
        features = self.meta.text_features(texts)
        far, near = distances(features, self.prototypes), distances(features, self.support)
        return [self._answer(*one) for one in zip(texts, far, near, strict=True)]

    def _answer(self, text: str, far: Tensor, near: Tensor) -> dict[str, Any]:
        nearest = int(near.argmin())
        return {
            "text": text,
            "label": self.labels[int(far.argmin())],
            "distances": {name: float(value) for name, value in zip(self.labels, far, strict=True)},
            "nearest": {
                "text": self.texts[nearest],
                "label": self.labels[int(self.label[nearest])],
                "distance": float(near[nearest]),
            },
        }


def few_shot(meta: MetaModel, support: Support) -> FewShot:
    """Return a classifier of the classes of some labelled texts.

    Raises:
        ConfigError: when there are fewer than two classes, a blank text, or too many texts.
    """
    rows = _rows(support)
    labels = list(dict.fromkeys(label for _, label in rows))
    if len(labels) < 2:
        raise ConfigError(f"support: has {len(labels)} class; give examples of two classes or more")
    if len(rows) > MOST_SUPPORT:
        raise ConfigError(f"support: {len(rows):,} texts given; give at most {MOST_SUPPORT:,}")
    texts = [one for one, _ in rows]
    index = {name: number for number, name in enumerate(labels)}
    label = np.array([index[name] for _, name in rows])
    features = meta.text_features(texts)
    means = [features[torch.from_numpy(np.flatnonzero(label == number))].mean(0) for number in range(len(labels))]
    return FewShot(meta, labels, texts, label, features, torch.stack(means))


def _rows(support: Support) -> list[tuple[str, str]]:
    """Return support as (text, label) pairs.

    Raises:
        ConfigError: when a text or a label is blank.
    """
    if isinstance(support, Mapping):
        rows = [(str(text), str(label)) for label, texts in support.items() for text in texts]
    else:
        rows = [(str(text), str(label)) for text, label in support]
    if not all(text.strip() and label.strip() for text, label in rows):
        raise ConfigError("support: a text or a label is empty; fill it or remove the row")
    return rows


@dataclass(frozen=True)
class MetaRun:
    """A finished recycle, ready to use.

    Attributes:
        folder: of the run.
        model: backbone and meta-LoRA.
    """

    folder: Path
    model: MetaModel

    def fewshot(self, support: Support) -> FewShot:
        """Return a classifier of the classes of some labelled texts.

        Raises:
            ConfigError: when there are fewer than two classes, a blank text, or too many texts.
        """
        return few_shot(self.model, support)


def load_meta(folder: Path) -> MetaRun:
    """Return the meta-LoRA of a finished recycle on its backbone, in full precision, in eval mode.

    Raises:
        ConfigError: when the run is no recycle, or kept no meta-LoRA yet.
        AssetError: when the backbone is not there.
        CorruptRunError: when the run cannot be read.
    """
    with RunReader(folder) as reader:
        meta = reader.meta(("config",))
    settings = RecycleSettings.of_run(folder)
    if find_checkpoint(folder / "adapter") is None:
        raise ConfigError(f"run {folder.name}: has no meta-LoRA yet; let the recycle finish first")
    state = checked_state(read_checkpoint(folder / "adapter"))
    length, pooling = whole(state.get("max_length")), state.get("pooling")
    if length is None or not 4 <= length <= 8192 or pooling not in ("mean", "last"):
        raise CorruptRunError(f"run {folder.name}: its meta-LoRA does not say how features are made; recycle again")
    name = text(section(meta.get("config"), "model").get("name"))
    base = load_backbone(assets.resolve_model(name or ""))
    model = add_meta_lora(
        base,
        rank=settings.rank,
        lora_alpha=settings.lora_alpha,
        seed=settings.seed,
        total=settings.episodes,
        pooling=pooling,
        max_length=length,
    )
    load_adapter_state(model.adapters, state["adapters"])
    return MetaRun(folder, model)
