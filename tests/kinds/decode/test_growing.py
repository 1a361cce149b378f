"""A decode that is looked at again and again: only what is new is read, and what a resume deleted is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dynlora.kinds.decode.kind import DecodeKind
from dynlora.kinds.decode.result import follow_decode, read_decode
from dynlora.store.reader import RunReader
from dynlora.store.rows import Event
from dynlora.store.writer import RunWriter
from tests.kinds.decode.written import solution, written_decode


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each look has read."""
    counts: list[int] = []
    events = RunReader.events

    def counted(self: RunReader, after_seq: int = 0, kinds: Sequence[str] | None = None) -> list[Event]:
        read = events(self, after_seq, kinds)
        counts.append(len(read))
        return read

    monkeypatch.setattr(RunReader, "events", counted)
    return counts


@contextmanager
def continued(folder: Path, step: int) -> Iterator[RunWriter]:
    """Continue a decode at a step, as a resume does."""
    with RunWriter.open(folder, resume_from=step) as writer:
        writer.commit()
        yield writer


def solve(writer: RunWriter, step: int, key: str, problem: int, **more: Any) -> None:
    """Record a solution."""
    writer.event(step, "problem", [], {**solution(key, problem), **more})
    writer.progress(step)
    writer.commit()


def test_a_second_look_reads_only_what_is_new(rows: list[int], tmp_path: Path) -> None:
    folder = written_decode(tmp_path, state=None)
    with continued(folder, 18) as writer:
        first = DecodeKind().follow(folder)
        solve(writer, 19, "target", 2)
        second = DecodeKind().follow(folder)
        third = DecodeKind().follow(folder)
        assert rows == [18, 1, 0]
        assert (len(first.solutions), len(second.solutions)) == (18, 19)
        assert third == second == read_decode(folder)


def test_what_a_resume_deleted_is_gone_and_a_later_solution_of_a_problem_counts(
    rows: list[int], tmp_path: Path
) -> None:
    folder = written_decode(tmp_path, state=None)
    assert len(follow_decode(folder).solutions) == 20
    with continued(folder, 10) as writer:
        assert len(follow_decode(folder).solutions) == 10
        solve(writer, 11, "threshold=0.5", 0, answer="later")
        again = follow_decode(folder)
        assert rows == [20, 10, 1]
        assert again.solved["threshold=0.5"][0].answer == "later"
        assert again == read_decode(folder)


def test_a_decode_that_began_anew_is_read_anew(tmp_path: Path) -> None:
    folder = written_decode(tmp_path, state=None)
    follow_decode(folder)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.commit()
        assert follow_decode(folder).solutions == ()


def test_solutions_are_in_the_order_of_the_problems(tmp_path: Path) -> None:
    folder = written_decode(tmp_path, state=None)
    with RunWriter.open(folder, resume_from=None) as writer:
        for step, problem in enumerate((2, 0, 1), 1):
            solve(writer, step, "draft", problem)
        decode = follow_decode(folder)
    assert [one.problem for one in decode.solved["draft"]] == [0, 1, 2]
    assert list(decode.solved) == ["draft"]
