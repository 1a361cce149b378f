"""The queue's order: moves are kept, nothing is lost or doubled, and the next start follows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.errors import ConfigError, RunNotFoundError, StorageError
from dynlora.jobs import launch, queue
from dynlora.store import lifecycle, record
from tests.command_line import document, run
from tests.store.builder import finished_run, new_run

MOVES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(list(queue.MOVES))), max_size=8)


def waiting(root: Path, *names: str) -> list[str]:
    return [new_run(root, name, "queued").name for name in names]


@given(moves=MOVES)
def test_a_move_loses_and_doubles_no_run_and_keeps_the_order_of_the_others(moves: list[tuple[int, str]]) -> None:
    line = list("abcde")
    for place, where in moves:
        before, chosen = list(line), line[place]
        line = queue.with_moved(line, chosen, where)
        assert sorted(line) == sorted(before)
        assert [run for run in line if run != chosen] == [run for run in before if run != chosen]
        assert abs(line.index(chosen) - place) <= (1 if where in ("up", "down") else 4)


def test_the_run_that_was_moved_up_starts_next_and_new_runs_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(tmp_path, "one", "two", "three")
    assert queue.in_line(tmp_path) == ["one", "two", "three"]
    assert queue.move(tmp_path, "three", "first") == (1, 3)
    waiting(tmp_path, "four")
    assert queue.in_line(tmp_path) == ["three", "one", "two", "four"]
    assert queue.move(tmp_path, "four", "up") == (3, 4)
    assert queue.move(tmp_path, "four", "down") == queue.move(tmp_path, "four", "last") == (4, 4)
    monkeypatch.setattr(queue, "spawn_detached", lambda command, log: lifecycle.this_process().pid)
    monkeypatch.setattr(queue.warm, "is_ours", lambda command: False)
    assert queue.start_next(tmp_path) == "three"
    assert queue.in_line(tmp_path) == ["one", "two", "four"]
    with pytest.raises(ConfigError, match="run three: does not wait in the queue"):
        queue.move(tmp_path, "three", "last")


@pytest.mark.parametrize("text", ["", "[]", '{"order": 3}', '{"order": [1, {}, "two", "two", "gone"]}', "\0"])
def test_an_order_that_somebody_else_wrote_never_breaks_the_queue(tmp_path: Path, text: str) -> None:
    waiting(tmp_path, "one", "two")
    (tmp_path / queue.ORDER_NAME).write_text(text)
    assert sorted(queue.in_line(tmp_path)) == ["one", "two"]
    assert queue.move(tmp_path, "two", "first") == (1, 2)
    assert queue.in_line(tmp_path) == ["two", "one"]


def test_a_run_that_cannot_move_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path, 3, "over")
    waiting(tmp_path, "one")
    with pytest.raises(ConfigError, match="move a queued run that has not started"):
        queue.move(tmp_path, "over", "first")
    with pytest.raises(RunNotFoundError):
        queue.move(tmp_path, "none", "first")
    with pytest.raises(ConfigError, match="move=away: must be one of first, up, down, last"):
        queue.move(tmp_path, "one", "away")
    monkeypatch.setattr(record, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StorageError, match="the order of the queue cannot be written"):
        queue.move(tmp_path, "one", "first")


def test_the_command_lists_and_moves(tmp_path: Path) -> None:
    assert "no run waits in the queue" in run(tmp_path, "queue").stdout
    waiting(tmp_path, "one", "two")
    assert document(run(tmp_path, "queue", "two", "--move", "first", "--json")) == {
        "id": "two",
        "position": 1,
        "waiting": 2,
    }
    assert [row["id"] for row in document(run(tmp_path, "queue", "--json"))] == ["two", "one"]
    assert "two is at position 2 of 2" in run(tmp_path, "queue", "two", "--move", "down").stdout
    for wrong in (["two"], ["--move", "up"]):
        refused = run(tmp_path, "queue", *wrong)
        assert refused.exit_code == 2
        assert "a move takes a run and a place" in refused.stderr


@pytest.mark.parametrize("act", [launch.stop, launch.resume, lambda root, run_id: queue.move(root, run_id, "first")])
def test_what_is_refused_leaves_nothing_in_the_folder(act: Callable[[Path, str], object], tmp_path: Path) -> None:
    """A refused stop left `.queue.lock` among the sample runs of a checkout."""
    run_id = finished_run(tmp_path, 1).name
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ConfigError):
        act(tmp_path, run_id)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
