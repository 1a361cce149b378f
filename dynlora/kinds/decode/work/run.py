"""A decode from its settings to its end: a run folder with one event for each solved problem, which continues."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dynlora.config_files import read_run_config
from dynlora.engine.compress.plain import Truncatable, as_plain_lora
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates
from dynlora.engine.loop.hardware import describe_machine
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError
from dynlora.inference.load import GATE_ROWS, load_run
from dynlora.jobs import kinds
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.decode.work.plan import Plan, changed_role, planned
from dynlora.kinds.decode.work.results import plain, results, rows_of
from dynlora.kinds.decode.work.solve import Point, payload, solve
from dynlora.store.meta import section, table, whole
from dynlora.store.reader import RunReader
from dynlora.store.writer import RunWriter
from dynlora.tasks import WritingTask
from dynlora.training.folder_work import Outcome, check_can_work, work_on
from dynlora.training.inputs import read_data
from dynlora.training.progress_stream import QuietStream
from dynlora.training.stop_signal import StopRequest

ROWS = 48
"""Held-out completions whose tokens are compared."""


def nested_ranks(folder: Path, rows: int = ROWS) -> list[dict[str, Any]]:
    """Return {rank, share, agreement} of the ranks 0, 1, 2, 4, ... of a run's adapter, up to the whole.

    `share` is the fraction of the adapter's parameters; `agreement` the fraction of tokens of held-out completions at
    which the truncated adapter, with `rank` components in every module, finds the same token most probable as the
    whole one. Gates are replaced by their means.

    Raises:
        ConfigError: when the run writes no texts, or its data has no completions.
        NotMergeableError: when the method's update has no components.
    """
    config, model = read_run_config(folder), load_run(folder)
    data = read_data(config)
    if not isinstance(model.task, WritingTask) or data.held_out.text_pair is None:
        raise ConfigError(f"run {folder.name}: has no completions to compare tokens on; give a run that learned some")
    bake_gates(model, mean_gates(model, model.tokens(data.train_sample(GATE_ROWS, config.seed))))
    plain = as_plain_lora(model)
    drawn = np.random.default_rng(stream_seed(config.seed, "nested ranks")).permutation(len(data.held_out))[:rows]
    chosen = data.held_out.take(np.sort(drawn))
    whole = _choices(plain, chosen)
    adapter = Truncatable.of(plain, None, "plain")
    agreements = []
    for rank in _ranks(max(adapter.sizes, default=0)):
        components = [np.arange(min(rank, size)) for size in adapter.sizes]
        adapter.keep(components)
        same = (_choices(plain, chosen) == whole).double().mean()
        share = adapter.parameters_of(components) / max(1, adapter.parameters)
        agreements.append({"rank": rank, "share": share, "agreement": float(same)})
    return agreements


def _ranks(largest: int) -> Iterator[int]:
    """Yield 0, 1, 2, 4, ... and the largest."""
    yield 0
    rank = 1
    while rank < largest:
        yield rank
        rank *= 2
    if largest:
        yield largest


@torch.no_grad()
def _choices(model: AdaptedModel, rows: Rows) -> Tensor:
    """Return the most probable token at every token of the completions, each after the right tokens, (n,)."""
    task, tokenizer, choices = model.task, model.base.tokenizer, []
    assert isinstance(task, WritingTask)
    whole: Any = model.base.model
    device = next(whole.parameters()).device
    for index in range(len(rows)):
        prompt = task.prompt(tokenizer, rows, index)
        ids = [*prompt.ids, *tokenizer(prompt.expected, add_special_tokens=False)["input_ids"]]
        ids = ids[: model.max_length]
        logits = whole(input_ids=torch.tensor([ids], device=device)).logits[0, len(prompt.ids) - 1 :]
        choices.append(logits.argmax(-1).cpu())
    return torch.cat(choices)


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


def resume(folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Outcome:
    """Start a new or queued decode, or continue one at the problem where it ended.

    Raises:
        DynloraError: when it cannot continue: finished, running, or its runs or data have changed.
    """
    if not is_new:
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
    recorded = {row["key"] for row in rows_of(table(meta.get(RESULTS)))}

    def work(writer: RunWriter, stop: StopRequest) -> bool:
        return _decoded(known or planned(settings, folder.parent), writer, stop, done, progress, recorded)

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
    recorded: Collection[str] = (),
) -> bool:
    """Solve what is not solved yet, and return whether all is.

    Args:
        plan: of the decode.
        writer: of its folder.
        stop: says whether it was asked to stop.
        solved: payloads of what is solved; new ones are added.
        progress: draw a bar.
        recorded: keys of points whose results are recorded.
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
        for place, point in enumerate(plan.points):
            for index, problem in enumerate(plan.problems):
                if (point.key, problem.index) in known:
                    continue
                if stop():
                    return False
                solved.append(_solved(plan, place, index))
                step = place * len(plan.problems) + index + 1
                writer.event(step, PROBLEM, [], solved[-1])
                writer.progress(step)
                writer.commit()
                bar.set_postfix({"point": point.key}, refresh=False)
                bar.update(1)
            is_solved = known.issuperset((point.key, problem.index) for problem in plan.problems)
            if not is_solved or point.key not in recorded:
                _end_of_point(plan, point, place, writer, solved)
    if plan.diagnosed is not None:
        writer.set_meta(NESTED, nested_ranks(plan.diagnosed))
    return True


def _solved(plan: Plan, place: int, index: int) -> dict[str, Any]:
    task = plan.cast.target.model.task
    assert isinstance(task, WritingTask)
    problem, point = plan.problems[index], plan.points[place]
    record = payload(problem, point, solve(plan.cast, problem, point, plan.limits, plan.seed), task)
    for step in record["steps"]:
        step["reward"] = plain(step["reward"])
    return record


def _end_of_point(plan: Plan, point: Point, place: int, writer: RunWriter, solved: list[dict[str, Any]]) -> None:
    """Record what is known after a point, and say what is odd about its solutions."""
    mine = [one for one in solved if one["point"] == point.key]
    step = (place + 1) * len(plan.problems)
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
