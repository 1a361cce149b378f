"""A merge from its settings to its end: the folder, the steps, and the results."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dynlora.engine.loop.hardware import describe_machine
from dynlora.kinds.merge.result import OWN
from dynlora.kinds.merge.settings import STACK, MergeSettings
from dynlora.kinds.merge.work.materials import Materials, with_merge
from dynlora.kinds.merge.work.steps import Merging
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter
from dynlora.training.folder_work import Outcome
from dynlora.training.stepwise import keep_adapter, run_steps
from dynlora.training.stop_signal import StopRequest


def resume(folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Outcome:
    """Start a merge, or continue it from its last checkpoint.

    Raises:
        ConfigError: when it is finished, running, or may be running elsewhere.
        CorruptRunError: when it cannot be read.
    """
    load = partial(_load, MergeSettings.of_run(folder), folder.parent)
    return run_steps(folder, load, _finish, begin=_describe, force=force, progress=progress, is_new=is_new)


def _load(settings: MergeSettings, runs_dir: Path, writer: RunWriter) -> Merging:
    """Return the merge before its first step."""
    writer.log("info", f"Loading {len(settings.sources)} runs")
    writer.commit()
    return Merging(Materials.load(settings, runs_dir), writer)


def _describe(merging: Merging, writer: RunWriter) -> None:
    """Tell the store what the merge is made of, where it runs and how long it is."""
    materials = merging.materials
    of = materials.settings
    sources = zip(materials.sources, materials.parameters, strict=True)
    writer.set_meta("machine", describe_machine(materials.machine, "fp32"))
    writer.set_meta("task", materials.task.name)
    writer.set_meta("task_facts", materials.task.facts())
    writer.define_modules([ModuleRow.of(info, sum(materials.ranks_of(info))) for info in materials.modules])
    writer.set_meta(
        "merge",
        {
            "method": of.method,
            "weights": list(of.shares),
            "density": None if of.method == STACK else of.kept_share,
            "sources": [one.described(parameters) for one, parameters in sources],
            "budget": materials.budget,
            "of": sum(materials.parameters),
            "head": materials.head,
            "unit": materials.task.loss_unit,
            "stages": merging.stages,
        },
    )


def _finish(merging: Merging, writer: RunWriter, _stop: StopRequest) -> bool:
    """Keep the results and the merge, all safe on the disk.

    Raises:
        OSError: when the disk does not take them; the checkpoint is still there then.
    """
    document, materials = merging.document(writer.folder.name), merging.materials
    for note in document["notes"]:
        writer.log("warning", note)
    writer.set_meta("merge_results", document)
    model = with_merge(materials.sources[0].load(), materials.modules, merging.merged, materials.settings.seed)
    writer.set_meta("params", model.adapters.adapter_parameter_count())
    has_head = materials.head != OWN
    keep_adapter(
        model.adapters,
        writer,
        step=merging.total,
        task=materials.task.name,
        task_settings=materials.task.settings(),
        **({"head": dict(materials.updates[0].head), "labels": list(materials.task.labels)} if has_head else {}),
    )
    return True
