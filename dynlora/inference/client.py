"""The other end of the inference child: starts it, asks it, and says in one sentence what became of it when it fails.

Free of torch. One child serves every viewer of a server: it holds the models, answers one question at a time, ends by
itself when nobody asks, and is started again by the next question.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import psutil

from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs.environment import child_environment, python_command
from dynlora.jobs.helper_job import Failure

BUSY_S = 60.0
"""Seconds a question waits for its turn."""

ANSWER_S = 180.0
"""Seconds an answer may take; loading a model is part of the first."""

MEMORY_SHARE = 0.8
"""Share of the memory free at its start that the child may use."""

MAX_QUESTION = 4_000_000
"""Most characters of a question."""

MAX_ANSWER_BYTES = 64_000_000
ENDING_S = 5.0  # for a child that stopped talking to end of its own reason
_SHORT_OF_MEMORY = ("memoryerror", "allocate memory", "out of memory", "can't start new thread")
"""What a process says that has no memory left; a thread's stack is memory too."""
_LAST_WORDS = 2000


def answer_command(idle_s: float | None = None, memory: int | None = None) -> list[str]:
    """Return the command of the child; nothing of a user's is in it."""
    idle = [] if idle_s is None else ["--idle", str(idle_s)]
    limit = [] if memory is None else ["--memory", str(memory)]
    return python_command("dynlora", "answer", *idle, *limit)


class InferenceChild:
    """A child that is there while it is needed.

    Attributes:
        idle_s: seconds after which it ends when nobody asks; None for its own default.
        memory: bytes it may use; None takes a share of what is free when it starts.
    """

    def __init__(self, idle_s: float | None = None, memory: int | None = None) -> None:
        """Start nothing yet."""
        self.idle_s, self.memory = idle_s, memory
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._said: list[str] = []
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def prepare(self) -> None:
        """Start the child where there is none and nobody is asking: the first answer need not wait for imports."""
        if self._turn.acquire(blocking=False):
            try:
                with suppress(DynloraError):  # whoever asks is told
                    self._ensure()
            finally:
                self._turn.release()

    def ask(self, ask: str, *, timeout_s: float = ANSWER_S, **arguments: Any) -> Any:
        """Return the answer to a question.

        Args:
            ask: what, one of `answering.OPERATIONS`.
            timeout_s: seconds to wait for the answer; the child is ended when it takes longer.
            arguments: JSON values.

        Raises:
            ConfigError: when the question cannot be answered as it is; the child's sentence.
            DynloraError: when it is busy, fails, dies or takes too long.
        """
        with self._having_turn():
            for attempt in (1, 2):
                fresh = self._ensure()
                reply = self._exchange(ask, arguments, timeout_s)
                if reply is not None:
                    return _answer_of(reply)
                if fresh or attempt == 2:
                    raise DynloraError(self._end())
                self._kill()  # it ended by itself before it read the question: ask a new one
        raise AssertionError("a second child is always fresh")

    def stop(self) -> None:
        """End the child, if there is one."""
        with self._having_turn():
            self._kill()

    @contextmanager
    def _having_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=BUSY_S):
            raise DynloraError(f"the model has been busy with other requests for {BUSY_S:.0f} s; try again")
        try:
            yield
        finally:
            self._turn.release()

    def _ensure(self) -> bool:
        """Start the child when there is none, and say whether it is new.

        Raises:
            DynloraError: when it cannot be started.
        """
        if self.pid is not None:
            return False
        self._kill()
        memory = self.memory or int(psutil.virtual_memory().available * MEMORY_SHARE)
        self._lines, self._said = queue.Queue(), []
        try:
            pipe = subprocess.PIPE
            command = answer_command(self.idle_s, memory)
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=child_environment())
        except OSError as error:
            raise DynloraError(f"the model's process cannot be started ({error.strerror}); try again") from None
        for target in (_listen, _overhear):
            threading.Thread(target=target, args=(self._process, self._lines, self._said), daemon=True).start()
        return True

    def _exchange(self, ask: str, arguments: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Send a question and return the reply; None when the child ended instead.

        Raises:
            DynloraError: when no reply comes in time; the child is ended.
        """
        process, self._number = self._process, self._number + 1
        if process is None or process.stdin is None:
            return None
        question = json.dumps({"number": self._number, "ask": ask, "arguments": arguments})
        if len(question) >= MAX_QUESTION:
            raise ConfigError(
                f"the request has {len(question):,} characters, too long for the model's process (at most "
                f"{MAX_QUESTION:,}); use fewer or shorter texts"
            )
        threading.Thread(
            target=_send, args=(process, question), daemon=True
        ).start()  # a child that hangs reads nothing
        try:
            while True:
                line = self._lines.get(timeout=timeout_s)
                if line is None:
                    return None
                reply = json.loads(line)
                if isinstance(reply, dict) and reply.get("number") == self._number:
                    return reply  # pyright: ignore[reportUnknownVariableType]
        except queue.Empty:
            self._kill()
            raise DynloraError(
                f"the model did not respond within {timeout_s:.0f} s and was ended; try again, or use fewer examples"
            ) from None
        except (OSError, ValueError):
            return None

    def _end(self) -> str:
        """Return the sentence for a child that ended while it was asked."""
        process = self._process
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(ENDING_S)  # its output ended: let it end by itself, so that the reason is its own
        self._kill()
        code = None if process is None else process.returncode
        last_line = next((line for line in reversed(self._said) if line.strip()), "no output")
        if code is not None and code < 0:
            return f"the model's process was ended by signal {-code}, possibly because of too little memory; try again"
        if any(word in line.lower() for line in self._said for word in _SHORT_OF_MEMORY):
            return "the model's process ran out of memory; stop other runs, or use a smaller model"
        return f"the model's process ended (exit {code}): {last_line.strip()[-300:]}"

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


@cache
def shared() -> InferenceChild:
    """Return the child that all viewers of this server share."""
    return InferenceChild()


def _answer_of(reply: dict[str, Any]) -> Any:
    """Return a reply's answer.

    Raises:
        DynloraError: of the class that it names.
    """
    if reply.get("ok"):
        return reply.get("answer")
    failure = Failure.model_validate(reply["error"])
    raise failure.model_copy(update={"message": failure.message[:_LAST_WORDS]}).exception()


def _send(process: subprocess.Popen[bytes], question: str) -> None:
    """Write a question; a child that is ended meanwhile takes none."""
    with suppress(OSError, ValueError):
        process.stdin.write(question.encode() + b"\n")  # pyright: ignore
        process.stdin.flush()  # pyright: ignore


def _listen(process: subprocess.Popen[bytes], lines: queue.Queue[bytes | None], _said: list[str]) -> None:
    """Hand the child's answers on, None at the end."""
    with suppress(OSError, ValueError):
        for line in iter(lambda: process.stdout.readline(MAX_ANSWER_BYTES), b""):  # pyright: ignore
            lines.put(line)
    lines.put(None)


def _overhear(process: subprocess.Popen[bytes], _lines: queue.Queue[bytes | None], lines: list[str]) -> None:
    """Keep the last of what the child says beside its answers."""
    with suppress(OSError, ValueError):
        for line in iter(lambda: process.stderr.readline(_LAST_WORDS), b""):  # pyright: ignore
            lines.append(line.decode("utf-8", "replace"))
            del lines[:-20]
