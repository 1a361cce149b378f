"""A decode from its settings to its end: a run folder with one event for each solved problem, which continues."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dynlora.engine.loop.hardware import describe_machine
from dynlora.errors import ConfigError
from dynlora.jobs import kinds
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.decode.work.nested_ranks import nested_ranks
from dynlora.kinds.decode.work.plan import Plan, changed_role, planned
from dynlora.kinds.decode.work.points import plain
from dynlora.kinds.decode.work.results import results, rows_of
from dynlora.kinds.decode.work.solve import Point, payload, solve
from dynlora.store.meta import section, table, whole
from dynlora.store.reader import RunReader
from dynlora.store.writer import RunWriter
from dynlora.tasks import WritingTask
from dynlora.training.folder_work import Outcome, check_can_work, work_on
from dynlora.training.progress_stream import QuietStream
from dynlora.training.stop_signal import StopRequest

PROBLEM = "problem"
"""Kind of the event of a solved problem."""

RESULTS, NESTED = "decode_results", "nested_ranks"
"""Meta keys of what a decode found, and of how much of the target's adapter is in its first components."""


def decode(
    settings: DecodeSettings, runs_dir: Path, *, progress: bool = False, function: Callable[..., float] | None = None
) -> Outcome:
    """Decode in a new run folder.

    Args:
        settings: of the decode.
        runs_dir: folder of the runs.
        progress: draw a bar.
        function: the reward, where it is a function of one's own.

    Raises:
        DynloraError: when something the settings name cannot be used; no folder is left then.
    """
    plan = planned(settings, Path(os.path.realpath(runs_dir)), function)
    folder = kinds.create(settings, runs_dir, "running")
    return work_on(folder, None, lambda writer, stop: _decoded(plan, writer, stop, [], progress))


def resume(folder: Path, *, force: bool = False, progress: bool = False) -> Outcome:
    """Start a queued decode, or continue one at the problem where it ended.

    Raises:
        DynloraError: when it cannot continue: finished, running, or its runs or data have changed.
    """
    check_can_work(folder, force)
    settings = DecodeSettings.of_run(folder)
    with RunReader(folder) as reader:
        meta = reader.meta()
        events = reader.events(kinds=[PROBLEM])
    threads = whole(table(meta.get("machine")).get("threads"))
    if threads is not None and 0 < threads <= 1024:
        torch.set_num_threads(threads)
    known = planned(settings, folder.parent) if events else None  # refused before anything is touched
    if known is not None:
        _check_unchanged(folder.name, section(meta, "decode"), known.meta)
    done = [event.payload for event in events]
    told = {row["key"] for row in rows_of(table(meta.get(RESULTS)))}

    def work(writer: RunWriter, stop: StopRequest) -> bool:
        return _decoded(known or planned(settings, folder.parent), writer, stop, done, progress, told)

    return work_on(folder, events[-1].step if events else None, work)


def _check_unchanged(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue with other data or other adapters than before.

    Raises:
        ConfigError: one sentence that says what has changed.
    """
    if before.get("digest") != now["digest"]:
        raise ConfigError(f"resume {name}: its data has changed since it began; restore it, or start again")
    if role := changed_role(section(before, "roles_saved"), now["roles_saved"]):
        raise ConfigError(
            f"resume {name}: the adapter of its {role} has changed since it began; restore it, or start again"
        )


def _decoded(
    plan: Plan,
    writer: RunWriter,
    stop: StopRequest,
    solved: list[dict[str, Any]],
    progress: bool,
    told: Collection[str] = (),
) -> bool:
    """Solve what is not solved yet, and return whether all is.

    Args:
        plan: of the decode.
        writer: of its folder.
        stop: says whether it was asked to stop.
        solved: payloads of what is solved; new ones are added.
        progress: draw a bar.
        told: keys of points whose results are recorded.
    """
    device = next(plan.cast.target.model.base.model.parameters()).device
    writer.set_meta("decode", plan.meta)
    writer.set_meta("machine", describe_machine(device, "fp32"))
    writer.update_max_steps(plan.total)
    writer.commit()
    known = {(one["point"], one["problem"]) for one in solved}
    with tqdm(
        total=plan.total, initial=len(known), disable=not progress, file=QuietStream(sys.stderr), unit="problem"
    ) as bar:
        for number, point in enumerate(plan.points):
            for index, problem in enumerate(plan.problems):
                if (point.key, problem.index) in known:
                    continue
                if stop():
                    return False
                solved.append(_solved(plan, number, index))
                step = number * len(plan.problems) + index + 1
                writer.event(step, PROBLEM, [], solved[-1])
                writer.progress(step)
                writer.commit()
                bar.set_postfix({"point": point.key}, refresh=False)
                bar.update(1)
            if not known.issuperset((point.key, problem.index) for problem in plan.problems) or point.key not in told:
                _end_of_point(plan, point, number, writer, solved)
    if plan.diagnosed is not None:
        writer.set_meta(NESTED, nested_ranks(plan.diagnosed))
    return True


def _solved(plan: Plan, number: int, index: int) -> dict[str, Any]:
    task = plan.cast.target.model.task
    assert isinstance(task, WritingTask)
    problem, point = plan.problems[index], plan.points[number]
    record = payload(problem, point, solve(plan.cast, problem, point, plan.limits, plan.seed), task)
    for step in record["steps"]:
        step["reward"] = plain(step["reward"])
    return record


def _end_of_point(plan: Plan, point: Point, number: int, writer: RunWriter, solved: list[dict[str, Any]]) -> None:
    """Record what is known after a point, and say what is odd about its solutions."""
    mine = [one for one in solved if one["point"] == point.key]
    step = (number + 1) * len(plan.problems)
    document = results(plan.points, solved)
    writer.set_meta(RESULTS, document)
    row = next(row for row in rows_of(document) if row["key"] == point.key)
    for name in ("accuracy", "flops", "flops_with_prefill", "seconds"):
        if row[name] is not None:
            writer.scalar(name, "validation", step, float(row[name]))
    cut = sum(one["ended"] != "end" for one in mine)
    empty = sum(
        not (step["text"] or "").strip() and step is not one["steps"][-1] for one in mine for step in one["steps"]
    )
    if cut:
        writer.log("warning", f"{point.key}: {cut:,} of {len(mine):,} solutions reached a limit before their end")
    if empty:
        writer.log("warning", f"{point.key}: {empty:,} steps are empty; they were judged like any other")
    writer.commit()
