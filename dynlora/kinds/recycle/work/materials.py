"""What a recycle is made of, loaded: teachers, the backbone they share, the space that inputs are searched in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

from dynlora.assets.public_text import digest_of, public_sentences
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.loop.checkpoint import pack, unpack
from dynlora.engine.loop.hardware import autocast_context, resolve_precision
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.inversion import Inversion
from dynlora.kinds.recycle.work.meta_model import MetaModel, add_meta_lora, load_backbone
from dynlora.kinds.recycle.work.teacher_space import Moments, TeacherSpace, text_moments
from dynlora.kinds.recycle.work.teachers import Part, Teacher, base_folder, parts_of, teachers_of
from dynlora.kinds.recycle.work.token_space import TokenSpace


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
    teachers: list[Teacher]
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
        teachers = teachers_of(runs)
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


def copied_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved state whose tensors nothing changes any more."""
    tensors: dict[str, Any] = {}
    return unpack(pack(state, tensors), tensors)
