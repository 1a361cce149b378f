"""What a distillation is made of, loaded: teachers and student; and the export of the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynlora import assets, strategies, tasks
from dynlora.engine.adapt import adapt, nothing
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.loop.hardware import autocast_context
from dynlora.engine.model.base_model import BaseModel, load_base
from dynlora.errors import ConfigError
from dynlora.inference.export import write_adapter
from dynlora.inference.load import load_run
from dynlora.inference.writing import total_tokens
from dynlora.kinds.distil.settings import NOT_RECYCLE, DistilSettings
from dynlora.kinds.distil.work.texts import Start, start_of
from dynlora.kinds.recycle.work.materials import Teacher, base_folder, copied_state, teachers_of
from dynlora.kinds.run_kind import kind_of_run
from dynlora.peft_adapter.forms import form_of
from dynlora.peft_adapter.serving_text import load_block
from dynlora.tasks import Task
from dynlora.training.folder_work import staged

CARD = """# {name}

The student of {teachers} adapters of `{base}`. {what}

{load}
"""

WRITE = """
tokenizer = AutoTokenizer.from_pretrained("{folder}")
batch = tokenizer("a text", return_tensors="pt")
print(tokenizer.decode(model.generate(**batch, max_new_tokens=64)[0]))"""

LOAD = {
    "peft": "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{folder}").eval()' + WRITE,
    "merged": "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    'model = AutoModelForCausalLM.from_pretrained("{folder}").eval()' + WRITE,
}
"""Lines that load each format."""


def export_student(folder: Path, out: Path, format: str = "peft") -> dict[str, Any]:
    """Write the student of a distillation; nothing is left at `out` unless all could be written.

    Args:
        folder: of the run.
        out: a new or empty folder, or a new file that ends in .zip.
        format: name of a form, see `peft_adapter.forms`.

    Raises:
        ConfigError: when the form is unknown, the run kept no student, or `out` is taken.
        StorageError: when `out` cannot be written.
    """
    form = form_of(format)
    settings, config, model = DistilSettings.of_run(folder), kind_of_run(folder).model_config(folder), load_run(folder)
    parameters = model.adapters.adapter_parameter_count()["active"]
    base = assets.shared_model_name(config.model.name)
    with staged(out) as staging:
        write_adapter(staging, config, model, form, settings.title())
        python = {format: lines.format(base=base, folder=out.stem) for format, lines in LOAD.items()}
        card = CARD.format(
            name=settings.title(),
            teachers=len(set(settings.teachers)),
            base=base,
            what=NOT_RECYCLE,
            load=load_block(form, python, base, out.stem),
        )
        (staging / "README.md").write_text(card, "utf-8")
    written = {"folder": str(out), "format": form.format, "form": form.name}
    return {**written, "parameters": parameters, "method": settings.method}


@dataclass
class Materials:
    """Everything a distillation works with, in full precision: small divergences are below the rounding of bf16.

    The teachers' frozen weights are the student's own in memory, so that all of them take the room of one base model
    and their adapters.

    Attributes:
        settings: of the distillation.
        teachers: in order.
        models: of the teachers, in order.
        student: the base model with the LoRA that learns.
        folder: of the base model.
        start: of every text.
        fresh: the student before training.
    """

    settings: DistilSettings
    teachers: list[Teacher]
    models: list[AdaptedModel]
    student: AdaptedModel
    folder: Path
    start: Start = field(init=False)
    fresh: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Find the start of texts, and keep a copy of the student as it is."""
        self.start = start_of(self.student.base.tokenizer)
        check_length(self.student, len(self.start.ids), self.settings.tokens)
        self.fresh = copied_state(adapter_state(self.student.adapters))

    @classmethod
    def load(cls, settings: DistilSettings, runs_dir: Path) -> Materials:
        """Load teachers and student.

        Raises:
            DynloraError: when a teacher cannot teach, or the base model cannot be loaded.
        """
        settings.check(runs_dir)
        runs = settings.runs(runs_dir)
        teachers = teachers_of(runs)
        models: list[AdaptedModel] = []
        for teacher in teachers:
            model = teacher.load()
            if models:
                share_frozen(model.base.model, models[0].base.model)
            models.append(model)
        folder = base_folder(runs)
        student = new_student(settings, folder, teachers, common_task(models))
        share_frozen(student.base.model, models[0].base.model)
        return cls(settings, teachers, models, student, folder)

    @property
    def pad(self) -> int:
        """Token that fills up texts."""
        return int(self.student.base.tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]

    @property
    def device(self) -> torch.device:
        """Where the student computes."""
        return self.student.base.model.device

    def plain_base(self) -> BaseModel:
        """Return the base model once more, with weights of its own."""
        return _base(self.folder, self.teachers, self.settings, self.student.task)

    def forget_learning(self) -> None:
        """Put the student back to where it started."""
        load_adapter_state(self.student.adapters, self.fresh)


def common_task(models: Sequence[AdaptedModel]) -> Task:
    """Return the teachers' task, with its defaults (plain texts) where their data is of different kinds."""
    first = models[0].task
    return first if all(model.task == first for model in models) else tasks.build(first.name)


def new_student(settings: DistilSettings, folder: Path, teachers: list[Teacher], task: Task) -> AdaptedModel:
    """Return the base model with a LoRA whose update is zero."""
    base = _base(folder, teachers, settings, task)
    base.model.requires_grad_(False)
    strategy = strategies.build("lora", {})
    adapters = adapt(
        base,
        strategy,
        rank=settings.rank,
        lora_alpha=settings.lora_alpha,
        dropout=0.0,
        targets=None,
        total=settings.train_steps,
        seed=settings.seed,
        batches=nothing,
    )
    base.model.eval()
    return AdaptedModel(
        base,
        adapters,
        strategy,
        task,
        max(teacher.config.data.max_length for teacher in teachers),
        autocast_context("fp32", torch.device("cpu")),
        new_tokens=max(teacher.config.log.generate_max for teacher in teachers),
    )


def _base(folder: Path, teachers: list[Teacher], settings: DistilSettings, task: Task) -> BaseModel:
    return load_base(folder, task=task, seed=settings.seed, layers=teachers[0].config.model.layers)


def check_length(model: AdaptedModel, before: int, tokens: int) -> None:
    """Refuse texts that are longer than the model reads.

    Raises:
        ConfigError: that says how long they may be.
    """
    most = total_tokens(model) - before
    if tokens > most:
        raise ConfigError(f"tokens {tokens}: the teachers read at most {most:,} after the start; lower tokens")


def share_frozen(model: nn.Module, other: nn.Module) -> int:
    """Let a model's frozen weights that are equal to another's be the same memory; returns how many are."""
    known = {_plain(name): tensor for name, tensor in other.named_parameters() if not tensor.requires_grad}
    shared = 0
    for name, tensor in model.named_parameters():
        same = known.get(_plain(name))
        if same is not None and same.shape == tensor.shape and not tensor.requires_grad and torch.equal(same, tensor):
            tensor.data = same.data
            shared += 1
    return shared


def _plain(name: str) -> str:
    """Return the name that a weight has without adapters."""
    return name.replace(".base_layer.", ".")
