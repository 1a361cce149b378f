"""A sweep on a real Ray cluster of two nodes on this machine, one of which is killed while its run trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dynlora
from dynlora.store.lifecycle import active_ids
from dynlora.store.notes import read_notes
from dynlora.store.reader import RunReader
from tests.tiny import tiny_arguments, tiny_config
from tests.waiting import until

pytest.importorskip("ray", reason="Ray is not installed: pip install 'dynlora[ray]'")
pytestmark = pytest.mark.journey

RUNS, STEPS, CHECKPOINT = 12, 300, 20
RUN_FILES = "[0-9]*/run.db"
"""Without folders that are just being made."""

LOOPBACK = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

Start = Callable[[list[str]], subprocess.Popen[str]]

NODES = """
import json, os, sys
from ray.cluster_utils import Cluster
here = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**here, "include_dashboard": False})
second = cluster.add_node(**here)
raylet = second.all_processes["raylet"][0].process.pid
print(json.dumps({"address": cluster.address, "raylet": raylet}), flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print("killed", flush=True)
sys.stdin.read()
cluster.shutdown()
"""
"""Two nodes; the first line kills the second, the end of the input both."""


class Nodes:
    """A cluster of two nodes, in a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", NODES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **LOOPBACK},
        )
        answer = json.loads(self._line())
        self.address, self.raylet = str(answer["address"]), int(answer["raylet"])

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def kill_second(self) -> None:
        """Kill the second node, at once."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self._line() == "killed\n"

    def end(self) -> None:
        """End both."""
        self.process.communicate(timeout=120)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command that does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: list[str]) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for one in started:
        one.kill()
        one.communicate()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    cluster = Nodes()
    yield cluster
    cluster.end()


def on_second(nodes: Nodes, pid: int | None) -> bool:
    """Whether a process descends from the second node's raylet."""
    import psutil

    try:
        return pid is not None and nodes.raylet in {parent.pid for parent in psutil.Process(pid).parents()}
    except psutil.NoSuchProcess:
        return False


def training(runs_dir: Path) -> list[tuple[str, int | None, int]]:
    """Id, process and step of each run that trains."""
    processes = []
    for path in runs_dir.glob(RUN_FILES):
        with RunReader(path.parent) as reader:
            status = reader.status()
        if status.status == "running":
            processes.append((path.parent.name, status.pid, status.step))
    return processes


def facts(folder: Path) -> dict[str, Any]:
    """What a run is: its name, each step's loss, and the bytes of its last checkpoint: adapters and optimizer."""
    with RunReader(folder) as reader:
        (loss,) = reader.scalars("loss", "train")
        status, name = reader.status(), reader.meta(["name"])["name"]
        resumed = [event.step for event in reader.events(kinds=["resume"])]
    steps, values = list(map(int, loss.steps)), [float(value) for value in loss.values]
    weights = (folder / "checkpoint" / "tensors.safetensors").read_bytes()
    return {
        "name": name,
        "status": status.status,
        "step": status.step,
        "steps": steps,
        "loss": values,
        "weights": weights,
        "resumed": resumed,
    }


def test_twelve_runs_on_two_nodes_one_killed_are_those_without_ray(
    nodes: Nodes, start: Start, tiny_bert: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path
) -> None:
    settings = (f"train.steps={STEPS}", "log.eval_every=150", f"log.checkpoint_every={CHECKPOINT}")
    command = [sys.executable, "-m", "dynlora", "sweep", "--on", "ray", "--address", nodes.address, "--cpus", "1"]
    command += [*tiny_arguments(tiny_bert, tiny_data, *settings), "--set", f"seed=0..{RUNS - 1}"]
    driver = start([*command, "--name", "twelve", "--runs-dir", str(runs_dir), "--json"])
    lost: list[str] = []

    def is_past_a_checkpoint_on_both() -> bool:
        assert driver.poll() is None, driver.communicate()
        both = training(runs_dir)
        lost[:] = [run for run, pid, step in both if on_second(nodes, pid) and CHECKPOINT < step < STEPS - 50]
        return len(both) == 2 and len(lost) == 1

    until(is_past_a_checkpoint_on_both, "both nodes train")
    nodes.kill_second()
    out, err = driver.communicate(timeout=1500)
    assert driver.returncode == 0, err
    document = json.loads(out)
    assert [row["status"] for row in document["runs"]] == ["finished"] * RUNS, err
    assert err.count(": finished (") == RUNS

    folders = sorted(path.parent for path in runs_dir.glob(RUN_FILES))
    assert sorted(row["id"] for row in document["runs"]) == [folder.name for folder in folders]
    assert {read_notes(folder).tags for folder in folders} == {(document["sweep"],)}
    assert active_ids(runs_dir) == []
    facts_by_run = {folder.name: facts(folder) for folder in folders}
    assert facts_by_run[lost[0]]["resumed"], "the run of the killed node went on from its checkpoint"
    assert [run for run, fact in facts_by_run.items() if fact["resumed"]] == lost
    by_name = {fact["name"]: fact for fact in facts_by_run.values()}
    for seed in range(RUNS):
        config = tiny_config(
            tiny_bert, tiny_data, train__steps=STEPS, log__eval_every=150, log__checkpoint_every=CHECKPOINT, seed=seed
        )
        alone = facts(dynlora.train(config, tmp_path / "alone", progress=False).folder)
        shared = by_name[f"twelve seed={seed}"]
        assert alone["steps"] == list(range(1, STEPS + 1))
        for key in ("steps", "loss", "weights"):
            assert shared[key] == alone[key], (seed, key)


def test_a_sweep_whose_command_was_killed_goes_on(
    start: Start, tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    settings = ("train.steps=150", "log.eval_every=50", f"log.checkpoint_every={CHECKPOINT}")
    command = [sys.executable, "-m", "dynlora", "sweep", "--on", "ray", "--cpus", "1", "--runs-dir", str(runs_dir)]
    driver = start([*command, *tiny_arguments(tiny_bert, tiny_data, *settings), "--set", "seed=0..2"])
    until(lambda: any(step > CHECKPOINT for _, _, step in training(runs_dir)), "a run trains", patience_s=600)
    driver.kill()
    driver.wait()
    until(lambda: not training(runs_dir), "what trained has ended with the command")
    folders = sorted(path.parent for path in runs_dir.glob(RUN_FILES))
    assert len(folders) == 3
    (tag,) = read_notes(folders[0]).tags
    again = subprocess.run([*command, "--again", tag, "--json"], capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stderr
    facts_by_run = {folder.name: facts(folder) for folder in folders}
    assert {fact["status"] for fact in facts_by_run.values()} == {"finished"}
    assert all(fact["steps"] == list(range(1, 151)) for fact in facts_by_run.values())
    assert any(fact["resumed"] for fact in facts_by_run.values())
    over = subprocess.run([*command, "--again", tag], capture_output=True, text=True, timeout=300)
    assert (over.returncode, over.stderr.count("\n")) == (2, 1)
    assert "3 runs have ended" in over.stderr
