"""A process that has imported torch waits for one command and becomes it; runs trained in it stop, end and go on."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from click.testing import CliRunner

from dynlora.cli import serving
from dynlora.cli.main import main
from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs import helper_job, launch, quick_launch, warm
from dynlora.jobs import queue as run_queue
from dynlora.jobs.environment import WARM_VARIABLE, child_environment
from dynlora.store import lifecycle
from dynlora.training import inputs
from tests.command_line import document, run
from tests.tiny import tiny_arguments, tiny_values
from tests.waiting import PATIENCE_S, until


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[warm.Keeper]:
    """A keeper that keeps a spare, whatever memory is free, and waits for its word on a busy machine too."""
    monkeypatch.setenv(WARM_VARIABLE, "1")
    monkeypatch.setattr(warm, "ROOM", 0)
    monkeypatch.setattr(warm, "TAKES_S", PATIENCE_S)
    warm_keeper = warm.Keeper()
    monkeypatch.setattr(warm, "KEEPER", warm_keeper)
    yield warm_keeper
    monkeypatch.setenv(WARM_VARIABLE, "0")
    warm_keeper.drop()
    if warm_keeper._timer is not None:
        warm_keeper._timer.cancel()


def test_no_spare_is_kept_unless_it_is_wanted_and_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = warm.Keeper()
    monkeypatch.delenv(WARM_VARIABLE, raising=False)
    keeper.keep()
    assert keeper.pid is None
    monkeypatch.setenv(WARM_VARIABLE, "1")
    monkeypatch.setattr(warm, "ROOM", 2**60)
    keeper.keep()
    assert keeper.pid is None
    assert keeper.take() is None
    assert WARM_VARIABLE not in child_environment()


@pytest.mark.journey
def test_a_command_runs_in_the_spare_as_in_a_process_of_its_own(keeper: warm.Keeper, tmp_path: Path) -> None:
    keeper.keep()
    pid = keeper.pid
    assert pid is not None
    keeper.keep()
    assert keeper.pid == pid, "one is enough"
    child = warm.started([*warm.warm_command()[:-1], "models", "--json"])
    out, err = child.communicate(timeout=300)
    assert child.pid == pid
    assert child.returncode == 0, err
    assert json.loads(out) == json.loads(CliRunner().invoke(main, ["models", "--json"]).stdout)
    assert keeper.pid != pid, "each is used once"


@pytest.mark.journey
def test_a_refusal_of_the_spare_is_its_sentence_and_its_exit_code(keeper: warm.Keeper, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("train: {lr: -1}")
    keeper.keep()
    pid = keeper.pid or 0
    with warm.started([sys.executable, "-c", "print('hello')"]) as child:
        assert child.communicate(timeout=300)[0].split() == [b"hello"]
    assert keeper.pid == pid, "it is for commands of dynlora's"
    with pytest.raises(ConfigError, match=r"^train.lr=-1"):
        helper_job.run("check", launch.preflight_command(bad), 300, "not checked")
    assert lifecycle.start_time(pid) is None
    assert keeper.pid not in (None, pid), "the next one begins"


class Fake:
    """A spare without a process; it notes what it is told with its number."""

    is_alive = True
    process = SimpleNamespace(pid=1)
    messages: ClassVar[list[list[object]]] = []

    def __init__(self) -> None:
        self.told: list[object] = []
        Fake.messages.append(self.told)

    def expect(self, values: object) -> None:
        """Note what is likely to come."""
        self.told.append(values)

    def end(self) -> None:
        """Do nothing."""


@pytest.fixture
def faked(keeper: warm.Keeper, monkeypatch: pytest.MonkeyPatch) -> warm.Keeper:
    """A keeper of spares without processes."""
    monkeypatch.setattr(Fake, "messages", [])
    monkeypatch.setattr(warm, "Spare", Fake)
    return keeper


def test_a_page_that_is_drawn_again_starts_no_spare_beside_the_one_that_works(
    faked: warm.Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "RENEW_S", 600.0)
    faked.keep()
    assert faked.take() is not None
    faked.keep()
    faked.keep()
    assert (faked.pid, len(Fake.messages)) == (None, 1), "the command has only begun"
    faked.renew()
    assert (faked.pid, len(Fake.messages)) == (1, 2), "it has ended"
    monkeypatch.setattr(warm, "RENEW_S", 0.01)
    assert faked.take() is not None
    until(lambda: faked.pid == 1, "the next one begins by itself after a while")
    assert len(Fake.messages) == 3


def test_a_spare_is_told_what_is_likely_to_come(faked: warm.Keeper) -> None:
    faked.keep()
    assert Fake.messages == [[]]
    faked.keep({"seed": 1})
    faked.keep({"seed": 2})
    faked.take()
    faked.renew()
    assert Fake.messages == [[{"seed": 1}, {"seed": 2}], [{"seed": 2}]], "the next one is told what was said last"


def test_a_spare_is_told_each_thing_once_and_no_more_than_a_pipe_takes() -> None:
    spare = warm.Spare.__new__(warm.Spare)
    written = io.BytesIO()
    spare.process, spare._told = SimpleNamespace(stdin=written), []  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(3):
        spare.expect({"seed": 0})
    spare.expect({"data": {"path": "x" * warm.LONGEST_LINE}})
    assert written.getvalue() == b'{"likely": {"seed": 0}}\n'
    for seed in range(100):
        spare.expect({"seed": seed % 2 + 1, "data": {"path": "x" * (warm.LONGEST_LINE - 60)}})
    assert len(written.getvalue().splitlines()) == warm.TELLINGS
    assert len(written.getvalue()) < 65_536


def test_what_is_likely_is_worked_on_until_the_command_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, received = threading.Event(), list[object]()

    def make_tokens(values: object, *, is_wanted: Callable[[], bool]) -> None:
        received.append(values)
        begun.set()
        until(lambda: not is_wanted(), "the command comes")
        raise DynloraError("what fails here is told later")

    monkeypatch.setattr(serving, "_import_all", lambda: None)
    monkeypatch.setattr(inputs, "make_tokens", make_tokens)
    monkeypatch.setattr(serving, "NICE", 0)
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "r") as lines, os.fdopen(write_end, "w") as writer:
        monkeypatch.setattr(sys, "stdin", lines)
        worker = serving.Ahead()
        worker.start()
        writer.write('{"likely": {"seed": 1}}\n')
        writer.flush()
        threading.Thread(
            target=lambda: (begun.wait(60), writer.write('{"arguments": ["models"]}\n'), writer.flush())
        ).start()
        assert serving._order(worker) == {"arguments": ["models"]}
    worker.join(60)
    assert not worker.is_alive()
    assert received == [{"seed": 1}]
    assert worker.imported.is_set()


def test_a_spare_ends_with_whoever_keeps_it(tmp_path: Path) -> None:
    program = (
        "import os, time\n"
        "from dynlora.jobs import warm\n"
        "warm.ROOM = 0\n"
        "warm.KEEPER.keep()\n"
        "print(warm.KEEPER.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, WARM_VARIABLE: "1"}, stdout=subprocess.PIPE
    ) as keeper:
        assert keeper.stdout is not None
        try:
            pid = int(keeper.stdout.readline())
            until(
                lambda: lifecycle.is_ours(lifecycle.command_line(pid), ["warm"]),
                "the spare, which has just been forked",
            )
        finally:
            keeper.kill()
        until(lambda: lifecycle.start_time(pid) is None, "the spare ends when its input is closed")


def test_a_spare_that_died_is_replaced_by_a_process_of_its_own(keeper: warm.Keeper) -> None:
    keeper.keep()
    assert keeper.pid is not None
    os.kill(keeper.pid, signal.SIGKILL)
    child = warm.started([*warm.warm_command()[:-1], "datasets", "--json"])
    assert json.loads(child.communicate(timeout=300)[0])


@pytest.mark.journey
def test_a_run_in_a_former_spare_stops_dies_and_goes_on(
    keeper: warm.Keeper, tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    keeper.keep()
    pid = keeper.pid
    config = tiny_values(tiny_bert, tiny_data, train__steps=4000, log__eval_every=4000, log__checkpoint_every=5)
    handle = quick_launch.start(config, runs_dir, key="one")
    try:
        assert run_queue.read_launch(handle.folder).pid == pid
        until(lambda: handle.status().step >= 2, "it trains")
        status = handle.status()
        assert (status.pid, status.status) == (pid, "running")
        assert launch.is_alive(runs_dir, handle.id)
        assert os.getsid(pid or 0) == pid, "detached from the terminal"
        assert launch.stop(runs_dir, handle.id) in ("stopping", "stopped")
        until(lambda: handle.status().status == "stopped", "it stops")
        stopped_at = handle.status().step
        keeper.renew()
        second = keeper.pid
        assert launch.resume(runs_dir, handle.id) == "queued"
        until(lambda: handle.status().step > stopped_at + 10, "it goes on")
        assert handle.status().pid == second
        assert second is not None
        os.kill(second, signal.SIGKILL)
        until(lambda: handle.status().status == "interrupted", "its end is noticed")
        keeper.keep()
        launch.resume(runs_dir, handle.id)
        until(lambda: handle.status().status == "running", "it goes on again")
        assert launch.end_now(runs_dir, handle.id) == "interrupted"
    finally:
        run(runs_dir, "stop", handle.id, "--now")


@pytest.mark.journey
def test_training_in_a_spare_gives_the_same_numbers(
    keeper: warm.Keeper, tiny_bert: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path
) -> None:
    values = tiny_values(tiny_bert, tiny_data, train__steps=6)
    keeper.keep({"model": values["model"], "data": values["data"]})
    handle = quick_launch.start(values, runs_dir, key="one")
    until(lambda: handle.status().status == "finished", "it trains to the end")
    alone = document(run(tmp_path, "train", *tiny_arguments(tiny_bert, tiny_data, "train.steps=6"), "--json"))
    warm_one = document(run(runs_dir, "show", handle.id, "--json"))
    assert warm_one["metrics"] == alone["metrics"]
    assert warm_one["ranks"] == alone["ranks"]
