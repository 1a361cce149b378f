"""What a run folder of somebody else's can do to a terminal, and to whoever reads its config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dynlora.cli.main import main
from dynlora.config_files import load_config
from dynlora.errors import ConfigError
from tests.viz.runs import make_run

RUN = "20260101-000000-00000001"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\x1b]8;;http://evil.example\x1b\\here\r\b\x7f"


@pytest.mark.parametrize("command", [("runs",), ("show", RUN), ("compare", RUN, RUN), ("tag", RUN), ("stop", RUN)])
def test_a_runs_texts_do_not_drive_the_terminal(command: tuple[str, ...], runs_dir: Path) -> None:
    """Escape sequences in a name cleared the screen or set the window's title."""
    make_run(runs_dir, run_id=RUN, text=ESCAPES, error=ESCAPES, own=True)
    for more in ((), ("--json",)):
        done = CliRunner().invoke(main, [*command, *more, "--runs-dir", str(runs_dir)])
        output = done.stdout + done.stderr
        assert not set(output) & set("\x1b\x07\x9b\r\b\x7f"), ascii(output)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
def test_a_config_that_is_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="is a pipe, not a file"):
        load_config(tmp_path / "config.yaml")


def test_listing_and_showing_call_nobody(runs_dir: Path) -> None:
    """No telemetry: commands that read open no socket, as an audit hook in their own process sees it."""
    make_run(runs_dir, run_id=RUN)
    program = """
import sys
heard = []
sys.addaudithook(lambda event, _: heard.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
from click.testing import CliRunner
from dynlora.cli.main import main
codes = [CliRunner().invoke(main, [*a, "--runs-dir", sys.argv[1]]).exit_code for a in (["runs"], ["show", sys.argv[2]])]
import json
print(json.dumps([codes, heard]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(runs_dir), RUN], capture_output=True, text=True, check=True, timeout=300
    )
    assert json.loads(done.stdout) == [[0, 0], []]
