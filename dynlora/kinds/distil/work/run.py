"""A distillation under way, from its settings to its end, and its results: how near the student is to its teachers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from dynlora import strategies
from dynlora.analysis.stats import per_token
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.generate import Written
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.loop.hardware import describe_machine
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.randomness import stream_seed
from dynlora.engine.recorder import Recorder
from dynlora.errors import DynloraError
from dynlora.kinds.distil.settings import NOT_RECYCLE, TEXTS_AT_ONCE, DistilSettings
from dynlora.kinds.distil.work.materials import Materials, StudentTraining, Texts, divergence, written_texts
from dynlora.kinds.sources import AveragedSources, copied_state, resumed
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter
from dynlora.tasks.token_rows import end_token
from dynlora.training.progress_stream import StopRequest
from dynlora.training.stepwise import PROBES, Stepwise, fastest_s, keep_adapter, results_of, tell_estimate

WRITTEN = ("samples", "held_out")
"""Stages in which teachers write: for the student, and for the test alone."""

SHOWN_TEXTS = 3
"""Texts of a step that are recorded."""

SHOWN_CHARACTERS = 400


@dataclass
class Distilling(Stepwise):
    """Everything a distillation has done so far.

    Attributes:
        materials: what it works with.
        recorder: takes what is recorded.
        step: steps done, of all stages together.
        texts: of each stage and teacher.
        training: the student under way.
        learned: the trained student, once it is done.
    """

    materials: Materials
    recorder: Recorder
    step: int = 0
    texts: dict[str, list[Texts]] = field(init=False)
    training: StudentTraining | None = None
    learned: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Begin before the first step."""
        end = end_token(self.materials.student.base.tokenizer)
        self.texts = {name: [Texts(self.materials.start.ids, end) for _ in self.materials.teachers] for name in WRITTEN}

    # --- the plan

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages with their first and last step; the step before `first` is done when a stage begins."""
        return self.materials.settings.stages(len(self.materials.teachers))

    def define(self) -> None:
        """Announce what will be recorded."""
        self.recorder.define_groups([teacher.name for teacher in self.materials.teachers])

    # --- the work

    def advance(self) -> None:
        """Take one step and record it.

        Raises:
            TrainingDiverged: when training diverges.
        """
        stage = self.stage()
        if stage in WRITTEN:
            self._write(stage)
        else:
            self._learn()
        self.recorder.progress(self.step)

    def _write(self, stage: str) -> None:
        """Let the next teacher write a batch of texts, and record a few of them."""
        of = self.materials.settings
        target = of.samples if stage == "samples" else of.held_out
        index = next(index for index, texts in enumerate(self.texts[stage]) if len(texts) < target)
        texts = self.texts[stage][index]
        count = min(TEXTS_AT_ONCE, target - len(texts))
        seed = stream_seed(of.seed, stage, index, len(texts)) % 2**62
        first = len(texts)
        texts.add(written_texts(self.materials.models[index], self.materials.start, count, of.tokens, seed))
        self.step += 1
        lengths = [len(row) for row in texts.rows[first:]]
        self.recorder.scalar("text_tokens", stage, self.step, sum(lengths) / len(lengths))
        self.recorder.event(
            self.step,
            "texts",
            [],
            {
                "teacher": index,
                "stage": stage,
                "count": count,
                "of": len(texts),
                "wanted": target,
                "texts": [self._shown(texts, row) for row in range(first, min(len(texts), first + SHOWN_TEXTS))],
            },
        )

    def _shown(self, texts: Texts, row: int) -> dict[str, Any]:
        """Return a text for reading."""
        tokenizer: Any = self.materials.student.base.tokenizer
        words = str(tokenizer.decode(texts.rows[row], skip_special_tokens=True))
        return {
            "text": words[:SHOWN_CHARACTERS],
            "is_cut": len(words) > SHOWN_CHARACTERS,
            "tokens": len(texts.rows[row]),
            "ended": texts.ended[row],
        }

    def _learn(self) -> None:
        """Learn from one batch."""
        if self.training is None:
            self.materials.forget_learning()
            self.training = self.new_training()
        loss = self.training.advance()
        self.step += 1
        self.recorder.scalar("kl", "student", self.step, loss)
        if self.training.is_done:
            self.learned = copied_state(adapter_state(self.materials.student.adapters))
            self.training = None

    def new_training(self) -> StudentTraining:
        """Return the student at its start."""
        of = self.materials.settings
        return StudentTraining(
            self.materials.student,
            self.materials.models,
            self.texts["samples"],
            steps=of.train_steps,
            lr=of.lr,
            batch_size=of.batch_size,
            seed=of.seed,
        )

    def use_learned(self) -> None:
        """Put the trained student into the model."""
        if self.learned is not None:
            load_adapter_state(self.materials.student.adapters, self.learned)

    def described_texts(self) -> list[dict[str, Any]]:
        """Return what is recorded of each teacher's texts, by stage."""
        return [
            {"teacher": teacher.run, "name": teacher.name, "stage": stage, **texts.described()}
            for stage in WRITTEN
            for teacher, texts in zip(self.materials.teachers, self.texts[stage], strict=True)
        ]

    # --- what survives a stop or a crash

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        return {
            "step": self.step,
            "texts": {stage: [one.state() for one in texts] for stage, texts in self.texts.items()},
            "training": None if self.training is None else self.training.state_dict(),
            "learned": self.learned,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step, self.learned = state["step"], state["learned"]
        for stage, entries in state["texts"].items():
            for texts, one in zip(self.texts[stage], entries, strict=True):
                texts.load(one)
        if state["training"] is not None:
            self.training = self.new_training()
            self.training.load_state_dict(state["training"])


METHODS: Mapping[str, str] = {
    "base": "base model",
    "averaged": "average of the teachers' adapters",
    "student": "student",
}
"""What is compared, the teachers aside, and what each is."""

BATCH = 8
"""Texts of a forward pass."""

PerText = tuple[np.ndarray, np.ndarray]
"""Sums over the tokens of each text, and their numbers, (n,) each."""


@dataclass
class DistilMetrics:
    """What is measured, as far as it is.

    Attributes:
        distilling: whose last step is done.
        kl: KL(teacher || model) over the teacher's held-out texts, by model and position of the teacher.
        loss: of the held-out examples of a teacher's data, by position of the teacher and model, or id of a teacher.
        notes: what a person should know, in sentences.
    """

    distilling: Distilling
    kl: dict[str, list[PerText]] = field(default_factory=dict[str, "list[PerText]"])
    loss: dict[int, dict[str, PerText]] = field(default_factory=dict[int, "dict[str, PerText]"])
    notes: list[str] = field(default_factory=list[str])

    def measure(self) -> Iterator[str]:
        """Measure one model after the other; yields the name of each before it is measured."""
        self.distilling.use_learned()
        materials = self.distilling.materials
        rows = self.held_out_rows()
        student = materials.student
        for name, state in (("base", student.adapters.disabled), ("student", nullcontext)):
            yield name
            self.take(name, student, state(), rows)
        for teacher, model in zip(materials.teachers, materials.models, strict=True):
            if rows:
                yield f"teacher {teacher.name}"
                self.take_loss(teacher.run, model, rows)
        yield "averaged"
        averaged = self.averaged()
        if averaged is not None:
            self.take("averaged", averaged, nullcontext(), rows)

    def take(
        self, name: str, model: AdaptedModel, state: AbstractContextManager[Any], rows: Mapping[int, Rows]
    ) -> None:
        """Measure a model in a state: its KL to each teacher and its loss on the rows of each, by its position."""
        with state:
            self.kl[name] = [self._divergence(index, model) for index in range(len(self.distilling.materials.teachers))]
            self.take_loss(name, model, rows)

    @torch.no_grad()
    def _divergence(self, index: int, model: AdaptedModel) -> PerText:
        """Return KL(teacher || model) over each of the teacher's held-out texts."""
        teacher, texts = self.distilling.materials.models[index], self.distilling.texts["held_out"][index]
        parts = [range(start, min(start + BATCH, len(texts))) for start in range(0, len(texts), BATCH)]
        divergences = [divergence(teacher, model, texts, part) for part in parts]
        sums, counts = (torch.cat(list(one)).double().cpu().numpy() for one in zip(*divergences, strict=True))
        return sums, counts

    def take_loss(self, name: str, model: AdaptedModel, rows: Mapping[int, Rows]) -> None:
        """Measure the loss of a model on the held-out examples of each teacher, as the teacher's own task has it."""
        for index, held_out in rows.items():
            own = self.distilling.materials.models[index]
            of_task = replace(model, task=own.task, max_length=own.max_length)
            output = of_task.predictions(of_task.tokens(held_out), BATCH).output.astype(float)
            self.loss.setdefault(index, {})[name] = (output[:, 0], output[:, 2])

    def held_out_rows(self) -> dict[int, Rows]:
        """Return the held-out examples of the teachers whose data can still be read, and note which cannot."""
        of, rows_of = self.distilling.materials.settings, dict[int, Rows]()
        for index, teacher in enumerate(self.distilling.materials.teachers):
            try:
                rows_of[index] = teacher.sample(of.rows, of.seed, index)
            except DynloraError as error:
                self.notes.append(str(error))
        return rows_of

    def averaged(self) -> AdaptedModel | None:
        """Return the base model with the mean of the teachers' updates; None and a note where there is none."""
        materials, averaged = self.distilling.materials, AveragedSources()
        for teacher in materials.teachers:
            try:
                model = teacher.load()  # with weights of its own, which are merged in place
                if model.adapters.gates is not None:
                    self.notes.append(f"the gates of teacher {teacher.run} count as one in the average of the adapters")
                averaged.add(model)
            except DynloraError as error:
                self.notes.append(f"there is no average of the adapters: teacher {teacher.run} ({error})")
                return None
        base = materials.plain_base()
        averaged.put_into(base.model)
        strategy = strategies.build("lora", {})
        strategy.attach_task(base.task)
        base.model.eval()
        none = Adapters([], budget=0, reference_rank=1, seed=0)
        return replace(materials.student, base=base, adapters=none, strategy=strategy)

    # --- the document

    def document(self, run_id: str) -> dict[str, Any]:
        """Return the results as the command prints them; divergences and losses in nats per token."""
        materials = self.distilling.materials
        return {
            "id": run_id,
            "method": materials.settings.method,
            "what": NOT_RECYCLE,
            "kl": {name: self._by_teacher(values) for name, values in self.kl.items()},
            "kl_against_base": self._kl_against("base"),
            "kl_against_average": {"student": self._difference("student", "averaged")} if "averaged" in self.kl else {},
            "loss": {
                materials.teachers[index].run: {name: per_token(*values) for name, values in by_model.items()}
                for index, by_model in self.loss.items()
            },
            "loss_against_base": {
                materials.teachers[index].run: _against(by_model, "base") for index, by_model in self.loss.items()
            },
            "loss_against_average": {
                materials.teachers[index].run: _against(by_model, "averaged")
                for index, by_model in self.loss.items()
                if "averaged" in by_model
            },
            "methods": {name: METHODS[name] for name in self.kl},
            "texts": self.distilling.described_texts(),
            "start": materials.start.what,
            "notes": [*_said_of_texts(self.distilling), *self.notes],
        }

    def _kl_against(self, other: str) -> dict[str, Any]:
        return {name: self._difference(name, other) for name in self.kl if name != other}

    def _difference(self, one: str, other: str) -> dict[str, Any]:
        pairs = zip(self.kl[one], self.kl[other], strict=True)
        return self._by_teacher([(mine[0] - theirs[0], mine[1]) for mine, theirs in pairs])

    def _by_teacher(self, divergences: list[PerText]) -> dict[str, Any]:
        """Return the mean over the texts of each teacher, and of all teachers together."""
        runs = [teacher.run for teacher in self.distilling.materials.teachers]
        every = tuple(np.concatenate(part) for part in zip(*divergences, strict=True))
        return {
            "all": per_token(every[0], every[1]),
            **{run: per_token(*one) for run, one in zip(runs, divergences, strict=True)},
        }


def _against(by_model: Mapping[str, PerText], other: str) -> dict[str, Any]:
    """Return the paired differences of losses to another model's, by model."""
    theirs, counts = by_model[other]
    return {name: per_token(sums - theirs, counts) for name, (sums, _) in by_model.items() if name != other}


def _said_of_texts(distilling: Distilling) -> Iterator[str]:
    """Yield a sentence for each teacher whose texts are empty or repeat an earlier one."""
    rows = distilling.described_texts()
    for teacher in distilling.materials.teachers:
        own = [row for row in rows if row["teacher"] == teacher.run]
        texts, empty, repeated = (sum(row[key] for row in own) for key in ("texts", "empty", "repeated"))
        if empty or repeated:
            yield f"texts of teacher {teacher.name}: {texts:,}, of these empty: {empty:,}, repeated: {repeated:,}"


def _begin(distilling: Distilling, writer: RunWriter) -> None:
    """Tell the store what the distillation is, and before its first step how long it takes."""
    materials = distilling.materials
    of = materials.settings
    writer.set_meta("machine", describe_machine(materials.device, "fp32"))
    writer.set_meta("params", materials.student.adapters.adapter_parameter_count())
    writer.set_meta("task", materials.student.task.name)
    writer.set_meta("task_facts", materials.student.task.facts())
    writer.define_modules([ModuleRow.of(module.info, module.max_rank) for module in materials.student.adapters])
    writer.set_meta(
        "distil",
        {
            "method": of.method,
            "what": NOT_RECYCLE,
            "teachers": [one.described() for one in materials.teachers],
            **of.model_dump(include={"samples", "held_out", "tokens", "train_steps", "batch_size", "rank"}),
            "start": materials.start.what,
            "start_ids": list(materials.start.ids),
            "model": materials.folder.name,
            "stages": distilling.stages,
        },
    )
    distilling.define()
    if distilling.step == 0:
        tell_estimate(writer, estimated(distilling.materials))


def _finish(distilling: Distilling, writer: RunWriter, stop: StopRequest) -> bool:
    """Measure the results and keep student and texts, all safe on the disk; False when asked to stop meanwhile.

    Raises:
        OSError: when the disk does not take them; the checkpoint is still there then.
    """
    results = results_of(DistilMetrics(distilling), writer, stop)
    if results is None:
        return False
    writer.set_meta("distil_results", results)
    student, materials = distilling.materials.student, distilling.materials
    keep_adapter(
        student.adapters,
        writer,
        step=materials.settings.train_steps,
        task=student.task.name,
        task_settings=student.task.settings(),
        texts=distilling.state_dict()["texts"],
        start_ids=list(materials.start.ids),
    )
    return True


resume = partial(resumed, DistilSettings, Materials, Distilling, _begin, _finish)
"""Starts a distillation, or continues it from its last checkpoint; takes the folder of the run."""


PROBE_TOKENS = 8
"""Tokens of the texts that are written to see how long one takes."""


def estimated(materials: Materials) -> dict[str, Any]:
    """Return minutes (of all, and by stage), texts and teachers of a distillation; nothing is kept.

    Texts are counted as long as they may become. The test at the end is left out.
    """
    of, teachers = materials.settings, len(materials.teachers)
    count = min(TEXTS_AT_ONCE, of.samples)
    short = min(PROBE_TOKENS, of.tokens)
    write_s = fastest_s(lambda: written_texts(materials.models[0], materials.start, count, short, 0)) / short
    batches = teachers * (of.batches(of.samples) + of.batches(of.held_out))
    writing_s = batches * write_s * of.tokens
    learning_s = of.train_steps * fastest_s(_probe(materials).advance)
    materials.forget_learning()
    return {
        "minutes": round((writing_s + learning_s) / 60, 2),
        "writing_minutes": round(writing_s / 60, 2),
        "learning_minutes": round(learning_s / 60, 2),
        "texts": teachers * (of.samples + of.held_out),
        "teachers": teachers,
    }


def _probe(materials: Materials) -> StudentTraining:
    """Return a student that learns from texts of the full length that nobody wrote."""
    of = materials.settings
    texts = []
    for _ in materials.teachers:
        one = Texts(materials.start.ids, materials.start.ids[0])
        one.add([Written([materials.start.ids[0]] * of.tokens, ended=False)] * min(of.batch_size, of.samples))
        texts.append(one)
    steps = 1 + PROBES
    return StudentTraining(
        materials.student, materials.models, texts, steps=steps, lr=of.lr, batch_size=of.batch_size, seed=of.seed
    )
