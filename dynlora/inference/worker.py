"""The inference child: keeps trained models in memory and answers questions about them, a line of JSON each.

It is the only place where the dashboard meets torch. Questions come on standard input, answers go to standard output;
it ends when its input does, and when nobody has asked anything for a while. An ablation takes long, so it continues
between the questions, a module at a time, and leaves what it found in a file that pages read. What a person waits for,
such as a text that is written, continues between the questions too, and is read as it grows (`streams.py`).
"""

from __future__ import annotations

import json
import os
import sys
import threading
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
from dynlora.inference.load import PLACES
from dynlora.inference.session import ROWS, Examined
from dynlora.inference.streams import Ablation, Streams, failure_of
from dynlora.jobs.helper_job import Failure
from dynlora.kinds.run_kind import kind_of_run
from dynlora.store.measurements import Knockouts, keep_knockouts, kept_knockouts

MODELS = 2
"""Trained models that stay in memory."""

IDLE_S = 300.0
"""Seconds without a question after which the child ends."""


@dataclass
class Answering:
    """Answers questions one after the other and continues ablations in between.

    Attributes:
        examined: models in memory, the last used at the end.
        jobs: ablations by run folder and adapter, ended ones too.
        streams: what is read while it continues.
        special: by kind of run, the model of the run that was asked last for an operation of its kind, and which it is.
    """

    examined: OrderedDict[tuple[str, str, int], Examined] = field(default_factory=OrderedDict)
    jobs: dict[tuple[str, str], Ablation] = field(default_factory=dict)
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
        """Do one step of each stream, which somebody waits for; without any, measure the next of each ablation."""
        if self.streams.busy:
            if self.streams.advance():
                self.forget()
            return
        for job in self.jobs.values():
            if job.ended:
                continue
            job.advance()

    @property
    def busy(self) -> bool:
        """Whether an ablation or a stream is under way."""
        return self.streams.busy or any(not job.ended for job in self.jobs.values())

    def _answer(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Perform an operation; of one that takes long, return the name of the stream that was begun."""
        if operation in OPERATIONS:
            answer = OPERATIONS[operation](self, **arguments)
        elif operation in ON_MODEL:
            model = self.model(arguments.pop("folder"), arguments.pop("which"))
            answer = ON_MODEL[operation](model, **arguments)
        else:
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
        """Start an ablation, or say how far it has come where the same is under way already.

        Raises:
            ConfigError: when another one of the run is.
        """
        job = self.jobs.get((folder, which))
        if job is not None and not job.ended and (job.sets, job.rows) != (sets, rows):
            raise ConfigError("another ablation of this run is in progress; wait until it ends, or stop it")
        if job is None or job.ended:
            examined = self.model(folder, which)
            place = Path(file)
            steps = _kept(examined.knockouts(sets, rows, kept_knockouts(place), again=again), place)
            of = len(examined.model.adapters) if sets is None else len(sets)
            self.jobs[folder, which] = Ablation(steps, of, sets=sets, rows=rows)
        return self._progress(folder, which)

    def _progress(self, folder: str, which: str) -> Any:
        job = self.jobs.get((folder, which))
        return None if job is None else job.state()

    def _stop(self, folder: str, which: str) -> Any:
        return self.jobs.pop((folder, which), None) is not None

    def _compress(self, folder: str, which: str, file: str, rows: int) -> Any:
        return compress.kept_sizes(Path(folder), which, Path(file), rows)

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

    def _end(self, stream: str) -> Any:
        return self.streams.stop(stream)


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "knockout": Answering._knockout,
    "progress": Answering._progress,
    "stop": Answering._stop,
    "compress": Answering._compress,
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


def _kept(steps: Iterator[Knockouts], file: Path) -> Iterator[Knockouts]:
    """Yield what is measured, once it is in its file."""
    for knockouts in steps:
        keep_knockouts(file, knockouts)
        yield knockouts


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
