"""What a recycle is made of, loaded: teachers, the backbone they share, the space that inputs are searched in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

from dynlora import assets
from dynlora.assets.public_text import digest_of, public_sentences
from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.loop.checkpoint import pack, unpack
from dynlora.engine.loop.hardware import autocast_context, resolve_precision
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.load import load_run
from dynlora.kinds.named_runs import NamedRun
from dynlora.kinds.recycle.settings import CLASSES_AT_ONCE, RecycleSettings, base_of, classes_of
from dynlora.kinds.recycle.work.inversion import Inversion
from dynlora.kinds.recycle.work.meta_model import MetaModel, add_meta_lora, load_backbone
from dynlora.kinds.recycle.work.teacher_space import Moments, TeacherSpace, text_moments
from dynlora.kinds.recycle.work.token_space import TokenSpace


@dataclass(frozen=True)
class Teacher:
    """A run that teaches.

    Attributes:
        run: its id.
        name: for people.
        folder: of the run.
        classes: names of its classes.
        config: its settings.
    """

    run: str
    name: str
    folder: Path
    classes: tuple[str, ...]
    config: RunConfig

    def load(self) -> AdaptedModel:
        """Return the trained model, all of it frozen.

        Raises:
            DynloraError: one sentence that names the teacher, when it cannot be loaded.
        """
        try:
            model = load_run(self.folder)
        except DynloraError as error:
            raise type(error)(f"teacher {self.run}: {error}") from None
        model.base.model.requires_grad_(False)
        return model

    def described(self) -> dict[str, object]:
        """Return what a recycle keeps of its teacher, as plain values."""
        return {
            "run": self.run,
            "name": self.name,
            "classes": list(self.classes),
            "rank": self.config.adapter.rank,
            "strategy": self.config.strategy.name,
        }


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


def teachers_of(runs: Sequence[NamedRun]) -> list[Teacher]:
    """Return checked runs as teachers.

    Raises:
        ConfigError: when the model of one is quantised: its embeddings are others.
    """
    teachers = []
    for run in runs:
        config = read_run_config(run.folder)
        if config.model.quantization is not None:
            raise ConfigError(
                f"teacher {run.id}: its base model is quantised, so its embeddings are not those of the others; give "
                "runs without model.quantization"
            )
        teachers.append(Teacher(run.id, run.name, run.folder, tuple(classes_of(run)), config))
    return teachers


def parts_of(teachers: Sequence[Teacher]) -> list[Part]:
    """Return what is inverted together, in order."""
    parts, first = [], 0
    for index, teacher in enumerate(teachers):
        numbers = range(len(teacher.classes))
        for start in range(0, len(numbers), CLASSES_AT_ONCE):
            chosen = tuple(numbers[start : start + CLASSES_AT_ONCE])
            parts.append(Part(index, chosen, first + start))
        first += len(teacher.classes)
    return parts


def pooled_classes(teachers: Sequence[Teacher]) -> list[tuple[str, str]]:
    """Return (teacher, class) of all classes, in order."""
    return [(teacher.name, name) for teacher in teachers for name in teacher.classes]


def base_folder(runs: Sequence[NamedRun]) -> Path:
    """Return the local folder of the base model that all teachers adapt."""
    return assets.resolve_model(base_of(runs[0]))


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
