"""What the inference child does a little at a time: texts it writes, ablations; each is read while it continues.

A stream advances one step whenever no question waits, and keeps a small JSON message for each. Whoever began it reads
the messages from a place on; one that nobody reads any more ends by itself, as its page was left.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs.helper_job import Failure

MOST_STREAMS = 24
"""Streams that may be under way at once, of all viewers."""

MOST_KEPT = 96
"""Streams that are remembered, ended ones too."""

ABANDONED_S = 60.0
"""Seconds without a reader after which a stream ends; a page that is hidden reads rarely."""

SHORT = "the model needs more memory than is available; stop other runs, or use fewer examples"

Message = dict[str, Any]


@dataclass
class Work:
    """Something that is done a little at a time; what is said of it has the form of a helper job.

    Attributes:
        steps: yields something each time it is advanced.
        of: steps it will have at most, for a progress bar; None where that is not known.
        done: steps so far.
        status: running, done, failed or cancelled.
        error: why it failed, or None.
        is_broken: whether it failed in a way that may have left the model broken.
    """

    steps: Iterator[Any]
    of: int | None = None
    done: int = 0
    status: str = "running"
    error: Failure | None = None
    is_broken: bool = False

    @property
    def ended(self) -> bool:
        """Whether there will be no more."""
        return self.status != "running"

    def state(self) -> dict[str, Any]:
        """Return how it stands."""
        error = None if self.error is None else self.error.model_dump()
        return {"status": self.status, "progress": {"done": max(0, self.done), "of": self.of}, "error": error}

    def stop(self) -> None:
        """End it here; what it did is kept."""
        if not self.ended:
            self._end("cancelled")

    def advance(self) -> Any:
        """Do one step and return what it yields; None where it has ended."""
        message = None
        try:
            message = next(self.steps, None)
        except (DynloraError, OSError, ValueError, MemoryError, RuntimeError) as error:
            self.is_broken = isinstance(error, MemoryError | RuntimeError)
            self.error = failure_of(error)
            self._end("failed")
        else:
            if message is None:
                self._end("done")
            else:
                self.done += 1
        return message

    def _end(self, status: str) -> None:
        self.status = status
        with suppress(AttributeError):
            self.steps.close()  # pyright: ignore[reportAttributeAccessIssue]


@dataclass
class Stream(Work):
    """Work whose messages are read.

    Attributes:
        messages: so far.
        read_at: when it was read last, seconds of a clock that only moves on.
    """

    messages: list[Message] = field(default_factory=list)
    read_at: float = field(default_factory=time.monotonic)


@dataclass
class Ablation(Work):
    """An ablation under way: each step measures the next set of modules, the first one with nothing off.

    Attributes:
        sets: modules that are switched off together, by position; None is every module alone.
        rows: held-out rows that are looked at.
    """

    done: int = -1
    sets: list[list[int]] | None = None
    rows: int = 0


def failure_of(error: BaseException) -> Failure:
    """Return why something failed, for a person: what to do where memory is short, and that it was the model else."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return Failure(kind="", message=SHORT)
    if isinstance(error, RuntimeError):
        return Failure(kind="", message=f"the model failed: {error}")
    return Failure.of(error)


@dataclass
class Streams:
    """All of them, by a name that nobody can guess.

    Attributes:
        clock: seconds; another one in tests.
    """

    clock: Callable[[], float] = time.monotonic
    _streams: dict[str, Stream] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return any(not stream.ended for stream in self._streams.values())

    def begin(self, steps: Iterator[Message], of: int | None = None) -> str:
        """Take up a stream and return its name.

        Raises:
            ConfigError: when too many are under way.
        """
        if sum(not stream.ended for stream in self._streams.values()) >= MOST_STREAMS:
            raise ConfigError(f"the model writes {MOST_STREAMS} texts already, the most at once; try again")
        for name in [name for name, stream in self._streams.items() if stream.ended][: -(MOST_KEPT - MOST_STREAMS)]:
            del self._streams[name]
        name = secrets.token_hex(8)
        self._streams[name] = Stream(steps, of, read_at=self.clock())
        return name

    def read(self, name: str, since: int = 0) -> dict[str, Any]:
        """Return the messages of a stream from a place on, and whether it continues.

        Raises:
            DynloraError: when there is none of that name.
        """
        stream = self._stream(name)
        stream.read_at = self.clock()
        return {**stream.state(), "messages": stream.messages[max(0, since) :]}

    def stop(self, name: str) -> dict[str, Any]:
        """End a stream, and return it whole, as `read` does; one that has ended stays as it is.

        Raises:
            DynloraError: when there is none of that name.
        """
        self._stream(name).stop()
        return self.read(name)

    def advance(self) -> bool:
        """Do one step of each stream under way; say whether memory may be short, so that models are to be let go."""
        failed = False
        for stream in self._streams.values():
            if stream.ended:
                continue
            if self.clock() - stream.read_at > ABANDONED_S:
                stream.stop()
                continue
            message = stream.advance()
            if message is not None:
                stream.messages.append(message)
            failed |= stream.is_broken
        return failed

    def _stream(self, name: str) -> Stream:
        if name not in self._streams:
            raise DynloraError("the model's process was restarted, so this answer cannot continue; generate it again")
        return self._streams[name]
