"""The driver and the command, with a stand-in for Ray: what is given out, what is given out again, what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dynlora.cli import sweep
from dynlora.errors import ConfigError
from dynlora.integrations.cluster import RESUMES, RETRIES, ClusterRequest, Driver
from dynlora.jobs import launch
from dynlora.jobs.queue import read_status, wake
from dynlora.store.lifecycle import active_ids, annotate
from tests.command_line import run
from tests.store.builder import finished_run, new_run

NODE = {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}


def fake_ray(do: Callable[[str], Any], nodes: list[dict[str, Any]] | None = None) -> Any:
    """A Ray whose tasks end as `do` says of a run's id; it remembers the options of a task."""

    class Failed(Exception):
        pass

    def get(task: Any) -> Any:
        outcome = do(task.run_id)
        if isinstance(outcome, Exception):
            raise Failed(str(outcome))
        return outcome

    module = SimpleNamespace(nodes=lambda: [NODE] if nodes is None else nodes, get=get, options={})
    module.exceptions = SimpleNamespace(RayError=Failed)
    module.wait = lambda tasks, num_returns, timeout: (tasks[:num_returns], tasks[num_returns:])

    class Task:
        def __init__(self, run_id: str) -> None:
            self.run_id = run_id

    def remote(**options: Any) -> Callable[[Any], Any]:
        module.options = options
        return lambda function: SimpleNamespace(remote=lambda _root, run_id, _threads, _gpus: Task(run_id))

    module.remote = remote
    return module


def test_a_task_is_given_what_was_asked_for_and_moves_when_its_node_is_lost(runs_dir: Path) -> None:
    messages: list[str] = []
    ray = fake_ray(lambda _: "finished")
    assert Driver(ray, ClusterRequest(None, 2, 0.5), runs_dir, messages.append).train(["a", "b"]) == dict.fromkeys(
        "ab", "finished"
    )
    assert ray.options == {"num_cpus": 2, "num_gpus": 0.5, "max_retries": -1}
    assert messages == ["a: finished (1 of 2)", "b: finished (2 of 2)"]


def test_a_run_whose_process_keeps_being_killed_is_given_out_a_few_times(runs_dir: Path) -> None:
    calls: list[str] = []
    ray = fake_ray(lambda run_id: calls.append(run_id) or "interrupted")
    assert Driver(ray, ClusterRequest(), runs_dir, lambda _: None).train(["a"]) == {"a": "interrupted"}
    assert len(calls) == 1 + RESUMES


def test_what_a_task_raises_is_its_outcome_and_ends_no_other(runs_dir: Path) -> None:
    ray = fake_ray(lambda run_id: ConfigError("no such folder") if run_id == "a" else "finished")
    ended = Driver(ray, ClusterRequest(), runs_dir, lambda _: None).train(["a", "b"])
    assert ended == {"a": "no such folder", "b": "finished"}


def test_a_task_that_fails_before_it_trains_is_given_out_once_more(runs_dir: Path) -> None:
    folder = new_run(runs_dir, "one", state="queued")
    calls: list[str] = []
    messages: list[str] = []

    def do(run_id: str) -> Exception:
        calls.append(run_id)
        if len(calls) > 5:
            raise AssertionError("without end")
        return ConfigError("a node of the cluster does not see this folder")

    ended = Driver(fake_ray(do), ClusterRequest(), runs_dir, messages.append).train([folder.name])
    assert ended == {folder.name: "a node of the cluster does not see this folder"}
    assert len(calls) == 1 + RETRIES
    assert read_status(folder).status == "queued"


def test_a_stopped_run_that_a_page_queues_again_goes_to_the_cluster_again(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = finished_run(runs_dir, 3, "one"), finished_run(runs_dir, 3, "two")
    for folder in (first, second):
        annotate(folder, state="stopped")
    monkeypatch.setattr(launch, "start_next", lambda _: None)  # as while another run trains
    calls: list[str] = []

    def do(run_id: str) -> str:
        calls.append(run_id)
        if run_id == second.name:
            launch.resume(runs_dir, first.name)
        return "finished" if calls.count(run_id) == 2 or run_id == second.name else "stopped"

    ended = Driver(fake_ray(do), ClusterRequest(), runs_dir, lambda _: None).train([first.name, second.name])
    assert ended == {first.name: "finished", second.name: "finished"}
    assert calls == [first.name, second.name, first.name]
    assert active_ids(runs_dir) == []


def test_what_no_node_has_is_refused_here_and_said_of_a_cluster(runs_dir: Path) -> None:
    messages: list[str] = []
    with pytest.raises(ConfigError, match=r"--cpus 5 --gpus 0: no node has as much \(at most CPU 4, GPU 1\)"):
        Driver(fake_ray(str), ClusterRequest(None, 5), runs_dir, messages.append)
    Driver(fake_ray(str), ClusterRequest("auto", 5), runs_dir, messages.append)
    assert len(messages) == 1


def test_new_runs_of_a_cluster_are_out_of_the_local_queue_and_again_finds_them(runs_dir: Path) -> None:
    planned: Any = [SimpleNamespace(create=partial(queued, name=name)) for name in ("one", "two")]
    ids = sweep._created(runs_dir, planned, "tag-1")
    assert wake(runs_dir) is None
    assert active_ids(runs_dir) == []
    assert sweep._unfinished(runs_dir, "tag-1") == sorted(ids)
    for run_id in ids:
        annotate(runs_dir / run_id, state="stopped")
    with pytest.raises(ConfigError, match="2 runs have ended"):
        sweep._unfinished(runs_dir, "tag-1")
    with pytest.raises(ConfigError, match="has this tag"):
        sweep._unfinished(runs_dir, "tag-2")


def queued(root: Path, state: str, name: str) -> Path:
    return new_run(root, name, state=state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "ray", "--search"], "drop --on or --search"),
        (["--again", "x"], "add --on ray"),
        (["--address", "auto"], "add --on ray"),
        (["--on", "ray", "--gpus", "1.5"], "whole number"),
        (["--on", "ray", "--address", "ray://head:10001"], "HOST:PORT or auto"),
        (["--on", "ray", "--again", "../x"], "tag of a sweep"),
        (["--on", "slurm"], "'slurm' is not 'ray'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(runs_dir: Path, arguments: list[str], message: str) -> None:
    refused = run(runs_dir, "sweep", *arguments)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert message in refused.stderr


def test_without_ray_the_command_says_how_to_get_it(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = run(runs_dir, "sweep", "--on", "ray", "--set", "seed=0..1")
    assert refused.exit_code == 2
    assert "pip install 'dynlora[ray]'" in refused.stderr
    assert list(runs_dir.glob("*/run.db")) == []
