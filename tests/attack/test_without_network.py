"""What is cached needs no network: a run of the embedded model and data where no interface leads anywhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from dynlora.assets import MODELS
from tests.tiny import tiny_arguments
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
ALONE = ["unshare", "--map-root-user", "--net"]
SETTINGS = ("train.steps=2", "train.batch_size=4", "data.max_train=64", "data.max_eval=16", "strategy.name=lora")


LISTENING = """
import os, sys
def hear(event, given):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        place = given[1] if event in ("socket.connect", "socket.sendto") else given[0]
        if not isinstance(place, (str, bytes)) or event != "socket.connect":  # a path is a socket of this machine
            with open(os.environ["HEARD"], "a") as file:
                file.write(f"{event} {place}\\n")
sys.addaudithook(hear)
"""
"""A `sitecustomize.py`: every Python of a test, children too, writes down whom it would call, refused or not."""


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    """The file of calls, empty so far; `environment` of a process that is listened to names it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LISTENING)
    (tmp_path / "heard").touch()
    return tmp_path / "heard"


def listened_to(heard: Path) -> dict[str, str]:
    """Return the environment of a process that is listened to; the hub may be called as far as we are concerned."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    paths = os.pathsep.join([str(heard.parent / "site"), str(ROOT)])
    return {**kept, "PYTHONPATH": paths, "HEARD": str(heard), "OMP_NUM_THREADS": "1"}


def test_a_call_would_be_heard(heard: Path) -> None:
    call = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    subprocess.run([sys.executable, "-c", call], env=listened_to(heard), check=True)
    assert heard.read_text() == "socket.connect ('127.0.0.1', 9)\n"


@pytest.mark.journey
def test_training_what_lies_here_calls_nobody(heard: Path, tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    arguments = tiny_arguments(tiny_bert, tiny_data, "train.steps=2")
    done = subprocess.run(
        [sys.executable, "-m", "dynlora", "train", *arguments, "--runs-dir", str(runs_dir), "--json"],
        cwd=ROOT,
        env=listened_to(heard),
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert json.loads(done.stdout)["status"] == "finished"
    assert heard.read_text() == ""


def test_the_dashboard_calls_nobody(heard: Path, runs_dir: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dynlora", "ui", "--port", str(port), "--runs-dir", str(runs_dir)]
    with subprocess.Popen(
        command, cwd=ROOT, env=listened_to(heard), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert "<title>" in _page(f"http://127.0.0.1:{port}/")
        finally:
            server.terminate()
    itself = (
        "socket.getaddrinfo 127.0.0.1",
        f"socket.connect ('127.0.0.1', {port})",
    )  # to bind; to see that it answers
    assert [line for line in heard.read_text().splitlines() if line not in itself] == []


def _page(address: str) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline, "the dashboard did not come up"
            time.sleep(0.1)


def _is_allowed() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*ALONE, "true"], capture_output=True).returncode


@pytest.mark.torture
def test_a_cached_model_trains_without_a_network(runs_dir: Path) -> None:
    if not _is_allowed() or not MODELS["minilm"].cached:
        pytest.skip("network namespaces are not allowed here, or the embedded model is not cached")
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "dynlora", "train", *settings, "--runs-dir", str(runs_dir), "--json"],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert json.loads(done.stdout)["status"] == "finished"
