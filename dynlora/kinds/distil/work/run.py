"""A distillation from its settings to its end: the folder, the steps, and the results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from dynlora.engine.evaluation.generate import Written
from dynlora.engine.loop.hardware import describe_machine
from dynlora.kinds.distil.settings import NOT_RECYCLE, TEXTS_AT_ONCE, DistilSettings
from dynlora.kinds.distil.work.materials import Materials
from dynlora.kinds.distil.work.metrics import DistilMetrics
from dynlora.kinds.distil.work.steps import Distilling
from dynlora.kinds.distil.work.texts import StudentTraining, Texts, written_texts
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter
from dynlora.training.folder_work import Outcome
from dynlora.training.progress_stream import StopRequest
from dynlora.training.stepwise import PROBES, fastest_s, keep_adapter, results_of, run_steps, tell_estimate


def resume(folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Outcome:
    """Start a distillation, or continue it from its last checkpoint.

    Raises:
        ConfigError: when it is finished, running, or may be running elsewhere.
        CorruptRunError: when it cannot be read.
    """
    load = partial(_load, DistilSettings.of_run(folder), folder.parent)
    return run_steps(folder, load, _finish, begin=_begin, force=force, progress=progress, is_new=is_new)


def _load(settings: DistilSettings, runs_dir: Path, writer: RunWriter) -> Distilling:
    """Return the distillation before its first step."""
    writer.log("info", f"Loading {len(settings.teachers)} teachers. {NOT_RECYCLE}")
    writer.commit()
    return Distilling(Materials.load(settings, runs_dir), writer)


def _begin(distilling: Distilling, writer: RunWriter) -> None:
    """Tell the store what the distillation is, and before its first step how long it takes."""
    _describe(writer, distilling)
    distilling.define()
    if distilling.step == 0:
        tell_estimate(writer, estimated(distilling.materials))


def _describe(writer: RunWriter, distilling: Distilling) -> None:
    """Tell the store what the distillation is made of, where it runs and how long it is."""
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
            "samples": of.samples,
            "held_out": of.held_out,
            "tokens": of.tokens,
            "train_steps": of.train_steps,
            "batch_size": of.batch_size,
            "rank": of.rank,
            "start": materials.start.what,
            "start_ids": list(materials.start.ids),
            "model": materials.folder.name,
            "stages": distilling.stages,
        },
    )


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
