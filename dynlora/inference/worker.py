"""The inference child: keeps trained models in memory and answers questions about them, a line of JSON each.

It is the only place where the dashboard meets torch. Questions come on standard input, answers go to standard output;
it ends when its input does, and when nobody has asked anything for a while. An ablation takes long, so it continues
between the questions, a module at a time, and leaves what it found in a file that pages read. What a person waits for,
such as a text that is written, continues between the questions too, and is read as it grows.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any, TextIO, cast

from dynlora.errors import ConfigError, DynloraError
from dynlora.inference import compress, writing
from dynlora.inference.client import MAX_QUESTION
from dynlora.inference.session import EFFECT_ROWS, PLACES, ROWS, Examined
from dynlora.jobs.helper_job import Failure
from dynlora.kinds.run_kind import kind_of_run
from dynlora.store.measurements import Knockouts, keep_knockouts, kept_knockouts

MOST_STREAMS = 24
"""Streams that may be under way at once, of all viewers."""

MOST_KEPT = 96
"""Streams that are remembered, ended ones too."""

ABANDONED_S = 60.0
"""Seconds without a reader after which a stream ends; a page that is hidden reads rarely."""

SHORT = "the model needs more memory than is available; stop other runs, or use fewer examples"

Message = dict[str, Any]


@dataclass
class Stream:
    """Something that is done a little at a time and read; what is said of it has the form of a helper job.

    Attributes:
        steps: yields a message each time it is advanced.
        of: messages it will have at most, for a progress bar; None where that is not known.
        stays: it continues where nobody reads it, while no other stream is under way.
        status: running, done, failed or cancelled.
        error: why it failed, or None.
        is_broken: whether it failed in a way that may have left the model broken.
        messages: so far.
        read_at: when it was read last, seconds of a clock that only moves on.
    """

    steps: Iterator[Message]
    of: int | None = None
    stays: bool = False
    status: str = "running"
    error: Failure | None = None
    is_broken: bool = False
    messages: list[Message] = field(default_factory=list)
    read_at: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        """Whether there will be no more."""
        return self.status != "running"

    def state(self) -> dict[str, Any]:
        """Return how it stands."""
        error = None if self.error is None else self.error.model_dump()
        return {"status": self.status, "progress": {"done": len(self.messages), "of": self.of}, "error": error}

    def stop(self) -> None:
        """End it here; what it did is kept."""
        if not self.ended:
            self._end("cancelled")

    def advance(self) -> None:
        """Do one step."""
        try:
            self.messages.append(next(self.steps))
        except StopIteration:
            self._end("done")
        except (DynloraError, OSError, ValueError, MemoryError, RuntimeError) as error:
            self.is_broken = isinstance(error, MemoryError | RuntimeError)
            self.error = failure_of(error)
            self._end("failed")

    def _end(self, status: str) -> None:
        self.status = status
        with suppress(AttributeError):
            self.steps.close()  # pyright: ignore[reportAttributeAccessIssue]


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

    def begin(self, steps: Iterator[Message], of: int | None = None, *, stays: bool = False) -> str:
        """Take up a stream and return its name.

        Raises:
            ConfigError: when too many are under way.
        """
        if sum(not stream.ended for stream in self._streams.values()) >= MOST_STREAMS:
            raise ConfigError(f"the model writes {MOST_STREAMS} texts already, the most at once; try again")
        for name in [name for name, stream in self._streams.items() if stream.ended][: -(MOST_KEPT - MOST_STREAMS)]:
            del self._streams[name]
        name = secrets.token_hex(8)
        self._streams[name] = Stream(steps, of, stays, read_at=self.clock())
        return name

    def read(self, name: str, since: int = 0) -> dict[str, Any]:
        """Return the messages of a stream from a place on, and whether it continues.

        Raises:
            DynloraError: when there is none of that name.
        """
        stream = self._stream(name)
        stream.read_at = self.clock()
        return {**stream.state(), "messages": stream.messages[max(0, since) :]}

    def stop(self, name: str, since: int = 0) -> dict[str, Any]:
        """End a stream, and return it as `read` does; one that has ended stays as it is.

        Raises:
            DynloraError: when there is none of that name.
        """
        self._stream(name).stop()
        return self.read(name, since)

    def advance(self) -> bool:
        """Do one step of each stream that somebody waits for, without any of those that stay.

        Returns:
            Whether memory may be short, so that models are to be let go.
        """
        active = [stream for stream in self._streams.values() if not stream.ended]
        failed = False
        for stream in [stream for stream in active if not stream.stays] or active:
            if not stream.stays and self.clock() - stream.read_at > ABANDONED_S:
                stream.stop()
                continue
            stream.advance()
            failed |= stream.is_broken
        return failed

    def _stream(self, name: str) -> Stream:
        if name not in self._streams:
            raise DynloraError("the model's process was restarted, so this cannot continue; start it again")
        return self._streams[name]


MODELS = 2
"""Trained models that stay in memory."""

IDLE_S = 300.0
"""Seconds without a question after which the child ends."""


@dataclass
class Answering:
    """Answers questions one after the other and continues streams in between.

    Attributes:
        examined: models in memory, the last used at the end.
        streams: what is read while it continues.
        special: by kind of run, the model of the run that was asked last for an operation of its kind, and which it is.
    """

    examined: OrderedDict[tuple[str, str, int], Examined] = field(default_factory=OrderedDict)
    streams: Streams = field(default_factory=Streams)
    special: dict[str, tuple[tuple[object, ...], Any]] = field(
        default_factory=dict[str, "tuple[tuple[object, ...], Any]"]
    )

    def reply(self, line: str) -> dict[str, Any]:
        """Return the answer to one question: `ok` with `answer`, or `error`, of which class it is and its sentence."""
        number = None
        try:
            question = json.loads(line)
            number = question["number"]
            return {"number": number, "ok": True, "answer": self._answer(question["ask"], question["arguments"])}
        except DynloraError as error:
            failure = failure_of(error)
        except (MemoryError, RuntimeError) as error:
            self.forget()
            failure = failure_of(error)
        except (ValueError, KeyError, TypeError, OSError) as error:
            failure = Failure(kind="", message=f"the request failed: {type(error).__name__}: {error}")
        return {"number": number, "ok": False, "error": failure.model_dump()}

    def forget(self) -> None:
        """Let every model go, and its memory with it."""
        self.examined.clear()
        self.special.clear()

    def model(self, folder: str, which: str) -> Examined:
        """Return a run's model as it is now; where it has to be loaded, the one not used for longest makes room."""
        key = (folder, which, saved_at(Path(folder), which))
        if key not in self.examined:
            while len(self.examined) >= MODELS:
                self.examined.popitem(last=False)
            self.examined[key] = Examined(Path(folder), which)
        self.examined.move_to_end(key)
        return self.examined[key]

    def advance(self) -> None:
        """Do one step of the streams."""
        if self.streams.advance():
            self.forget()

    @property
    def busy(self) -> bool:
        """Whether a stream is under way."""
        return self.streams.busy

    def _answer(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Perform an operation; of one that takes long, return the name of the stream that was begun."""
        if operation in OPERATIONS:
            answer = OPERATIONS[operation](self, **arguments)
        elif operation in ON_MODEL:
            model = self.model(arguments.pop("folder"), arguments.pop("which"))
            answer = ON_MODEL[operation](model, **arguments)
        else:
            arguments.pop("which", None)  # such a run has one model
            answer = self._of_kind(operation, **arguments)
        return self.streams.begin(*answer) if isinstance(answer, tuple) else answer

    def _knockout(
        self,
        folder: str,
        which: str,
        file: str,
        sets: list[list[int]] | None = None,
        rows: int = ROWS,
        again: bool = False,
    ) -> Any:
        """Begin an ablation, which continues where nobody reads it: its measurements are kept in the file."""
        examined, place = self.model(folder, which), Path(file)
        steps = _kept(examined.knockouts(sets, rows, kept_knockouts(place), again=again), place)
        return self.streams.begin(steps, len(sets or examined.model.adapters), stays=True)

    def _compress(self, folder: str, which: str, file: str, rows: int) -> Any:
        return compress.kept_sizes(Path(folder), which, Path(file), rows)

    def _effects(self, folder: str, which: str, file: str, texts: list[list[str | None]]) -> Any:
        rows = [(str(first), second) for first, second in texts]
        return self.model(folder, which).measured_effects(rows, Path(file)), -(-len(rows) // EFFECT_ROWS)

    def _of_kind(self, operation: str, folder: str, **arguments: Any) -> Any:
        """Perform an operation that the kind of a run declares; its model is kept until it is saved again.

        Raises:
            KeyError: when the kind has no such operation.
        """
        kind, path = kind_of_run(Path(folder)), Path(folder)
        perform = kind.operations[operation]
        key = (folder, *kind.model_version(path))
        if kind.name not in self.special or self.special[kind.name][0] != key:
            self.special.pop(kind.name, None)
            self.special[kind.name] = (key, kind.load(path))
        answer = perform(self.special[kind.name][1], **arguments)
        return (answer, None) if isinstance(answer, Iterator) else answer

    def _read(self, stream: str, since: int = 0) -> Any:
        return self.streams.read(stream, since)

    def _end(self, stream: str, since: int = 0) -> Any:
        return self.streams.stop(stream, since)


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "knockout": Answering._knockout,
    "compress": Answering._compress,
    "effects": Answering._effects,
    "read": Answering._read,
    "end": Answering._end,
}
ON_MODEL: Mapping[str, Callable[..., Any]] = {
    "answers": Examined.answers,
    "explain": Examined.explained,
    "shift": Examined.shifted,
    "elsewhere": Examined.elsewhere,
    "neighbours": Examined.neighbours,
    "by_group": Examined.by_group,
    "writer": writing.about,
    "write": writing.written,
    "token_view": writing.token_view,
    "estimate_text": writing.estimate,
    "ablate_text": writing.ablation,
    "token_losses": writing.token_losses,
    "example_losses": writing.example_losses,
}
"""What can be asked of any run, and of its model, by name; the arguments of a question are those of its function.

A function that returns steps and their number, None where it is not known, is read as a stream.
"""


def _kept(steps: Iterator[Knockouts], file: Path) -> Iterator[Message]:
    """Keep what an ablation measures, and yield after each set of modules; the first step switches none off."""
    for place, knockouts in enumerate(steps):
        keep_knockouts(file, knockouts)
        if place:
            yield {"measured": place}


def saved_at(folder: Path, which: str) -> int:
    """Return when a run's adapter was last written, ns since the epoch; 0 for one that is not there."""
    newest = 0
    for place in PLACES.get(which, ()):
        with suppress(OSError):
            newest = max(newest, (folder / place / "state.json").stat().st_mtime_ns)
    return newest


def serve(source: TextIO, out: TextIO, *, idle_s: float = IDLE_S) -> None:
    """Answer the questions of `source`, one a line, until it ends or is silent for `idle_s` seconds.

    Questions are read by a thread of their own, so that ablations and streams continue while none waits.
    """
    lines: Queue[str | None] = Queue()
    threading.Thread(target=_hand_on, args=(source, lines), daemon=True).start()
    answering = Answering()
    while True:
        try:
            line = lines.get_nowait() if answering.busy else lines.get(timeout=idle_s)
        except Empty:
            if not answering.busy:
                return
            answering.advance()
            continue
        if line is None:
            return
        if line.strip():
            out.write(json.dumps(answering.reply(line)) + "\n")
            out.flush()


def limit_memory(n_bytes: int | None) -> None:
    """Let this process have no more memory than so many bytes of data, where the system knows such a limit."""
    if n_bytes is None:
        return
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))


def _hand_on(source: TextIO, lines: Queue[str | None]) -> None:
    """Hand every line on, at last None."""
    for line in iter(lambda: source.readline(MAX_QUESTION), ""):
        lines.put(line)
    lines.put(None)


def main(idle_s: float, memory: int | None) -> None:
    """Serve standard input; what libraries print goes to standard error."""
    limit_memory(memory)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(cast(TextIO, sys.stdin), out, idle_s=idle_s)
