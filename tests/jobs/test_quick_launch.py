"""A run is in the queue before torch is loaded; what only the whole check finds is a failed run with that sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynlora.analysis import run_summary
from dynlora.cli import serving
from dynlora.cli.serving import refusal
from dynlora.config import parse_config
from dynlora.config_files import read_run_config
from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs import launch, quick_launch
from dynlora.jobs import queue as run_queue
from dynlora.safe_files import write_text
from dynlora.store import queries, record
from dynlora.training.run import plan
from tests.command_line import document, run
from tests.summaries import summary_with
from tests.tiny import tiny_values


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A queue that starts nothing; the commands of checks that would be started. A check here keeps the priority."""
    commands: list[list[str]] = []
    monkeypatch.setattr(serving, "NICE", 0)
    monkeypatch.setattr(quick_launch, "wake", lambda _: None)
    monkeypatch.setattr(quick_launch, "spawn_detached", lambda command, log: commands.append(command) or 0)
    return commands


def values(model: Path, data: Path, **overrides: Any) -> dict[str, Any]:
    return tiny_values(model, data, train__steps=4, **overrides)


def no_enqueue(*_: object, **__: object) -> None:
    pytest.fail("the whole check was waited for")


def test_a_launch_that_is_killed_before_it_notes_its_run_finds_it_again(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def note(path: Path, text: str) -> None:
        if path.suffix == ".json":
            raise Killed
        write_text(path, text)

    config = values(tiny_bert, tiny_data)
    monkeypatch.setattr(record, "write_text", note)
    with pytest.raises(Killed):
        quick_launch.start(config, runs_dir, key="one")
    monkeypatch.setattr(record, "write_text", write_text)
    (made,) = queries.list_runs(runs_dir)["id"]
    assert quick_launch.start(config, runs_dir, key="one").id == made
    assert len(queries.list_runs(runs_dir)) == 1


def test_a_run_is_queued_once_before_anything_is_loaded(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_launch, "enqueue", no_enqueue)
    strategy = {"name": "dynamic", "gates": "off", "explore": 1.0, "moves": 2}
    config = values(tiny_bert, tiny_data, name="ümlaut", strategy=strategy)
    handle = quick_launch.start(config, runs_dir, key="one")
    assert quick_launch.start({"seed": 7}, runs_dir, key="one") == handle
    assert handle.status().status == "queued"
    assert read_run_config(handle.folder) == parse_config(plan(parse_config(config)).config.stored())
    assert resting == [quick_launch.check_command(handle.id, runs_dir.resolve())] * 2
    assert resting[0][1:6] == ["-P", "-m", "dynlora", "check-queued", handle.id]
    further = quick_launch.start({**config, "seed": 1}, runs_dir, key="two", checked=True)
    assert len(resting) == 2, "a further seed is checked when it is next"
    summary = queries.run_summary(further.folder)
    assert (summary.name, summary.strategy, summary.max_steps, summary.seed) == ("ümlaut", "dynamic", 4, 1)


def test_nothing_of_it_loads_torch(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    program = (
        "import json, sys\nfrom dynlora.jobs import quick_launch\nquick_launch.wake = lambda _: None\n"
        "quick_launch.spawn_detached = lambda *_: 0\n"
        "quick_launch.start(json.loads(sys.argv[1]), sys.argv[2], key='one')\nassert 'torch' not in sys.modules"
    )
    import json

    arguments = [json.dumps(values(tiny_bert, tiny_data)), str(runs_dir)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=300, env=dict(os.environ))
    assert len(queries.list_runs(runs_dir)) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"train__lr": 99}, "train.lr=99"), ({"adapter__rnk": 3}, "adapter.rnk"), ({"seed": "x"}, "seed")],
)
def test_what_needs_no_torch_is_refused_and_leaves_no_run(
    overrides: dict[str, Any], message: str, tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        quick_launch.start(values(tiny_bert, tiny_data, **overrides), runs_dir, key="one")
    with pytest.raises(ConfigError, match="key '../k'"):
        quick_launch.start(values(tiny_bert, tiny_data), runs_dir, key="../k")
    assert queries.list_runs(runs_dir).empty


@pytest.mark.parametrize(
    "overrides",
    [
        {"strategy": {"name": "nothing"}},
        {"strategy": {"name": "dynamic", "moves": "many"}},
        {"strategy": {"name": "dynamic", "gates": "sometimes"}},
        {"strategy": {"name": "dynamic", "lr_ratio": -1}},
        {"strategy": {"name": "lora", "moves": 2}},
        {"model": {"name": "someone/some-model"}},
        {"data": {"path": "nowhere.csv"}},
        {"train": {"epochs": 1}},
    ],
)
def test_in_doubt_the_whole_check_is_waited_for(
    overrides: dict[str, Any], tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DynloraError("asked")

    monkeypatch.setattr(quick_launch, "enqueue", refuse)
    with pytest.raises(DynloraError, match="asked"):
        quick_launch.start(values(tiny_bert, tiny_data) | overrides, runs_dir, key="one")
    assert queries.list_runs(runs_dir).empty


def test_what_its_process_finds_is_a_failed_run_with_the_sentence_of_the_check(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]]
) -> None:
    config = values(tiny_bert, tiny_data, data__label="verdict")
    with pytest.raises(DynloraError) as refused:
        plan(parse_config(config))
    handle = quick_launch.start(config, runs_dir, key="one")
    result = run(runs_dir, "resume", handle.id)
    assert result.exit_code == 2
    assert str(refused.value) in result.stderr
    assert (handle.status().status, handle.status().error) == ("failed", str(refused.value))
    other = quick_launch.start({**config, "seed": 1}, runs_dir, key="two")
    assert refusal(runs_dir / other.id) == str(refused.value)
    assert (other.status().status, other.status().error) == ("failed", str(refused.value))


def test_a_check_leaves_a_sound_run_and_one_that_was_begun_alone(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]]
) -> None:
    handle = quick_launch.start(values(tiny_bert, tiny_data), runs_dir, key="one")
    assert refusal(runs_dir / handle.id) is None
    assert handle.status().status == "queued"
    assert run_queue.claim(runs_dir, handle.id)
    run_queue.refuse(handle.folder, "too late")
    assert handle.status().status == "queued"


def test_a_run_says_what_it_does_before_its_first_step_and_knows_all_that_a_checked_one_does(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]]
) -> None:
    config = values(tiny_bert, tiny_data)
    handle = quick_launch.start(config, runs_dir, key="one")
    document(run(runs_dir, "resume", handle.id, "--json"))
    logs = queries.logs_frame(handle.folder)
    words = logs[logs["level"] == "info"]["message"].tolist()
    for lines, phase in ((logs[logs["message"].isin(words[:2])], words[1]), (logs.head(0), "")):
        assert run_summary.phase(summary_with({"status": "running", "step": 0}), lambda text=lines: text) == phase
    assert run_summary.phase(summary_with({"status": "running", "step": 1}), lambda: pytest.fail("it was read")) == ""
    checked = plan(parse_config(config)).create(runs_dir, "queued")
    launched, planned = (queries.run_summary(folder) for folder in (handle.folder, checked))
    for key in ("metric", "labels", "task", "data_size", "planned_events", "own_signals", "fidelity", "max_steps"):
        assert getattr(launched, key) == getattr(planned, key)
    assert launched.status == "finished"


def test_a_stop_while_it_loads_is_a_stop(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from dynlora.training import run as training_run

    handle = quick_launch.start(values(tiny_bert, tiny_data), runs_dir, key="one")
    real = training_run.load_inputs

    def load(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(training_run, "load_inputs", load)
    assert training_run.resume(runs_dir, handle.id).state == "stopped"
    assert (handle.status().status, handle.status().step) == ("stopped", 0)
    monkeypatch.setattr(training_run, "load_inputs", real)
    assert launch.read_status(handle.folder).status == "stopped"
    assert training_run.resume(runs_dir, handle.id).state == "finished"


def test_a_run_that_was_refused_while_it_loaded_knows_all_once_it_goes_on(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynlora.training import run as training_run

    handle = quick_launch.start(values(tiny_bert, tiny_data), runs_dir, key="one")

    def refuse(*_: object) -> None:
        raise DynloraError("the data is not there")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(training_run, "load_inputs", refuse)
        with pytest.raises(DynloraError, match="not there"):
            training_run.resume(runs_dir, handle.id)
    assert handle.status().status == "failed"
    assert training_run.resume(runs_dir, handle.id).state == "finished"
    summary = queries.run_summary(handle.folder)
    assert (summary.metric, summary.labels) == ("accuracy", ["bad", "good"])
    assert summary.data_size == {"train": 200, "held_out": 80}


def test_what_a_run_without_checkpoint_recorded_stays_when_its_data_has_changed(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynlora.engine.loop.trainer import Trainer
    from dynlora.training import run as training_run

    data = shutil.copytree(tiny_data, runs_dir.parent / "data")
    handle = quick_launch.start(values(tiny_bert, data), runs_dir, key="one")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Trainer, "take_step", lambda *_: 1 / 0)
        assert training_run.resume(runs_dir, handle.id).state == "failed"
    recorded = queries.scalars_frame(handle.folder)
    assert len(recorded)
    shutil.rmtree(handle.folder / "checkpoint")  # as when its process is killed before the first is saved
    monkeypatch.setattr(launch, "start_next", lambda *_: None)
    assert launch.resume(runs_dir, handle.id) == "queued"
    with (data / "train.csv").open("a", encoding="utf-8") as file:
        file.write("one more,positive\n")
    with pytest.raises(DynloraError, match="has changed since the run began"):
        training_run.resume(runs_dir, handle.id)
    assert queries.scalars_frame(handle.folder).equals(recorded)


def test_one_process_checks_all_that_was_asked_for_and_another_one_ends_at_once(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]]
) -> None:
    root = runs_dir.resolve()
    first = quick_launch.start(values(tiny_bert, tiny_data, data__label="verdict"), runs_dir, key="one")
    taken = launch.requested_checks(root)
    assert next(taken) == first.id
    second = quick_launch.start(values(tiny_bert, tiny_data), runs_dir, key="two")
    assert resting == [quick_launch.check_command(first.id, root)], "the check that goes on takes the second run too"
    assert list(launch.requested_checks(root)) == [], "a second process has nothing to do"
    assert list(taken) == [second.id]
    quick_launch.start(values(tiny_bert, tiny_data, seed=2), runs_dir, key="three")
    assert len(resting) == 2, "none is at it any more"


@pytest.mark.journey
def test_the_command_checks_every_run_that_was_asked_for(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, resting: list[list[str]]
) -> None:
    handles = [
        quick_launch.start(values(tiny_bert, tiny_data, seed=seed, data__label=label), runs_dir, key=f"k{seed}")
        for seed, label in enumerate(("verdict", "label", "verdict"))
    ]
    shutil.rmtree(handles[2].folder)
    program = [*quick_launch.check_command(handles[0].id, runs_dir.resolve())]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ))
    assert done.returncode == 2, done.stderr
    assert [handle.status().status for handle in handles[:2]] == ["failed", "queued"]
    again = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ))
    assert (again.returncode, again.stderr) == (0, "")
