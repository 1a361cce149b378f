"""From a run folder back to the trained model: predict, evaluate, and what can be asked of one under examination."""

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

from dynlora import assets, strategies, tasks
from dynlora.analysis.retention import effect_of
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import read_run_config
from dynlora.data_files.opening import Source, as_utf8, is_table
from dynlora.engine.adapt import adapt
from dynlora.engine.data.held_back import embed
from dynlora.engine.data.perturb import conditioned_rows, perturbed_rows
from dynlora.engine.data.tables import read_table
from dynlora.engine.data.text_data import Rows, TextData, rows_to_continue, text_columns
from dynlora.engine.evaluation.evaluate import UNUSUAL, Predictions, summarise
from dynlora.engine.evaluation.explain import explain
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates
from dynlora.engine.loop.adapter_state import checked_state, load_adapter_state, load_head_state, saved_sizes
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.engine.model.base_model import BaseModel, Weights, head_parameters, load_base
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError, DataError
from dynlora.jobs import environment
from dynlora.kinds.run_kind import kind_of_run
from dynlora.safe_files import why_not_a_file
from dynlora.store.measurements import Effects, KnockedOut, Knockouts
from dynlora.tasks import WritingTask
from dynlora.text import clean_text
from dynlora.training.build import named_groups
from dynlora.training.inputs import read_data

PLACES = {"last": ("adapter", "checkpoint"), "best": ("adapter-best",)}
"""Where each choice of adapter lies; a run that never ended has its last one in the checkpoint."""


def load_run(folder: Path, which: str = "last") -> AdaptedModel:
    """Return the trained model of a run, in full precision on the CPU, in eval mode.

    Args:
        folder: of the run.
        which: last or best.

    Raises:
        ConfigError: when the run kept no such adapter.
        CorruptRunError: when it cannot be read.
    """
    environment.imported()
    config = kind_of_run(folder).model_config(folder)
    state = _trained_state(folder, which)
    task = task_of(state)
    weights = Weights(quantization=config.model.quantization)  # a quantised model is another function
    base = load_base(
        assets.resolve_model(config.model.name),
        task=task,
        seed=config.seed,
        weights=weights,
        layers=config.model.layers,
    )
    return adapted(base, config, state)


def adapted(base: BaseModel, config: RunConfig, state: Mapping[str, Any]) -> AdaptedModel:
    """Return a base model with a saved adapter and head on it, in eval mode.

    Args:
        base: model and head; its linear modules are replaced in place.
        config: of the run that was trained.
        state: as `checked_state` returns it.

    Raises:
        CorruptRunError: when the state is that of another model.
    """
    strategy = strategies.build(config.strategy.name, config.strategy.fields)
    adapters = adapt(
        base,
        strategy,
        rank=config.adapter.rank,
        lora_alpha=config.adapter.lora_alpha,
        dropout=0.0,
        targets=config.adapter.targets,
        total=config.train.max_steps(1),
        seed=config.seed,
        batches=lambda n: [],
        sizes=saved_sizes(state["adapters"]),
    )
    load_adapter_state(adapters, state["adapters"])
    load_head_state(head_parameters(base), state["head"])
    base.model.eval()
    return AdaptedModel(
        base=base,
        adapters=adapters,
        strategy=strategy,
        task=base.task,
        max_length=config.data.max_length,
        unusual=state.get("metrics", {}).get(UNUSUAL),
        step=state.get("step", 0),
        new_tokens=config.log.generate_max,
    )


def task_of(state: Mapping[str, Any]) -> tasks.Task:
    """Return the task that a saved adapter was trained for."""
    return tasks.build(state["task"], state["labels"], state.get("task_settings"))


def on_accelerator(model: AdaptedModel) -> AdaptedModel:
    """Return a model on the accelerator of this machine, as it is where there is none."""
    if torch.accelerator.is_available():
        model.base.model.to(torch.accelerator.current_accelerator())  # pyright: ignore
    return model


def average_gates(model: AdaptedModel, data: TextData, seed: int) -> None:
    """Put the means over training examples in the place of a model's gates."""
    bake_gates(model, mean_gates(model, model.tokens(data.train_sample(GATE_ROWS, seed))))


def evaluate_run(
    folder: Path, *, split: str = "validation", baked: bool = False, which: str = "last"
) -> dict[str, Any]:
    """Return loss and metrics of a run's adapter on a split, with its gates or with their means.

    Raises:
        ConfigError: when there is no such split.
    """
    if split not in ("train", "validation"):
        raise ConfigError(f"--split {split}: must be train or validation")
    config, model = read_run_config(folder), load_run(folder, which)
    data = read_data(config)
    if baked:
        average_gates(model, data, config.seed)
    rows = data.train if split == "train" else data.held_out
    return {"split": split, "baked": baked, "rows": len(rows), "metrics": model.evaluate(rows)}


GATE_ROWS = 1024
"""Training rows whose gates are averaged for baking; held-out rows would leak into the exported adapter."""


def answers_of_file(folder: Path, path: Path, which: str = "last") -> list[dict[str, Any]]:
    """Return a run's predictions for the rows of a file, one row each; see `AdaptedModel.answers`.

    A run that writes texts continues the prompts of a table exactly as they stand in its training data: through the
    chat template where they are conversations, and with the line break they end in.

    Raises:
        ConfigError: when the file has no text.
        DataError: when it cannot be read or lacks the columns.
    """
    config, model = kind_of_run(folder).model_config(folder), load_run(folder, which)
    if isinstance(model.task, WritingTask) and is_table(path):
        return model.continued_rows(model.task, rows_to_continue(read_table(path, "--file "), config.data, model.task))
    texts, pairs = texts_of(path, config)
    if not texts:
        raise ConfigError(f"--file {path}: has no text; give a file with a text in each line, or a table")
    return model.answers(texts, pairs)


def texts_of(path: Path, config: RunConfig) -> tuple[list[str], list[str] | None]:
    """Return the texts of a file, and their second texts: a table as the data's, or one text a line.

    Raises:
        DataError: when the file cannot be read or lacks the columns.
    """
    if not is_table(path):
        if problem := why_not_a_file(path):
            raise DataError(f"--file {path}: {problem}")
        text = as_utf8(Source(path)).whole().decode("utf-8-sig")
        return [line for line in text.splitlines() if line.strip()], None
    table = read_table(path, "--file ")
    try:
        return text_columns(table, config.data)
    except DataError as error:
        raise DataError(f"--file {path}: {error}") from None


def _trained_state(folder: Path, which: str) -> dict[str, Any]:
    """Return the saved adapter and head of a run."""
    if which not in PLACES:
        raise ConfigError(f"--which {which}: must be last or best")
    models = (*kind_of_run(folder).models, "adapter-best")
    for name in PLACES[which]:
        if name not in models:
            continue  # the checkpoint of a run on its way may hold texts and an optimizer, and no adapter for use
        if find_checkpoint(folder / name) is not None:
            return checked_state(read_checkpoint(folder / name))
    raise ConfigError(f"run {folder.name}: has no {which} adapter; it was not saved, or no step has been trained yet")


EFFECT_ROWS = 32
"""Probe examples between two signs of life."""

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
        self.model = on_accelerator(load_run(self.folder, self.which))
        self.config = kind_of_run(self.folder).model_config(self.folder)

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
            "effects": plain(explanation.effects),
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
                with self.model.adapters.disabled(modules):
                    without = self.model.predictions(tokens)
                knockouts = knockouts.having(_effect(modules, whole, without, group, len(names)))
            yield knockouts

    def measured_effects(self, texts: Sequence[tuple[str, str | None]], file: Path) -> Iterator[dict[str, int]]:
        """Measure how strongly each module acts on held-out rows, `Effects` in a file; yield after each batch.

        Args:
            texts: first and second text of each row, as the run recorded its probe examples.
            file: where they are kept.

        Raises:
            DataError: when a text is not in the run's data any more.
        """
        held = self.data.held_out
        pairs = zip(held.text, held.text_pair or [None] * len(held), strict=True)
        place = {_beginning(pair): row for row, pair in enumerate(pairs)}
        missing = [pair for pair in texts if _beginning(pair) not in place]
        if missing:
            raise DataError(
                f"data={self.config.data.source}: has {len(missing)} of the run's {len(texts)} probe examples no more; "
                "train the run again to record the effect of its modules"
            )
        tokens = self.model.tokens(held.take(np.array([place[_beginning(pair)] for pair in texts])))
        rows: list[list[float | None]] = []
        for start in range(0, len(tokens), EFFECT_ROWS):
            part = tokens.take(np.arange(start, min(start + EFFECT_ROWS, len(tokens))))
            effect = self.model.effects(part)
            rows += [[None if one is None else float(f"{one:.6g}") for one in row] for row in plain(effect)]
            yield {"measured": len(rows)}
        Effects(which=self.which, step=self.model.step, effects=tuple(map(tuple, rows))).write(file)

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


def _beginning(pair: tuple[str, str | None]) -> tuple[str, str]:
    """Return what tells the texts of a row: the store keeps long ones in part."""
    return clean_text(pair[0])[:MAX_CHARACTERS], clean_text(pair[1] or "")[:MAX_CHARACTERS]


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


def _effect(
    modules: Sequence[int], whole: Predictions, without: Predictions, group: np.ndarray | None, groups: int
) -> KnockedOut:
    """Return what rows lose without some modules, in each input group too, None for an empty one."""
    effect = effect_of(modules, (whole.loss, whole.prediction), (without.loss, without.prediction))
    delta = without.loss.astype(float) - whole.loss
    parts = [] if group is None else [delta[group == index] for index in range(groups)]
    by_group = tuple(float(part.mean()) if len(part) and np.isfinite(part).all() else None for part in parts)
    return effect.model_copy(update={"by_group": by_group})


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
