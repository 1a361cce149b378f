"""Real runs in processes forked from one that has imported everything, so that hundreds can be killed in minutes.

A child says where it is in a byte of shared memory: starting, in a step, reallocating, writing a checkpoint,
evaluating, in a transaction of the store. The parent kills it there, not at a time that may fall anywhere.
"""

from __future__ import annotations

import functools
import importlib
import json
import mmap
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from tqdm import tqdm

# tqdm's own lock is shared by all that are forked: one that is killed while it holds it would stop the others for ever.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0

PAUSE_S = 0.0002
"""Seconds between two looks at where a child is, as long as it is far from where it is to be met."""


class Place(IntEnum):
    """Where a run is."""

    STARTING = 0
    STEP = 1
    REALLOCATION = 2
    CHECKPOINT = 3
    EVALUATION = 4
    TRANSACTION = 5
    ENDING = 6


@dataclass
class Board:
    """Shared memory in which a child says where it is, and how often it has been there.

    Attributes:
        memory: place in byte 0, a count (0 to 255) for each place after it.
    """

    memory: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 64))

    def enter(self, place: Place) -> None:
        """Say that a place is entered."""
        self.memory[1 + place] = min(255, self.memory[1 + place] + 1)
        self.memory[0] = place

    def back(self, place: int) -> None:
        """Say that the run is where it was before."""
        self.memory[0] = place

    @property
    def place(self) -> Place:
        """Where the run is."""
        return Place(self.memory[0])

    def visits(self, place: Place) -> int:
        """How often the run has been at a place."""
        return self.memory[1 + place]


class Child:
    """A command of dynlora's in a forked process.

    Attributes:
        pid: of the process.
        board: where it says where it is.
        code: exit code, negative for a signal; None while it goes on.
    """

    def __init__(self, arguments: Sequence[str], log: Path, watch: Callable[[Board], None] | None = None) -> None:
        """Fork and run; what the command prints goes to `log`, and `watch` prepares the child, see `_watch`."""
        self.board = Board()
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be(arguments, log, self.board, watch=watch or _watch)

    def poll(self) -> int | None:
        """Return the exit code, None while it goes on."""
        if self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = None if done == 0 else os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, timeout_s: float = 600) -> int | None:
        """Return the exit code once there is one, None when there is none in time."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.code

    def strike(self, place: Place, visit: int, delay_s: float, number: int = signal.SIGKILL) -> Place | None:
        """Send a signal on a visit to a place, a little after it was entered; return where the run was then.

        None when the run ended before: it was never there so often.
        """
        board = self.board
        while board.visits(place) < visit or (place is not Place.STARTING and board.place != place):
            if self.poll() is not None:
                return None
            if board.visits(place) < visit - 1:
                time.sleep(PAUSE_S)
        _spin(delay_s)
        where = board.place
        if self.poll() is not None:
            return None
        os.kill(self.pid, number)
        return where

    def stop(self) -> None:
        """Let it stand still, as Ctrl-Z does."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> int | None:
        """Make an end of it, whatever its state, and return the exit code."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def import_all_of(arguments: Sequence[str], log: Path) -> None:
    """Import what a command imports on its way, so that no child has to: most of the time of a short run.

    The command itself runs in a child: what it does besides, a backward pass say, may not have happened before a fork.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be(arguments, log, Board(), pipe=writing, watch=_watch)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as names:
        modules = json.load(names)
    os.waitpid(pid, 0)
    for name in modules:
        if name not in sys.modules:
            with suppress(Exception):  # some are no modules but only look like one
                importlib.import_module(name)


def _be(
    arguments: Sequence[str],
    log: Path,
    board: Board,
    pipe: int | None = None,
    watch: Callable[[Board], None] | None = None,
) -> None:
    """Be the child: run the command and never return; the names of what it imported go to the descriptor `pipe`."""
    code = 70
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        if watch is not None:
            watch(board)
        code = _run(arguments)
        if pipe is not None:
            os.write(pipe, json.dumps([*sys.modules]).encode())
    except BaseException:  # whatever it is: the child must not return into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    from dynlora.cli.main import main

    try:
        main([*arguments], standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _watch(board: Board) -> None:
    """Let every place that matters say when it is entered."""
    from dynlora.engine import edits
    from dynlora.engine.evaluation import evaluate
    from dynlora.engine.loop import trainer
    from dynlora.store.writer import Recording, RunWriter
    from dynlora.training import checkpoints

    for owner, name, place in (
        (trainer.Trainer, "take_step", Place.STEP),
        (edits, "apply", Place.REALLOCATION),
        (checkpoints, "write_checkpoint", Place.CHECKPOINT),
        (trainer.Trainer, "predictions", Place.EVALUATION),
        (evaluate.Evaluation, "record", Place.EVALUATION),
        (Recording, "_commit", Place.TRANSACTION),
        (RunWriter, "finish", Place.ENDING),
    ):
        setattr(owner, name, _telling(getattr(owner, name), place, board))


def _telling(function: Callable[..., Any], place: Place, board: Board) -> Callable[..., Any]:
    @functools.wraps(function)
    def telling(*arguments: Any, **keywords: Any) -> Any:
        before = board.memory[0]
        board.enter(place)
        try:
            return function(*arguments, **keywords)
        finally:
            board.back(before)

    return telling


def _spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
