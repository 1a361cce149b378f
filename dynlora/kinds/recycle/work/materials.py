"""What a recycle is made of, loaded, and the inversion: synthetic inputs that a teacher assigns to its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dynlora.assets.catalog import digest_of, public_sentences
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.loop.checkpoint import copy_into, load_optimizer_state, optimizer_state
from dynlora.engine.loop.hardware import autocast_context, resolve_precision
from dynlora.engine.randomness import stream
from dynlora.kinds.recycle.settings import CLASSES_AT_ONCE, RecycleSettings
from dynlora.kinds.recycle.work.token_space import (
    MetaModel,
    Moments,
    TeacherSpace,
    TokenSpace,
    add_meta_lora,
    load_backbone,
    text_moments,
)
from dynlora.kinds.sources import Source, base_folder, copied_state, sources_of

BETAS = (0.5, 0.99)
"""Of Adam, as published."""

SHIFT = 8
"""Slots are shifted by at most this part of their number, as images are by an eighth of their width."""

LOOK_UP_EVERY = 10
"""Steps between two searches for the nearest word embeddings, which cost as much as a forward."""


@dataclass
class Inversion:
    """The inputs of some classes of one teacher, under search.

    Attributes:
        space: of the teacher.
        classes: indices of the classes among the teacher's.
        settings: of the recycle.
        key: names the random streams.
        step: optimizer steps done.
        z: the inputs as they are searched, (n, slots, d); of the kept slots alone once some are dropped.
        best: the inputs of the lowest loss so far, as z.
        best_loss: their loss; infinite before the first step, and again when slots are dropped.
        kept: slots of each input that are left, (n, k), in order; None before any is dropped.
        target: class of each input, (n,).
        near: the token nearest to each slot when it was last looked up, (n, slots).
        importance: sum of the gradient's norm by slot so far, (n, slots).
        agreement: fraction of each class's inputs that the teacher assigns to it, (classes,).
        best_agreement: that of the best inputs; of those before, until the first step after slots are dropped.
    """

    space: TeacherSpace
    classes: list[int]
    settings: RecycleSettings
    key: tuple[object, ...]
    step: int = 0
    best_loss: float = float("inf")
    kept: Tensor | None = None
    near: Tensor | None = None
    z: torch.nn.Parameter = field(init=False)
    best: Tensor = field(init=False)
    importance: Tensor = field(init=False)
    target: Tensor = field(init=False)
    agreement: Tensor = field(init=False)
    best_agreement: Tensor = field(init=False)
    optimizer: torch.optim.Adam = field(init=False)

    def __post_init__(self) -> None:
        """Draw what the search starts from."""
        n = len(self.classes) * self.settings.inputs
        start = self.space.start(n, stream(self.settings.seed, "inversion", *self.key))
        self._search_from(start)
        self.best = start.clone()
        self.importance = torch.zeros(start.shape[:2], device=start.device)
        self.target = torch.tensor(self.classes, device=start.device).repeat_interleave(self.settings.inputs)
        self.agreement = torch.zeros(len(self.classes), device=start.device)
        self.best_agreement = torch.zeros_like(self.agreement)

    def _search_from(self, z: Tensor) -> None:
        """Search from here on, with a new optimizer."""
        self.z = torch.nn.Parameter(z.clone())
        self.optimizer = torch.optim.Adam([self.z], lr=self.settings.inversion_lr, betas=BETAS)

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.settings.iterations

    def advance(self) -> float:
        """Take one step and return the loss before it."""
        self.step += 1
        shifted = torch.roll(self.z, self._shift(), 1)
        logits = self.space.logits(shifted, self.kept)
        loss = F.cross_entropy(logits.float(), self.target)
        if self.settings.moments:
            loss = loss + self.settings.moments * self.space.strangeness(shifted, self.kept)
        if self.settings.table:
            if self.near is None or self.step % LOOK_UP_EVERY == 0:
                self.near = self.space.nearest(self.z.detach())
            loss = loss + self.settings.table * self.space.unlike(self.z, self.near)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        right = (logits.argmax(1) == self.target).view(len(self.classes), -1)
        self.agreement = right.float().mean(1)
        self._keep_best(float(loss.detach()), shifted.detach())
        self._weigh_slots()
        self.optimizer.step()
        if self.step == self.settings.drop_at:
            self._drop()
        return float(loss.detach())

    def _shift(self) -> int:
        """Return by how many slots this step's inputs are shifted."""
        most = self.settings.tokens // SHIFT
        generator = stream(self.settings.seed, "shift", *self.key, self.step)
        return int(torch.randint(-most, most + 1, (), generator=generator))

    def _keep_best(self, loss: float, inputs: Tensor) -> None:
        """Keep the inputs that this loss was measured on, before the optimizer changes them."""
        if loss < self.best_loss:
            self.best_loss, self.best, self.best_agreement = loss, inputs.clone(), self.agreement.clone()

    def _weigh_slots(self) -> None:
        """Add up the gradient of each slot until some are dropped."""
        if self.settings.drop_at is not None and self.step <= self.settings.drop_at:
            gradient: Tensor = self.z.grad  # pyright: ignore[reportAssignmentType]
            self.importance += gradient.norm(dim=-1)

    def _drop(self) -> None:
        """Drop the slots of each input whose gradient was smallest, and search the others from where they are."""
        fixed = ~self.space.may_drop().to(self.importance.device)
        weighed = self.importance.masked_fill(fixed, float("inf"))
        self.kept = weighed.topk(self.settings.kept, 1).indices.sort(1).values
        self._search_from(at_slots(self.z.detach(), self.kept))
        self.near = None
        self.best, self.best_loss = self.z.detach().clone(), float("inf")

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        return {
            "step": self.step,
            "z": self.z.detach(),
            "best": self.best,
            "best_loss": self.best_loss,
            "kept": self.kept,
            "near": self.near,
            "importance": self.importance,
            "agreement": self.agreement,
            "best_agreement": self.best_agreement,
            "optimizer": optimizer_state(self.optimizer),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self._search_from(state["z"])
        self.best, self.kept, self.near = state["best"], state["kept"], state["near"]
        copy_into(self.importance, state["importance"])
        copy_into(self.agreement, state["agreement"])
        # a checkpoint of an earlier version knows that of its last step alone
        copy_into(self.best_agreement, state.get("best_agreement", state["agreement"]))
        self.step, self.best_loss = state["step"], state["best_loss"]
        load_optimizer_state(self.optimizer, state["optimizer"])


def at_slots(values: Tensor, slots: Tensor) -> Tensor:
    """Return the values (n, slots, d) of the slots that are kept, (n, k)."""
    return values.gather(1, slots.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


@dataclass(frozen=True)
class Part:
    """Classes of one teacher that are inverted together.

    Attributes:
        teacher: its position among the teachers.
        classes: indices of the classes among the teacher's.
        first: position of the first of them among the classes of all teachers.
    """

    teacher: int
    classes: tuple[int, ...]
    first: int


def parts_of(teachers: Sequence[Source]) -> list[Part]:
    """Return what is inverted together, in order."""
    parts, first = [], 0
    for index, teacher in enumerate(teachers):
        numbers = range(len(teacher.classes))
        for start in range(0, len(numbers), CLASSES_AT_ONCE):
            chosen = tuple(numbers[start : start + CLASSES_AT_ONCE])
            parts.append(Part(index, chosen, first + start))
        first += len(teacher.classes)
    return parts


def pooled_classes(teachers: Sequence[Source]) -> list[tuple[str, str]]:
    """Return (teacher, class) of all classes, in order."""
    return [(teacher.name, name) for teacher in teachers for name in teacher.classes]


@dataclass
class Materials:
    """Everything a recycle works with.

    Attributes:
        settings: of the recycle.
        teachers: in order.
        parts: classes that are inverted together.
        meta: the backbone with the meta-LoRA.
        space: of synthetic texts.
        moments: of public text.
        digest: of the public text.
        fresh: the meta-LoRA before training.
        precision: of inversion and episodes, bf16 or fp32; features of texts are made in fp32.
    """

    settings: RecycleSettings
    teachers: list[Source]
    parts: list[Part]
    meta: MetaModel
    space: TokenSpace
    moments: Moments
    digest: str
    fresh: Mapping[str, Any] = field(init=False)
    precision: str = field(init=False)
    _loaded: tuple[int, AdaptedModel] | None = None

    def __post_init__(self) -> None:
        """Keep a copy of the meta-LoRA as it is, and find the precision: bf16 where the hardware multiplies it."""
        self.precision = resolve_precision("auto", self.meta.device)
        self.fresh = copied_state(adapter_state(self.meta.adapters))

    @classmethod
    def load(cls, settings: RecycleSettings, runs_dir: Path) -> Materials:
        """Load everything but the teachers' weights, which are loaded one teacher at a time.

        Raises:
            DynloraError: when a teacher cannot teach, or the backbone cannot be loaded.
        """
        settings.check(runs_dir)
        runs = settings.runs(runs_dir)
        teachers = sources_of(runs)
        base = load_backbone(base_folder(runs))
        meta = add_meta_lora(
            base,
            rank=settings.rank,
            lora_alpha=settings.lora_alpha,
            seed=settings.seed,
            total=settings.episodes,
            pooling="mean" if settings.pooling == "auto" else settings.pooling,
            max_length=max(teacher.config.data.max_length for teacher in teachers),
        )
        sentences = public_sentences()
        space = TokenSpace.of(base.model, base.tokenizer, settings.tokens, sentences)
        length = settings.tokens + len(space.before) + len(space.after)
        with meta.adapters.disabled():
            moments = text_moments(base.model, base.tokenizer, sentences, length)
        return cls(settings, teachers, parts_of(teachers), meta, space, moments, digest_of(sentences))

    def teacher(self, index: int) -> AdaptedModel:
        """Return one teacher's model; the last one stays in memory."""
        if self._loaded is None or self._loaded[0] != index:
            self._loaded = None
            self._loaded = (index, self.teachers[index].load())
            self._loaded[1].base.model.to(self.meta.device)  # pyright: ignore[reportArgumentType]
        return self._loaded[1]

    def forget_teacher(self) -> None:
        """Let the teacher in memory go."""
        self._loaded = None

    def inversion(self, number: int) -> Inversion:
        """Return the search of one part at its start."""
        part = self.parts[number]
        teacher = self.teacher(part.teacher)
        space = TeacherSpace(teacher, self.meta, self.space, self.moments, self.settings.start, self.autocast)
        return Inversion(space, list(part.classes), self.settings, (number,))

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the precision inside the block, and attention in plain operations.

        On a processor the backward pass of fused attention takes half of a step on texts as short as these.
        """
        with autocast_context(self.precision, self.meta.device)(), sdpa_kernel(SDPBackend.MATH):
            yield

    def forget_learning(self) -> None:
        """Put the meta-LoRA back to where it started."""
        load_adapter_state(self.meta.adapters, self.fresh)

    def words(self, tokens: Any) -> list[list[str]]:
        """Return token ids (n, slots) as words."""
        tokenizer: Any = self.meta.base.tokenizer
        return [[str(tokenizer.decode([number])).strip() for number in row] for row in tokens.tolist()]
