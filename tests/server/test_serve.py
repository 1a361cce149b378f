"""The server's process lives and dies with `dynlora ui`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynlora.config import parse_config
from dynlora.errors import ConfigError
from dynlora.jobs import launch
from dynlora.jobs.environment import python_command
from dynlora.server import serve
from dynlora.server.serve import address, server_command, ui
from tests.viz.runs import make_run, planted
from tests.waiting import PATIENCE_S, until

UI = """
import sys
from pathlib import Path
from dynlora.jobs import launch
from dynlora.server import serve as serving
launch.catalog = lambda: {}
serving.server_command = lambda host, port: [sys.executable, "-c", sys.argv[2], sys.argv[1]]
sys.exit(serving.ui(runs_dir=Path(sys.argv[1]), port=1, host="127.0.0.1"))
"""
SERVER = """
import signal, sys, time
from pathlib import Path
{how}
Path(sys.argv[1], "up").touch()
time.sleep(3600)
"""
GENTLE = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))"
DEAF = "signal.signal(signal.SIGTERM, lambda *_: Path(sys.argv[1], 'asked').touch())"
"""It notes that it was asked to end, and goes on."""


def started(tmp_path: Path, how: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """Return `dynlora ui` with a stand-in for its server, and that server."""
    command = [sys.executable, "-c", UI, str(tmp_path), SERVER.format(how=how)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    until(lambda: (tmp_path / "up").exists() or process.poll() is not None, "the server")
    assert process.poll() is None
    (server,) = psutil.Process(process.pid).children()
    return process, server


def is_gone(server: psutil.Process) -> bool:
    return not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
@pytest.mark.parametrize(("how", "signals", "code"), [(GENTLE, 1, 0), (DEAF, 2, 128 + signal.SIGKILL)])
def test_ending_the_command_ends_its_server(how: str, signals: int, code: int, tmp_path: Path) -> None:
    """SIGTERM ended the command alone: the server went on serving, and the port stayed taken."""
    process, server = started(tmp_path, how)
    try:
        os.kill(process.pid, signal.SIGTERM)
        if signals > 1:  # not before the first was passed on: two that come too soon after each other are one
            until((tmp_path / "asked").exists, "the first signal at the server")
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE_S) == code
        assert is_gone(server)
    finally:
        for one in (server, process):
            if one.is_running() if isinstance(one, psutil.Process) else one.poll() is None:
                one.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


DEMO = """
import sys
from types import SimpleNamespace
from pathlib import Path
from dynlora.jobs import launch
from dynlora.server import serve as serving
launch.catalog = lambda: {}
launch.enqueue = lambda *_, **__: SimpleNamespace(id="20260101-000000-00000001")
serving.server_command = lambda host, port: [sys.executable, "-c", sys.argv[2], str(port)]
sys.exit(serving.demo(runs_dir=Path(sys.argv[1]), port=0))
"""
ANSWERS = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


def test_the_demo_says_one_address_once_it_answers(tmp_path: Path) -> None:
    """It said three: its own, streamlit's, and that of the run, and the first before anything answered there."""
    process = subprocess.Popen(
        [sys.executable, "-c", DEMO, str(tmp_path), ANSWERS],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    while not ("dashboard: " in "".join(lines) and "training " in "".join(lines)):
        line = process.stderr.readline()
        assert line, lines
        lines.append(line)
    (server,) = psutil.Process(process.pid).children()
    process.terminate()
    lines += process.stderr.readlines()
    process.wait(PATIENCE_S)
    process.stderr.close()
    assert is_gone(server)
    (address,) = re.findall(r"http\S+", "".join(lines))
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", address)
    assert "20260101-000000-00000001" in "".join(lines)


@pytest.mark.parametrize(
    ("host", "host_in_address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", f"http://{socket.gethostname()}:80"),
    ],
)
def test_an_address_is_one_that_a_browser_takes(host: str, host_in_address: str) -> None:
    assert address(host, 80) == host_in_address
    assert "--logger.hideWelcomeMessage=true" in server_command(host, 80)


def test_a_port_that_another_program_listens_on_is_refused_before_its_address_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: another program uses it; leave --port out"):
            ui(runs_dir=tmp_path, port=port, host="127.0.0.1")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_a_command_that_is_killed_leaves_no_server_and_a_second_one_says_whose_the_port_is(tmp_path: Path) -> None:
    """Streamlit lived on with the port, for ever, and `another program` was all that the next start said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*python_command("dynlora", "ui"), "--port", str(port), "--runs-dir", str(tmp_path / "runs")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stderr is not None
        try:
            until(lambda: b"dashboard" in process.stderr.readline(), "the dashboard answers")  # pyright: ignore
            (server,) = (one for one in psutil.Process(process.pid).children() if "streamlit" in one.cmdline())
            own = f"--port {port}: the dashboard of process {server.pid} uses it; leave --port out, or open"
            with pytest.raises(ConfigError, match=own):
                ui(runs_dir=tmp_path, port=port, host="127.0.0.1")
        finally:
            process.kill()
        until(lambda: is_gone(server), "the end of the server")


def test_the_demo_of_planted_ranks_trains_both_with_one_seed_and_says_their_conclusion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs: list[dict[str, Any]] = []

    def enqueue(config: dict[str, Any], runs_dir: Path, *, key: str) -> launch.RunHandle:
        configs.append(config)
        run_id = f"20260101-000000-0000000{len(configs)}"
        name = config["strategy"]["name"]
        return launch.RunHandle(
            run_id, make_run(runs_dir, run_id=run_id, strategy=name, moves=name != "lora", about=planted(2, 5))
        )

    monkeypatch.setattr(launch, "enqueue", enqueue)
    serve._start_demo(tmp_path, True)
    first, second = [parse_config(config) for config in configs]
    assert first.model_copy(update={"name": second.name, "strategy": second.strategy}) == second
    assert first.data.task == "planted"
    assert [one.strategy.name for one in (first, second)] == ["lora", "dynamic"]
    conclusion = "(components in the 2 modules that need them): lora on planted 0.820 (8 of 48); dynamic on planted"
    assert conclusion in capsys.readouterr().err
