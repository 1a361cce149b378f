"""The use of a recycle: predictions by a few labelled texts of a new task, without training; and its export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlora import assets, strategies
from dynlora.engine.evaluation.export import AdapterFacts, write_peft
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import checked_state, load_adapter_state
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError, CorruptRunError
from dynlora.inference.forms.peft import Peft
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.token_space import MetaModel, add_meta_lora, load_backbone
from dynlora.store.meta import section, text, whole
from dynlora.store.reader import RunReader
from dynlora.training.folder_work import staged


@dataclass(frozen=True)
class Episode:
    """One few-shot task.

    Attributes:
        classes: which classes of the pool, (ways,).
        support: rows of the examples that are given, (ways, shots).
        query: rows of the examples to classify, (ways, queries); none of them is in `support`.
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """All rows, the support first."""
        return np.concatenate([self.support.ravel(), self.query.ravel()])


@dataclass(frozen=True)
class EpisodeDraw:
    """Draws episodes from a pool of classes; episode `index` is a pure function of the seed and its number.

    Attributes:
        rows: rows of each class.
        ways: classes of an episode.
        shots: support examples of a class; one of them is drawn for each episode.
        queries: query examples of a class, at most.
        seed: of the draw.
        purpose: names the random stream.
    """

    rows: Sequence[np.ndarray]
    ways: int
    shots: tuple[int, ...]
    queries: int
    seed: int
    purpose: str = "episode"

    def __post_init__(self) -> None:
        """Refuse a pool that has too few classes or examples.

        Raises:
            ConfigError: one sentence that says what to change.
        """
        most = max(self.shots)
        if len(self.rows) < self.ways:
            raise ConfigError(
                f"ways={self.ways}: there are only {len(self.rows)} classes; lower ways, or add runs or classes"
            )
        fewest = min(len(rows) for rows in self.rows)
        if fewest <= most:
            raise ConfigError(
                f"shots={most}: a class has only {fewest} examples, which leaves no query; lower shots, or give more"
            )

    def __getitem__(self, index: int) -> Episode:
        """Return one episode."""
        rng = np.random.default_rng(stream_seed(self.seed, self.purpose, index))
        classes = rng.choice(len(self.rows), self.ways, replace=False)
        shots = int(rng.choice(self.shots))
        queries = min(self.queries, min(len(self.rows[one]) for one in classes) - shots)
        drawn = [rng.permutation(self.rows[one])[: shots + queries] for one in classes]
        table = np.stack(drawn)
        return Episode(classes, table[:, :shots], table[:, shots:])

    def first(self, n: int) -> Iterator[Episode]:
        """Yield the first n episodes."""
        return (self[index] for index in range(n))


def rows_of_classes(label: np.ndarray, least: int = 1) -> list[np.ndarray]:
    """Return the rows of each class of labels (n,), in order of the labels; classes of fewer than `least` are left."""
    rows_by_class = [np.flatnonzero(label == value) for value in np.unique(label)]
    return [rows for rows in rows_by_class if len(rows) >= least]


def prototypes(support: Tensor) -> Tensor:
    """Return the mean features of each class, (ways, d), of support features (ways, shots, d)."""
    return support.mean(1)


def distances(query: Tensor, prototype: Tensor) -> Tensor:
    """Return the squared Euclidean distances, (n, ways), of features (n, d) to prototypes (ways, d)."""
    return (query.unsqueeze(1) - prototype.unsqueeze(0)).square().sum(-1)


def episode_logits(features: Tensor, episode: Episode) -> tuple[Tensor, Tensor]:
    """Return the logits of an episode's queries, (ways · queries, ways), and their classes.

    Args:
        features: of `episode.rows`, (ways · shots + ways · queries, d).
        episode: whose rows they are.
    """
    ways, shots = episode.support.shape
    support, query = features[: ways * shots], features[ways * shots :]
    logits = -distances(query, prototypes(support.view(ways, shots, -1)))
    target = torch.arange(ways, device=features.device).repeat_interleave(episode.query.shape[1])
    return logits, target


@torch.no_grad()
def episode_accuracy(features: Tensor, episode: Episode) -> float:
    """Return the fraction of an episode's queries whose nearest prototype is that of their class.

    Args:
        features: of all rows that episodes are drawn from, (n, d).
        episode: to measure.
    """
    logits, target = episode_logits(features[torch.from_numpy(episode.rows)], episode)
    return float((logits.argmax(1) == target).float().mean())


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


CARD = """# {name}

A meta-LoRA of dynlora (`dynlora recycle`): features for few-shot classification by prototypes, without training.

```python
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = PeftModel.from_pretrained(AutoModel.from_pretrained("{base}"), "{folder}").eval()
batch = tokenizer(["a text"], padding=True, truncation=True, max_length={length}, return_tensors="pt")
with torch.no_grad():
    hidden = model(**batch).last_hidden_state
{pooling}
```

The prototype of a class is the mean of the features of its examples. A text belongs to the class whose prototype has
the smallest squared Euclidean distance.
"""

POOLING = {
    "mean": 'mask = batch["attention_mask"].unsqueeze(-1)\nfeatures = (hidden * mask).sum(1) / mask.sum(1)',
    "last": 'last = batch["attention_mask"].sum(1) - 1  # of texts that are padded on the right\n'
    "features = hidden[torch.arange(len(hidden)), last]",
}


def export_meta(folder: Path, out: Path, form: Peft) -> dict[str, Any]:
    """Write the meta-LoRA of a recycle as PEFT loads it; nothing is left at `out` unless all could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        form: in PEFT's format.

    Raises:
        ConfigError: when the run kept no meta-LoRA, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    settings, run = RecycleSettings.of_run(folder), load_meta(folder)
    with RunReader(folder) as reader:
        name = text(section(reader.meta().get("config"), "model").get("name")) or ""
    base = assets.shared_model_name(name)
    model = AdaptedModel(
        run.model.base,
        run.model.adapters,
        strategies.build("lora", {}),
        run.model.base.task,
        run.model.max_length,
    )
    facts = AdapterFacts(base, settings.lora_alpha, settings.rank, title=settings.title())
    tensors, config = form.files(model, facts)
    config |= {"task_type": "FEATURE_EXTRACTION", "modules_to_save": None}
    with staged(out) as staging:
        write_peft(model, staging, tensors, config)
        card = CARD.format(
            name=settings.title(),
            base=base,
            folder=out.name,
            length=run.model.max_length,
            pooling=POOLING[run.model.pooling],
        )
        (staging / "README.md").write_text(card, "utf-8")
    written = {"folder": str(out), "format": form.format, "form": form.name}
    return {**written, "pooling": run.model.pooling, "parameters": _count(tensors)}


def _count(tensors: dict[str, Any]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
