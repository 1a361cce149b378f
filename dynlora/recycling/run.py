"""A recycle from its settings to its end: the folder, the steps, the results, and what survives a stop or a crash."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dynlora.engine.loop.adapter_state import adapter_state
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from dynlora.engine.loop.hardware import describe_machine
from dynlora.errors import CorruptRunError, StorageError
from dynlora.jobs import kinds as jobs
from dynlora.kinds.recycle import RecycleSettings
from dynlora.recycling.estimate import estimated
from dynlora.recycling.materials import Materials
from dynlora.recycling.recycling import Recycling
from dynlora.recycling.results import Measured
from dynlora.store.meta import table, whole
from dynlora.store.reader import RunReader
from dynlora.store.writer import RunWriter
from dynlora.training.folder_work import Outcome, check_can_work, work_on
from dynlora.training.progress_stream import QuietStream
from dynlora.training.stop_signal import StopRequest
from dynlora.training.system_stats import Readings

logger = logging.getLogger(__name__)

CHECKPOINTS = 20
"""Checkpoints of a recycle, those at its stops aside."""


def recycle(settings: RecycleSettings, runs_dir: Path, *, progress: bool = False) -> Outcome:
    """Make a new recycle and work on it to its end.

    Raises:
        DynloraError: when something the settings name cannot be used; no folder is left then.
    """
    return resume(jobs.create(settings, runs_dir, "running"), progress=progress, is_new=True)


def resume(folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Outcome:
    """Start a recycle, or continue it from its last checkpoint.

    Raises:
        ConfigError: when it is finished, running, or may be running elsewhere.
        CorruptRunError: when it cannot be read.
    """
    if not is_new:
        check_can_work(folder, force)
    settings = RecycleSettings.of_run(folder)
    with RunReader(folder) as reader:
        threads = whole(table(reader.meta().get("machine")).get("threads"))
    if threads is not None and 0 < threads <= 1024:
        torch.set_num_threads(threads)
    state = read_checkpoint(folder / "checkpoint") if find_checkpoint(folder / "checkpoint") is not None else None
    step = None if state is None else whole(state.get("step"))
    if state is not None and step is None:
        raise CorruptRunError(f"run {folder.name}: its checkpoint is damaged; remove it to start over")
    outcome = work_on(folder, step or None, partial(_work, settings, folder, state if step else None, progress))
    if outcome.state == "finished":  # not earlier: a crash before the end is stored continues from it
        _forget_checkpoint(folder)
    return outcome


def _forget_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished run, also one that a crash left aside."""
    for name in ("checkpoint", ".checkpoint.old"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _work(
    settings: RecycleSettings,
    folder: Path,
    state: Mapping[str, Any] | None,
    progress: bool,
    writer: RunWriter,
    stop: StopRequest,
) -> bool:
    """Take the steps that are left and measure the results; False when it was stopped before the end."""
    writer.log("info", f"Loading {len(settings.teachers)} teachers' base model")
    writer.commit()
    recycling = Recycling(Materials.load(settings, folder.parent), writer)
    if state is not None:
        recycling.load_state_dict(state)
    _describe(writer, recycling)
    recycling.define()
    if settings.test is not None:
        Measured.of(recycling)  # a file that cannot be used is said before the work, not after it
    if recycling.step == 0:
        found = estimated(recycling.materials)
        writer.set_meta("estimate", found)
        writer.log("info", f"About {found['minutes']:.1f} minutes, and the test after that")
        logger.info("%s: about %.1f minutes, and the test after that", folder.name, found["minutes"])
    if not _steps(recycling, folder, writer, stop, progress):
        return False
    return _finish(recycling, folder, writer, stop)


def _describe(writer: RunWriter, recycling: Recycling) -> None:
    """Tell the store what the recycle is made of, where it runs and how long it is."""
    materials = recycling.materials
    of = materials.settings
    device = materials.meta.device
    writer.set_meta("machine", describe_machine(device, materials.precision))
    writer.set_meta("params", materials.meta.adapters.adapter_parameter_count())
    writer.set_meta(
        "recycle",
        {
            "teachers": [teacher.described() for teacher in materials.teachers], "ways": of.ways,
            "shots": list(of.shots), "queries": of.queries, "episodes": of.episodes, "iterations": of.iterations,
            "tokens": of.tokens, "public_text_digest": materials.digest, "model": materials.meta.base.folder.name,
            "stages": recycling.stages, "pooling": materials.meta.pooling, "kept": of.kept,
        },
    )  # fmt: skip
    writer.update_max_steps(recycling.total)
    writer.commit()


def _steps(recycling: Recycling, folder: Path, writer: RunWriter, stop: StopRequest, progress: bool) -> bool:
    """Take the steps that are left, with checkpoints; False when asked to stop before the last one."""
    every, readings = max(1, recycling.total // CHECKPOINTS), Readings(writer)
    if recycling.step == 0:
        _keep(recycling, folder, writer)
    stage, begun = "", time.monotonic()
    with tqdm(
        total=recycling.total, initial=recycling.step, disable=not progress, file=QuietStream(sys.stderr), unit="step"
    ) as bar:
        while not recycling.is_done:
            if recycling.stage() != stage:
                stage = recycling.stage()
                writer.log("info", f"Stage {stage}, from step {recycling.step + 1:,} of {recycling.total:,}")
            recycling.advance()
            readings.take()
            bar.update(1)
            if stop() or recycling.step % every == 0 or recycling.is_done:
                writer.set_meta("time", {"train_s": time.monotonic() - begun})
                _keep(recycling, folder, writer)
            if stop() and not recycling.is_done:
                return False
    return True


def _keep(recycling: Recycling, folder: Path, writer: RunWriter) -> None:
    """Keep the whole state, after what is recorded is safe on the disk.

    Raises:
        StorageError: when the first one cannot be written; a later one is a warning.
    """
    try:
        writer.commit(durable=True)
        write_checkpoint(folder / "checkpoint", recycling.state_dict())
    except OSError as error:
        said = f"the checkpoint of step {recycling.step} cannot be written ({error.strerror or error})"
        if recycling.step == 0:
            raise StorageError(f"{said}; free some space, then dynlora resume {folder.name}") from None
        writer.warn(f"{said}; the work continues, and the last one is still valid")
        return
    writer.set_meta("checkpoint_step", recycling.step)


def _finish(recycling: Recycling, folder: Path, writer: RunWriter, stop: StopRequest) -> bool:
    """Measure the results and keep the meta-LoRA, all of it safe on the disk; False when asked to stop meanwhile.

    Raises:
        OSError: when the disk does not take them; the checkpoint is still there then.
    """
    measured = Measured.of(recycling)
    for what in measured.measure():
        writer.log("info", f"Testing: {what}")
        writer.commit()
        if stop():
            return False
    recycling.use_learned()
    writer.set_meta("prototypes", recycling.prototypes())
    writer.set_meta("recycle_results", measured.document(folder.name))
    for note in measured.notes:
        writer.log("warning", note)
    meta = recycling.materials.meta
    kept = {
        "step": recycling.step, "adapters": adapter_state(meta.adapters), "head": {}, "labels": [],
        "task": "classification", "pooling": meta.pooling, "max_length": meta.max_length,
    }  # fmt: skip
    write_checkpoint(folder / "adapter", kept)
    writer.commit(durable=True)
    return True
