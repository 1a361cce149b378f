"""Work on a run folder leaves it finished, stopped or failed, and continues where it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dynlora.errors import ConfigError
from dynlora.jobs.queue import read_status
from dynlora.store.reader import RunReader
from dynlora.store.summary import COPIED_NAME, Copied
from dynlora.store.writer import RunWriter
from dynlora.training import folder_work
from dynlora.training.folder_work import check_can_work, work_on
from dynlora.training.progress_stream import StopRequest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return RunWriter.create(tmp_path, config_yaml="", meta={"kind": "decode"}, max_steps=4)


def count_to(last: int) -> folder_work.Work:
    """Work that records one event per step and looks at the stop after each."""

    def work(writer: RunWriter, stop: StopRequest) -> bool:
        done = len(steps_of(writer.folder))
        for step in range(done + 1, last + 1):
            writer.event(step, "problem", [], {"step": step})
            writer.progress(step)
            writer.commit()
            if stop():
                return step == last
        return True

    return work


def steps_of(folder: Path) -> list[int]:
    with RunReader(folder) as reader:
        return [event.step for event in reader.events(kinds=["problem"])]


def test_what_is_done_is_finished(folder: Path) -> None:
    assert work_on(folder, None, count_to(4)).state == "finished"
    assert (read_status(folder).status, steps_of(folder)) == ("finished", [1, 2, 3, 4])
    with pytest.raises(ConfigError, match="the run is finished"):
        check_can_work(folder, force=False)


def test_a_stop_leaves_a_run_that_continues(folder: Path) -> None:
    def interrupted(writer: RunWriter, stop: StopRequest) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return count_to(4)(writer, stop)

    outcome = work_on(folder, None, interrupted)
    assert (outcome.state, outcome.signal, steps_of(folder)) == ("stopped", signal.SIGINT, [1])
    check_can_work(folder, force=False)
    assert work_on(folder, 1, count_to(4)).state == "finished"
    assert steps_of(folder) == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["decode", "recycle"])
def test_a_fetched_run_without_a_checkpoint_is_refused_where_its_kind_needs_one(kind: str, tmp_path: Path) -> None:
    folder = RunWriter.create(tmp_path, config_yaml="", meta={"kind": kind}, max_steps=4)
    Copied(url="ssh://host/runs", revision="1", fingerprint="2").write(folder / COPIED_NAME)
    check_can_work(folder, force=False)  # it was never opened: it starts
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.finish("stopped")
    if kind == "decode":
        check_can_work(folder, force=False)
        return
    with pytest.raises(ConfigError, match="without a checkpoint"):
        check_can_work(folder, force=False)


@pytest.mark.parametrize(
    ("error", "message"),
    [(ConfigError("threshold x: is no number"), "threshold x: is no number"), (KeyError("x"), "KeyError: 'x'")],
)
def test_an_error_is_a_failed_run_with_its_sentence(folder: Path, error: Exception, message: str) -> None:
    def failing(writer: RunWriter, stop: StopRequest) -> bool:
        raise error

    outcome = work_on(folder, None, failing)
    assert (outcome.state, outcome.error, read_status(folder).error) == ("failed", message, message)
