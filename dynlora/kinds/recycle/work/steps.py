"""A recycle under way, one step at a time: inversion, episodes that the meta-LoRA learns from, those of the control."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dynlora.engine.data.held_back import plane
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.randomness import stream
from dynlora.engine.recorder import Recorder
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.few_shot import EpisodeDraw, episode_logits
from dynlora.kinds.recycle.work.materials import Inversion, Materials, at_slots, pooled_classes
from dynlora.kinds.recycle.work.token_space import MetaModel, Synthetic
from dynlora.kinds.settings import stages_of
from dynlora.kinds.sources import LoraTraining, copied_state
from dynlora.training.stepwise import Stepwise


class Pool(Protocol):
    """Examples by class."""

    @property
    def rows(self) -> Sequence[np.ndarray]:
        """Rows of each class."""
        ...

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the features of some rows, (n, d), with their gradient."""
        ...


@dataclass(frozen=True)
class SyntheticPool:
    """Synthetic inputs of all classes of all teachers.

    Attributes:
        rows: of each class.
        inputs: all of them.
    """

    rows: Sequence[np.ndarray]
    inputs: Synthetic

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the features of some rows, (n, d)."""
        return meta.synthetic_features(self.inputs.take(torch.from_numpy(rows)))


class MetaTraining(LoraTraining):
    """The meta-LoRA in training; one optimizer step an episode.

    Attributes:
        meta: the model.
        pool: examples by class.
        autocast: makes the precision's context.
        draw: of the episodes.
        accuracy: of the last episode's queries.
    """

    def __init__(
        self, meta: MetaModel, pool: Pool, settings: RecycleSettings, autocast: Callable[[], Any] = nullcontext
    ) -> None:
        """Make the draw of the episodes and the optimizer.

        Raises:
            ConfigError: when the pool has too few classes or examples.
        """
        super().__init__(meta.adapters, settings.episodes, settings.lr, "episode")
        self.meta, self.pool, self.autocast = meta, pool, autocast
        self.draw = EpisodeDraw(pool.rows, settings.ways, settings.shots, settings.queries, settings.seed)
        self.accuracy = math.nan

    def batch_loss(self, index: int) -> Tensor:
        """Return the cross entropy of an episode's queries, ()."""
        episode = self.draw[index]
        with self.autocast():
            features = self.pool.features(self.meta, episode.rows)
        logits, target = episode_logits(features, episode)
        self.accuracy = float((logits.argmax(1) == target).float().mean())
        return F.cross_entropy(logits, target)


SHOWN_INPUTS = 3
"""Synthetic inputs of a class whose words are recorded."""


@dataclass
class Recycling(Stepwise):
    """Everything a recycle has done so far.

    Attributes:
        materials: what it works with.
        recorder: takes what is recorded.
        step: steps done, of all stages together.
        inverted: of each part that is done, its inputs `z` and the slots `kept`.
        inversion: the part under way.
        training: the episodes under way, of the meta-LoRA or, at last, of the control.
        learned: the trained meta-LoRA, once its episodes are done.
        control: that of the control, once its episodes are done.
        agreement: of each class with its teacher, (classes,): of the last step, and once its inversion is done of the
            inputs that are kept; NaN before.
    """

    materials: Materials
    recorder: Recorder
    step: int = 0
    inverted: list[dict[str, Tensor | None]] = field(default_factory=list)
    inversion: Inversion | None = None
    training: MetaTraining | None = None
    learned: dict[str, Any] | None = None
    control: dict[str, Any] | None = None
    agreement: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Begin before the first step."""
        self.agreement = np.full(len(pooled_classes(self.materials.teachers)), np.nan, dtype=np.float32)

    # --- the plan

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages with their first and last step; the step before `first` is done when a stage begins."""
        of = self.materials.settings
        lengths = {"inversion": len(self.materials.parts) * of.iterations, "episodes": of.episodes}
        if of.noise:
            lengths["noise"] = of.episodes
        return stages_of(lengths)

    def define(self) -> None:
        """Announce what will be recorded."""
        names = [f"{teacher} / {name}" for teacher, name in pooled_classes(self.materials.teachers)]
        self.recorder.define_groups(names)
        self.recorder.define_signal("class_agreement", "group", "fraction", len(names))
        if self.materials.settings.drop_at is not None:
            self.recorder.define_signal("tokens_kept", "group", "tokens", len(names))

    # --- the work

    def advance(self) -> None:
        """Take one step and record it.

        Raises:
            DynloraError: when a teacher cannot be loaded, or training diverges.
        """
        if self.stage() == "inversion":
            self._invert()
        else:
            self._learn("meta" if self.stage() == "episodes" else "noise")
        self.recorder.progress(self.step)

    def _invert(self) -> None:
        """Take one step of the inversion; the last one of a part keeps its inputs and records their words."""
        if self.inversion is None:
            self.inversion = self.materials.inversion(len(self.inverted))
        search, part = self.inversion, self.materials.parts[len(self.inverted)]
        loss = search.advance()
        self.step += 1
        agreement = search.best_agreement if search.is_done else search.agreement
        self.agreement[part.first : part.first + len(part.classes)] = agreement.cpu().numpy()
        self.recorder.scalar("inversion_loss", "inversion", self.step, loss)
        self.recorder.scalar("agreement", "inversion", self.step, float(search.agreement.mean()))
        self.recorder.vector("class_agreement", self.step, self.agreement)
        if self.materials.settings.drop_at is not None:
            self.recorder.vector("tokens_kept", self.step, self._tokens_kept())
        if search.is_done:
            self._finish_part(search)

    def _tokens_kept(self) -> np.ndarray:
        """Return how many tokens each class's inputs have now, (classes,)."""
        of, parts = self.materials.settings, self.materials.parts
        counts = np.full(len(self.agreement), of.tokens, dtype=np.float32)
        for number, part in enumerate(parts):
            under_way = number == len(self.inverted) and self.inversion is not None and self.inversion.kept is not None
            if number < len(self.inverted) or under_way:
                counts[part.first : part.first + len(part.classes)] = of.kept
        return counts

    def _finish_part(self, search: Inversion) -> None:
        """Keep what was found, and record the words nearest to it, class by class."""
        part, of = self.materials.parts[len(self.inverted)], self.materials.settings
        words = self.materials.words(search.space.nearest(search.best))
        for position, index in enumerate(range(part.first, part.first + len(part.classes))):
            mine = words[position * of.inputs : position * of.inputs + min(of.inputs, SHOWN_INPUTS)]
            payload = {"group": index, "words": mine, "agreement": float(self.agreement[index])}
            self.recorder.event(self.step, "words", [], payload)
        self.inverted.append({"z": search.best, "kept": search.kept})
        self.inversion = None

    def _learn(self, split: str) -> None:
        """Learn from one episode; the control begins with a new meta-LoRA when the first is done."""
        if self.training is None:
            self.materials.forget_teacher()
            self.materials.forget_learning()
            self.training = self._new_training(split)
        training = self.training
        training.advance()
        self.step += 1
        self.recorder.scalar("episode_loss", split, self.step, training.loss)
        self.recorder.scalar("episode_accuracy", split, self.step, training.accuracy)
        if training.is_done:
            best_state = copied_state(adapter_state(self.materials.meta.adapters))
            self.learned, self.control = (best_state, None) if split == "meta" else (self.learned, best_state)
            self.training = None

    def _new_training(self, split: str) -> MetaTraining:
        pool = self.pool(control=split == "noise")
        return MetaTraining(self.materials.meta, pool, self.materials.settings, self.materials.autocast)

    # --- what was found

    def pool(self, *, control: bool = False, words: bool = False) -> SyntheticPool:
        """Return the synthetic inputs of all classes.

        Args:
            control: what the searches started from instead, at the same slots.
            words: the nearest words instead.
        """
        space, n = self.materials.space, self.materials.settings.inputs
        parts = [self._started_from(number) if control else inverted for number, inverted in enumerate(self.inverted)]
        inputs = []
        for part in parts:
            z, tokens = part["z"], part["kept"]
            if z is None:
                continue
            points = space.place(space.standardised(space.nearest(space.place(z))) if words else z)
            inputs.append(space.inputs(points, tokens))
        together = Synthetic(*(torch.cat([getattr(one, name) for one in inputs]) for name in SYNTHETIC))
        rows = [np.arange(index * n, (index + 1) * n) for index in range(len(together.embedded) // n)]
        return SyntheticPool(rows, together)

    def _started_from(self, number: int) -> dict[str, Tensor | None]:
        """Return what the search of a part started from, at the slots that were kept."""
        of, tokens = self.materials.settings, self.inverted[number]["kept"]
        n = len(self.materials.parts[number].classes) * of.inputs
        z = self.materials.space.start(n, of.start, stream(of.seed, "inversion", number))
        return {"z": z if tokens is None else at_slots(z, tokens), "kept": tokens}

    def use_learned(self) -> None:
        """Put the trained meta-LoRA into the model."""
        if self.learned is not None:
            load_adapter_state(self.materials.meta.adapters, self.learned)

    @torch.no_grad()
    def prototypes(self) -> list[dict[str, Any]]:
        """Return the prototype of each class in the plane of their first two principal components."""
        pool, meta = self.pool(), self.materials.meta
        means = [pool.features(meta, rows).mean(0).cpu().numpy() for rows in pool.rows]
        places = plane(np.stack(means))
        named = pooled_classes(self.materials.teachers)
        return [
            {"teacher": teacher, "class": name, "x": float(x), "y": float(y)}
            for (teacher, name), (x, y) in zip(named, places, strict=True)
            if math.isfinite(x) and math.isfinite(y)
        ]

    # --- what survives a stop or a crash

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        return {
            "step": self.step,
            "inverted": self.inverted,
            "inversion": None if self.inversion is None else self.inversion.state_dict(),
            "training": None if self.training is None else self.training.state_dict(),
            "learned": self.learned,
            "control": self.control,
            "agreement": torch.from_numpy(self.agreement.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step, self.inverted = state["step"], state["inverted"]
        self.learned, self.control = state["learned"], state["control"]
        self.agreement = state["agreement"].numpy().copy()
        if state["inversion"] is not None:
            self.inversion = self.materials.inversion(len(self.inverted))
            self.inversion.load_state_dict(state["inversion"])
        if state["training"] is not None:
            self.training = self._new_training("noise" if self.learned is not None else "meta")
            self.training.load_state_dict(state["training"])


SYNTHETIC = ("embedded", "positions", "mask")
