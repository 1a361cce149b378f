"""Ray as the engine of sweeps: a cluster is found or started, each run is a task of it, and a lost one continues.

Run folders are made as a plain sweep makes them, but without a mark in `.active`, so that no queue starts them. A task
trains its run in a child process, the same `dynlora resume ID` that the queue starts. The kernel ends the child with
its worker (`die_with_parent.py`), so that a retry never trains beside it.

All that matters is in the runs folder, which all nodes see. So whatever ends, driver, worker or node, a run resumes
from its checkpoint, and asking for it twice trains it once.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dynlora.addresses import without_secrets
from dynlora.errors import ConfigError, DynloraError, RunNotFoundError
from dynlora.integrations import die_with_parent
from dynlora.jobs.environment import QUEUE_VARIABLE, child_environment
from dynlora.jobs.queue import LOCK_WAIT_S, LOG_NAME, QUEUE_LOCK, is_pending, read_status
from dynlora.jobs.spawn import locked, spawn_logged
from dynlora.safe_files import tail
from dynlora.store.lifecycle import annotate, unmark_active
from dynlora.store.rows import Status
from dynlora.store.schema import run_folder

RUN_LOOK_S = 0.5
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
        time.sleep(RUN_LOOK_S)
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
    child = spawn_logged(command, folder / LOG_NAME, variables, is_detached=False)
    try:
        while True:
            try:
                return child.wait(RUN_LOOK_S)
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


LOOK_S = 1.0
"""Seconds between two looks at runs that a person may have put back into the queue."""

RESUMES = 2
"""How often a run is given out again whose process was killed while its worker lived."""

RETRIES = 1
"""How often a run is given out again whose task failed before it trained, such as on a node without the runs folder."""

HERE = ("127.0.0.1", "localhost", "::1")

Say = Callable[[str], None]


@dataclass(frozen=True)
class ClusterRequest:
    """Where runs train, and what each is given.

    Attributes:
        address: of a cluster, HOST:PORT or auto; None starts one on this machine, which ends with the command.
        cpus: processors of a run, and threads that it computes with.
        gpus: of a run; a part of one is shared with others.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0

    def check(self) -> None:
        """Refuse what Ray cannot give.

        Raises:
            ConfigError: one sentence that says what to do instead.
        """
        if self.gpus > 1 and not float(self.gpus).is_integer():
            raise ConfigError(f"--gpus {self.gpus:g}: above 1 must be a whole number; give 0.5, 1, 2 or so")
        if self.address is not None and "://" in self.address:
            raise ConfigError(
                f"--address {without_secrets(self.address)}: must be HOST:PORT or auto; for Ray's client or its "
                "job server, run the command on a node of the cluster with --address auto"
            )


def ray() -> ModuleType:
    """Return Ray, which reports nothing to anybody.

    Raises:
        ConfigError: when it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray as module  # pyright: ignore[reportMissingImports] - not among what a developer installs
    except ImportError:
        raise ConfigError("--on ray: needs Ray, which is not installed; pip install 'dynlora[ray]'") from None
    return module


@contextmanager
def connected(request: ClusterRequest) -> Iterator[ModuleType]:
    """A `with` block in which Ray is connected.

    A cluster of this machine alone talks over its own loopback: nobody else can reach it.

    Raises:
        ConfigError: when there is no cluster, or one of this machine has too few processors.
    """
    request.check()
    if request.address is None or request.address.rpartition(":")[0].strip("[]") in HERE:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's switch for it, read when it is imported
    module = ray()
    options: dict[str, Any] = {
        "address": request.address or "local",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if request.address is None:
        options |= {"include_dashboard": False, "_node_ip_address": HERE[0]}
    with redirect_stdout(sys.stderr):  # Ray tells of lost nodes on the standard output, which is for the answer
        yield from _connected(module, request, options)


def _connected(module: ModuleType, request: ClusterRequest, options: Mapping[str, Any]) -> Iterator[ModuleType]:
    """Connect Ray, and let go of it after the block."""
    try:
        module.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = (str(error).strip().splitlines() or ["no answer"])[0][:200]
        raise ConfigError(
            f"--address {request.address or 'of this machine'}: no Ray cluster can be used there ({why}); start one "
            "with `ray start --head`, or leave --address out"
        ) from None
    try:
        yield module
    finally:
        module.shutdown()


class Driver:
    """Gives runs to a cluster and waits for them."""

    def __init__(self, module: ModuleType, request: ClusterRequest, runs_dir: Path, say: Say) -> None:
        """Look at what the cluster has.

        Args:
            module: Ray, connected.
            request: what each run is given.
            runs_dir: folder of the runs, absolute; all nodes see it.
            say: told a line for each run that ends.

        Raises:
            ConfigError: when a cluster of this machine can never give a run what was asked for.
        """
        self.ray, self.request, self.runs_dir, self.say = module, request, runs_dir, say
        self._check_nodes()
        options = {"num_cpus": request.cpus, "num_gpus": request.gpus, "max_retries": -1}
        self._task = module.remote(**options)(train_run)
        self._waiting: dict[Any, str] = {}
        self._again: dict[str, int] = {}
        self._failed: dict[str, int] = {}

    def train(self, ids: Sequence[str]) -> dict[str, str]:
        """Train runs to their end and return how each ended: its status, or why it could not be trained.

        A run that is stopped and put back into the queue meanwhile, on a page say, goes to the cluster again.
        """
        ended: dict[str, str] = {}
        for run_id in ids:
            self._submit(run_id)
        while self._waiting:
            ready, _ = self.ray.wait(list(self._waiting), num_returns=1, timeout=LOOK_S)
            for task in ready:
                run_id, status = self._ended(task)
                if status in ("queued", "interrupted", "running", "stopping") and self._may_again(run_id):
                    self._submit(run_id)
                    continue
                ended[run_id] = status
                self.say(f"{run_id}: {status} ({len(ended)} of {len(ids)})")
            for run_id in [run for run, status in ended.items() if status != "finished" and self._is_asked_for(run)]:
                del ended[run_id]
                self._submit(run_id)
        return ended

    def _submit(self, run_id: str) -> None:
        """Give a run to the cluster."""
        self._waiting[self._task.remote(str(self.runs_dir), run_id, self.request.cpus, self.request.gpus)] = run_id

    def _ended(self, task: Any) -> tuple[str, str]:
        """Return the run of a task that is over, and its status, or why the task failed."""
        run_id = self._waiting.pop(task)
        try:
            return run_id, str(self.ray.get(task))
        except self.ray.exceptions.RayError as error:
            self._failed[run_id] = self._failed.get(run_id, 0) + 1
            why = getattr(error, "cause", None) or error
            return run_id, (str(why).strip().splitlines() or [type(why).__name__])[0][:300]

    def _may_again(self, run_id: str) -> bool:
        """Count how often a run was given out again, and say whether it may be."""
        self._again[run_id] = self._again.get(run_id, 0) + 1
        return self._again[run_id] <= RESUMES

    def _is_asked_for(self, run_id: str) -> bool:
        """Say whether a run that had ended is to be given out again.

        A run whose task failed before it trained is queued still, though nobody put it there: it has one more try.
        """
        return self._failed.get(run_id, 0) <= RETRIES and self._is_queued(run_id)

    def _is_queued(self, run_id: str) -> bool:
        """Say whether a run that had ended was put back into the queue, and take it out of this machine's sight."""
        with suppress(DynloraError), locked(self.runs_dir / QUEUE_LOCK, LOCK_WAIT_S):
            if is_pending(run_folder(self.runs_dir, run_id)):
                unmark_active(self.runs_dir, run_id)
                return True
        return False

    def _check_nodes(self) -> None:
        """Say when no node can train a run; refuse it where no other can come."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        needs = {"CPU": float(self.request.cpus), "GPU": float(self.request.gpus)}
        if any(all(node.get(key, 0.0) >= least for key, least in needs.items()) for node in nodes):
            return
        most = ", ".join(f"{key} {max((node.get(key, 0.0) for node in nodes), default=0.0):g}" for key in needs)
        shortage = f"--cpus {self.request.cpus} --gpus {self.request.gpus:g}: no node has as much (at most {most})"
        if self.request.address is None:
            raise ConfigError(f"{shortage}; give less")
        self.say(f"{shortage}; the runs wait for one that has")
