"""What a worker of a cluster does with a run: it trains it in a child process, whatever an earlier worker left of it.

Asking twice is the same as asking once: a run that is finished, stopped or failed stays as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from dynlora.errors import ConfigError, DynloraError, RunNotFoundError
from dynlora.integrations.clusters import die_with_parent
from dynlora.jobs.environment import QUEUE_VARIABLE, child_environment
from dynlora.jobs.queue import LOG_NAME, read_status
from dynlora.safe_files import open_log, tail
from dynlora.store.lifecycle import annotate
from dynlora.store.rows import Status
from dynlora.store.schema import run_folder

LOOK_S = 0.5
"""Seconds between two looks at a run."""

SILENT_S = 60.0
"""How long a run on another machine must have recorded nothing before it counts as lost, seconds."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that say how many threads a process computes with, which is part of what its numbers are."""

DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""Variables that say which GPUs a process sees; Ray sets them for a task that was given some."""


def train_run(runs_dir: str, run_id: str, threads: int, gpus: float = 0.0) -> str:
    """Train a run to its end, from its checkpoint where there is one, and return its status.

    Args:
        runs_dir: folder of the runs, the same on all nodes.
        run_id: of the run.
        threads: that it computes with.
        gpus: that Ray chose for it; without any it sees none.

    Raises:
        ConfigError: when this machine does not see the run, or is no Linux.
    """
    if sys.platform != "linux":
        raise ConfigError("--on ray: a node of the cluster is not a Linux machine; use Linux nodes")
    root = Path(runs_dir)
    if not root.is_dir():
        raise ConfigError(f"--runs-dir {runs_dir}: a node of the cluster does not see this folder; share it with all")
    folder = run_folder(root, run_id)
    status = _left_alone(folder)
    if status.status in ("queued", "interrupted") or status.is_running:
        code = _train(folder, environment(threads, gpus), is_lost=status.is_running)
        if code > 0 and read_status(folder).status == "queued":  # it was refused before it was opened
            annotate(folder, state="failed", error=tail(folder / LOG_NAME) or "its process ended before training began")
    return read_status(folder).status


def _left_alone(folder: Path) -> Status:
    """Wait until nobody trains a run, and return where it stands then.

    A process of this machine is seen to end. That of another counts as lost when nothing was recorded for a while; the
    lock of the run is a second guard.
    """
    status, since = read_status(folder), time.monotonic()
    while status.is_running and (not status.other_host or time.monotonic() - since < SILENT_S):
        time.sleep(LOOK_S)
        state = read_status(folder)
        if (state.heartbeat, state.step, state.opened) != (status.heartbeat, status.step, status.opened):
            since = time.monotonic()
        status = state
    return status


def environment(threads: int, gpus: float) -> dict[str, str]:
    """Return the environment of a process that trains: its threads and GPUs, and no look at the queue of the folder."""
    none = {} if gpus else dict.fromkeys(DEVICES, "")
    return {**child_environment(), **none, **dict.fromkeys(THREADS, str(threads)), QUEUE_VARIABLE: "0"}


def _train(folder: Path, variables: Mapping[str, str], *, is_lost: bool) -> int:
    """Train in a child process until it ends, and return its exit code; a stop before it opened the run ends it."""
    command = [*die_with_parent.command(folder.name, folder.parent), *(["--force"] if is_lost else [])]
    descriptor = open_log(folder / LOG_NAME)
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=subprocess.STDOUT, env=variables
        )
    finally:
        os.close(descriptor)
    try:
        while True:
            try:
                return child.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                if _is_given_up(folder):
                    child.terminate()
    finally:
        if child.poll() is None:  # this worker's task was cancelled: nobody else may find it training
            child.kill()
            child.wait()


def _is_given_up(folder: Path) -> bool:
    """Say whether a run was stopped, or removed, while its process was on its way."""
    try:
        return read_status(folder).status == "stopped"
    except RunNotFoundError:
        return True
    except DynloraError:
        return False  # busy for a moment
