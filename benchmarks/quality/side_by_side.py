"""Several runs side by side, a process and a thread each; a file for each that is finished."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.kept_runs import KeptRuns


class Job(Protocol):
    """A run that can be asked for again, by the name of the file that keeps it."""

    @property
    def file_name(self) -> str:
        """The name of its file."""
        ...

    def run(self, folder: Path | None, limit: int | None) -> dict[str, Any]:
        """Train and evaluate, on the tasks of a folder, on at most so many rows."""
        ...


def work(waiting: Any, kept: KeptRuns, data: Path | None, limit: int | None) -> None:
    """Take runs off the queue until it is empty or nobody waits; one thread, so that two of them fill two cores."""
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    for job in iter(waiting.get, None):
        if parent is not None and not parent.is_alive():
            return
        made = job.run(data, limit)
        metrics = made["metrics"]
        scores = f"loss {metrics['loss']:.4f}  accuracy {metrics['accuracy']:.4f}" if metrics["loss"] else "diverged"
        print(f"{job.file_name:66} {scores}  {made['train_s']:.0f} s", flush=True)
        kept.keep(job.file_name, made)


def carry_out(
    jobs: Sequence[Job], kept: KeptRuns, data: Path | None, workers: int, limit: int | None
) -> list[dict[str, Any]]:
    """Train what is missing, several runs side by side, and return all that were asked for.

    Raises:
        SystemExit: when a worker failed.
    """
    missing = [job for job in jobs if job.file_name not in kept]
    print(f"{len(jobs)} runs, {len(missing)} of them to be trained")
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    context = multiprocessing.get_context("spawn")
    waiting = context.Queue()
    for job in [*missing, *[None] * workers]:
        waiting.put(job)
    children = [context.Process(target=work, args=(waiting, kept, data, limit)) for _ in range(workers)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        sys.exit("a run failed; what is finished is kept, and the command continues from there")
    kept.pack()
    return [kept[job.file_name] for job in jobs]
