"""A trained run under examination: ablations, explanations, shifted data. JSON in, JSON out, a model in between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlora.config import RunConfig, parse_config
from dynlora.engine.data.held_back import embed
from dynlora.engine.data.perturb import conditioned_rows, perturbed_rows
from dynlora.engine.data.text_data import Rows, TextData
from dynlora.engine.evaluation.evaluate import Predictions, summarise
from dynlora.engine.evaluation.explain import explain
from dynlora.engine.evaluation.inference import AdaptedModel, mean_gates
from dynlora.engine.evaluation.knockout import knocked_out
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError
from dynlora.inference.load import GATE_ROWS, load_run
from dynlora.kinds.run_kind import kind_of_run
from dynlora.store.measurements import KnockedOut, Knockouts
from dynlora.tasks import WritingTask
from dynlora.training.build import named_groups
from dynlora.training.inputs import read_data

ROWS = 512
"""Held-out rows that a question looks at, unless told otherwise."""

MAX_TEXTS = 500
LEAST_NEIGHBOURS = 8
MAX_CHARACTERS = 20_000


@dataclass
class Examined:
    """A run's trained model, and what questions about it share.

    Attributes:
        folder: of the run.
        which: last or best adapter.
        model: on the accelerator where there is one.
        config: the run's.
    """

    folder: Path
    which: str = "last"
    model: AdaptedModel = field(init=False)
    config: RunConfig = field(init=False)

    def __post_init__(self) -> None:
        """Load the model.

        Raises:
            ConfigError: when the run kept no such adapter.
            CorruptRunError: when it cannot be read.
        """
        self.model = load_run(self.folder, self.which)
        self.config = kind_of_run(self.folder).model_config(self.folder)
        if torch.accelerator.is_available():
            self.model.base.model.to(torch.accelerator.current_accelerator())  # pyright: ignore

    @cached_property
    def data(self) -> TextData:
        """The run's data, both sides."""
        return read_data(self.config)

    @cached_property
    def mean_gate(self) -> Tensor | None:
        """Each gate's mean over training rows, as baking takes it; None without gates."""
        rows = self.data.train_sample(GATE_ROWS, self.config.seed)
        return mean_gates(self.model, self.model.tokens(rows))

    def sample(self, n: int) -> Rows:
        """Return at most n held-out rows, the same every time."""
        return drawn_rows(self.data.held_out, n, self.config.seed)

    def answers(
        self, texts: Sequence[str], pairs: Sequence[str] | None, mode: str = "adapter", strength: float = 1.0
    ) -> list[dict[str, Any]]:
        """Return predictions in words as `AdaptedModel.answers` does.

        Args:
            texts: to predict.
            pairs: their second texts, or None.
            mode: adapter; base (the trained head on the frozen model) or frozen (each gate at its mean).
            strength: the adapter is multiplied by it.

        Raises:
            ConfigError: when a text is empty or too long, there are too many, or the strength is out of range.
        """
        checked_texts(texts, pairs)
        check_strength(strength)
        gates, mean = self.model.adapters.gates, self.mean_gate if mode == "frozen" else None
        held = gates.holding(mean) if gates is not None and mean is not None else nullcontext()
        with self.model.adapters.disabled() if mode == "base" else held, self.model.adapters.scaled(strength):
            return self.model.answers(texts, pairs)

    def explained(self, text: str, pair: str | None, strength: float = 1.0) -> dict[str, Any]:
        """Return one text under the lens, see `explain`, with the adapter multiplied by `strength`.

        Raises:
            ConfigError: when the text is empty or too long, the model writes texts, or the strength is out of range.
        """
        check_strength(strength)
        checked_texts([text], None if pair is None else [pair])
        if isinstance(self.model.task, WritingTask):
            raise ConfigError(f"explain: data.task={self.model.task.name} has no answer to attribute; generate instead")
        with self.model.adapters.scaled(strength):
            explanation = explain(self.model, text, pair)
        return {
            "tokens": [asdict(piece) for piece in explanation.pieces],
            "labels": self.model.labels,
            "answer": plain(explanation.answer),
            "margin": explanation.margin,
            "contribution": plain(explanation.contribution),
            "base_contribution": plain(explanation.base_contribution),
            "gate": plain(explanation.gate),
            "token_gate": plain(explanation.token_gate),
            "moved": plain(explanation.moved),
            "without": plain(explanation.without),
            "flipped": explanation.flipped.tolist(),
        }

    def knockouts(
        self,
        sets: Sequence[Sequence[int]] | None = None,
        rows: int = ROWS,
        known: Sequence[Knockouts] = (),
        *,
        again: bool = False,
    ) -> Iterator[Knockouts]:
        """Yield what held-out rows lose, first what is known, then after every set of modules that is switched off.

        Args:
            sets: modules that are off together, by position, in any order; None is every module alone.
            rows: held-out rows that are looked at.
            known: what was measured before; the first of the same adapter and rows is gone on with.
            again: measure again what is wanted, where all of it is known.

        Raises:
            ConfigError: when a module is not one of the run's.
        """
        n = len(self.model.adapters)
        module_sets = [tuple(sorted(one)) for one in sets] if sets is not None else [(index,) for index in range(n)]
        check_modules(module_sets, n)
        sample = self.sample(rows)
        tokens = self.model.tokens(sample)
        names, group = named_groups(sample)
        whole = self.model.predictions(tokens)
        loss, groups = float(whole.loss.mean()), tuple(names)
        knockouts = Knockouts(
            which=self.which, step=self.model.step, rows=len(sample), loss=loss, groups=groups, n_modules=n
        )
        knockouts = next((one for one in known if knockouts.same_rows(one)), knockouts)
        if again and {one.modules for one in knockouts.effects}.issuperset(module_sets):
            knockouts = knockouts.without(module_sets)
        yield knockouts
        for modules in module_sets:
            if all(modules != effect.modules for effect in knockouts.effects):
                effect = knocked_out(self.model, tokens, whole, modules, group=group, groups=len(names))
                by_group = tuple(plain(np.array(effect.by_group)))
                knockouts = knockouts.having(KnockedOut(**{**asdict(effect), "by_group": by_group}))
            yield knockouts

    def shifted(self, kind: str, strength: float, rows: int = ROWS) -> dict[str, Any]:
        """Return how metrics, predictions and gates move when held-out texts are perturbed.

        Raises:
            ConfigError: when kind or strength is not one.
        """
        sample, model, scored = self.sample(rows), self.model, "example"
        task = model.task
        if isinstance(task, WritingTask):
            sample, scored = conditioned_rows(task, sample)
            model = replace(model, task=task.after_prompts())
        shifted = perturbed_rows(sample, kind, strength, self.config.seed, is_written=model is not self.model)
        settings = {"kind": kind, "strength": strength, "scored": scored}
        return self._both(sample, shifted, model) | settings

    def elsewhere(self, data: Mapping[str, Any], rows: int = ROWS) -> dict[str, Any]:
        """Return metrics and gates on the held-out rows of other data, whose labels have the same names.

        Args:
            data: section `data` of a configuration.
            rows: rows that are looked at, at most.

        Raises:
            AssetError, ConfigError, DataError: one sentence that says why that data cannot be taken.
        """
        config = parse_config(self.config.model_dump() | {"data": dict(data)})
        other = read_data(config)
        if not self.model.task.matches(other.task):
            raise ConfigError(
                f"data={config.data.source}: its labels are {other.task.said_labels()}, the run's "
                f"{self.model.task.said_labels()}; use data with the same labels"
            )
        held = drawn_rows(other.held_out, rows, self.config.seed)
        held = replace(held, label=self.model.task.translate(held.label, other.task))
        return self._summary(held, self._predicted(held)) | {"source": config.data.source}

    def by_group(self, rows: int = ROWS) -> dict[str, Any]:
        """Return metrics and gates of each input group on held-out rows."""
        sample = self.sample(rows)
        names, group = named_groups(sample)
        predictions = self._predicted(sample)
        parts = [np.flatnonzero(group == index) for index in range(len(names))] if group is not None else []
        return {
            "whole": self._summary(sample, predictions),
            "groups": {
                name: self._summary(sample.take(part), predictions.take(part))
                for name, part in zip(names, parts, strict=True)
                if len(part)
            },
        }

    def neighbours(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[list[float | None]]:
        """Return a place in the plane for each text, near to texts that the frozen model finds alike (UMAP), (n, 2).

        Raises:
            ConfigError: when umap-learn is not installed, or the texts are too few or too many.
        """
        checked_texts(texts, pairs)
        try:
            from umap import UMAP  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError("UMAP: umap-learn is not installed; pip install 'dynlora[umap]', or use PCA") from None
        if len(texts) < LEAST_NEIGHBOURS:
            raise ConfigError(f"UMAP: {len(texts)} texts are too few; give at least {LEAST_NEIGHBOURS}")
        rows = Rows(list(texts), None if pairs is None else list(pairs), self.model.task.no_labels(len(texts)), None)
        with self.model.adapters.disabled():
            everything = np.arange(len(rows))
            embeddings = embed(self.model.base.model, self.model.tokens(rows), everything, 64, self.model.autocast)
        near = min(15, len(texts) - 1)
        return plain(UMAP(n_neighbors=near, random_state=self.config.seed, n_jobs=1).fit_transform(embeddings))

    def _both(self, before: Rows, after: Rows, model: AdaptedModel) -> dict[str, Any]:
        """Return the summaries of the same rows in two states, and the share whose prediction is another."""
        first, second = (model.predictions(model.tokens(rows)) for rows in (before, after))
        changed = float((first.prediction != second.prediction).mean())
        examples = [
            {"before": before.text[row], "after": after.text[row]} for row in range(min(3, len(before)))
        ]  # what it looks like
        return {
            "before": self._summary(before, first),
            "after": self._summary(after, second),
            "changed": changed,
            "examples": examples,
        }

    def _predicted(self, rows: Rows) -> Predictions:
        return self.model.predictions(self.model.tokens(rows))

    def _summary(self, rows: Rows, predictions: Predictions) -> dict[str, Any]:
        """Return the number of rows, metrics and the mean gate of each module."""
        gate = None if predictions.gate is None else predictions.gate.mean(0)
        metrics = summarise(predictions, rows.label, self.model.task)
        return {"rows": len(rows), "metrics": {name: finite(value) for name, value in metrics.items()}} | {
            "gate": plain(gate)
        }


def drawn_rows(rows: Rows, n: int, seed: int) -> Rows:
    """Return at most n of some rows, the same every time and from anywhere: data may come sorted."""
    draw = np.random.default_rng(stream_seed(seed, "examined rows"))
    return rows.take(np.sort(draw.permutation(len(rows))[:n]))


MOST_STRENGTH = 4.0
"""Number that an adapter is multiplied by at most: 1 is as it was trained."""


def check_strength(strength: float, what: str = "strength=") -> None:
    """Refuse a number that no adapter is multiplied by; `what` begins the sentence.

    Raises:
        ConfigError: when it is out of range.
    """
    if not 0 <= strength <= MOST_STRENGTH:
        raise ConfigError(f"{what}{strength:g}: must be from 0 (the base model) to {MOST_STRENGTH:g}; 1 is as trained")


def checked_texts(texts: Sequence[str], pairs: Sequence[str] | None) -> None:
    """Refuse what is no text to predict.

    Raises:
        ConfigError: one sentence that says which.
    """
    if not 0 < len(texts) <= MAX_TEXTS:
        raise ConfigError(f"texts: {len(texts):,} given; give 1 to {MAX_TEXTS}")
    if pairs is not None and len(pairs) != len(texts):
        raise ConfigError(f"text pairs: {len(pairs)} given for {len(texts)} texts; give one for each text")
    for text in [*texts, *(pairs or ())]:
        if not text.strip() or len(text) > MAX_CHARACTERS:
            raise ConfigError(f"text: has {len(text):,} characters; give 1 to {MAX_CHARACTERS:,}, not all blank")


def check_modules(sets: Sequence[Sequence[int]], n: int) -> None:
    """Refuse modules that there are not.

    Raises:
        ConfigError: naming the first.
    """
    for modules in sets:
        if not modules or len(set(modules)) < len(modules) or not all(0 <= index < n for index in modules):
            raise ConfigError(
                f"modules {', '.join(map(str, modules)) or 'none'}: give different positions from 0 to {n - 1}"
            )


def plain(values: np.ndarray | None) -> Any:
    """Return an array as lists, what is not finite as None."""
    if values is None:
        return None
    if values.ndim > 1:
        return [plain(row) for row in values]
    return [finite(float(value)) for value in values]


def finite(value: float) -> float | None:
    """Return a number JSON can hold."""
    return value if math.isfinite(value) else None
