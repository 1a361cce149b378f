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

MOST_STREAMS = 24
"""Streams that may be under way at once, of all viewers."""

MOST_KEPT = 96
"""Streams that are remembered, ended ones too."""

ABANDONED_S = 60.0
"""Seconds without a reader after which a stream ends; a page that is hidden reads rarely."""

Message = dict[str, Any]


@dataclass
class Stream:
    """One of them.

    Attributes:
        steps: yields the next message each time it is advanced.
        of: messages it will have at most, for a progress bar; None where that is not known.
        messages: so far.
        ended: whether there will be no more.
        stopped: whether somebody stopped it, or nobody read it.
        error: why it ended early, a sentence, or None.
        read_at: when it was read last, seconds of a clock that only moves on.
    """

    steps: Iterator[Message]
    of: int | None = None
    messages: list[Message] = field(default_factory=list)
    ended: bool = False
    stopped: bool = False
    error: str | None = None
    read_at: float = field(default_factory=time.monotonic)

    def stop(self) -> None:
        """End it here; what it wrote is kept."""
        if not self.ended:
            self.ended = self.stopped = True
            close = getattr(self.steps, "close", None)
            if close is not None:
                close()


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
        stream = self._found(name)
        stream.read_at = self.clock()
        return {
            "messages": stream.messages[max(0, since) :],
            "of": stream.of,
            "ended": stream.ended,
            "stopped": stream.stopped,
            "error": stream.error,
        }

    def stop(self, name: str) -> dict[str, Any]:
        """End a stream, and return it whole, as `read` does; one that has ended stays as it is.

        Raises:
            DynloraError: when there is none of that name.
        """
        self._found(name).stop()
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
            failed |= _step(stream)
        return failed

    def _found(self, name: str) -> Stream:
        if name not in self._streams:
            raise DynloraError("the model's process was restarted, so this answer cannot continue; generate it again")
        return self._streams[name]


def _step(stream: Stream) -> bool:
    """Do one step of a stream; say whether it failed in a way that may have left the model broken."""
    try:
        message = next(stream.steps, None)
    except (DynloraError, OSError, ValueError) as error:
        stream.ended, stream.error = True, str(error) or type(error).__name__
    except (MemoryError, RuntimeError) as error:
        is_short = isinstance(error, MemoryError) or "memory" in str(error)
        short = "the model needs more memory than is available; stop other runs, or generate fewer tokens"
        stream.ended, stream.error = True, short if is_short else f"the model failed: {error}"
        return True
    else:
        if message is None:
            stream.ended = True
        else:
            stream.messages.append(message)
    if stream.ended:
        with suppress(AttributeError):
            stream.steps.close()  # pyright: ignore[reportAttributeAccessIssue]
    return False
