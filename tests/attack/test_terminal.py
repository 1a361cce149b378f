"""What a run folder of somebody else's can do to a terminal, and to whoever reads its config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.cli.main import main
from dynlora.cli.options import in_rows, printable
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


FORGED = "20261201-101010-0000beef           finished         99/99     lora"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize(
    "command", [("runs",), ("show", RUN), ("compare", RUN, f"{RUN[:-1]}2"), ("tag", RUN), ("doctor", RUN)]
)
def test_a_runs_texts_make_no_row_of_their_own(command: tuple[str, ...], end: str, runs_dir: Path) -> None:
    """A line feed in a name made a row that looked like a run."""
    hostile = f"mine{end}{FORGED}"
    for last, name in (("1", hostile), ("2", f"another{end}{FORGED}")):
        folder = make_run(runs_dir, run_id=RUN[:-1] + last, text=name, error=hostile, own=True)
        (folder / "notes.json").write_text(json.dumps({"tags": [f"a{end}{FORGED}"[:40]], "note": ""}))
    done = CliRunner().invoke(main, [*command, "--runs-dir", str(runs_dir)])
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if line.startswith(FORGED[:20])] == []


TEXTS = st.text(st.characters() | st.sampled_from("\n\t\r\x1b\x85\u2028\u202e\u200b\ud800"), max_size=30)


def check_rows(texts: Any) -> None:
    """Check that plain values come out as one line each, with nothing in it that drives a terminal."""
    values = [texts, {texts: [texts]}, (texts, 1, None)]
    for line in (in_rows(texts), *in_rows({"a": [texts]})["a"], *in_rows(values)[1], in_rows(values)[2][0]):
        safe = printable(line)
        assert not set(safe) & set("\n\t\r\v\f\x1b\x07\x7f\x85\x9b\u2028\u2029\u202e"), ascii(safe)
        assert len(safe.splitlines()) <= 1
    assert in_rows("plain, whole text") == "plain, whole text"


@given(TEXTS)
def test_any_text_stays_in_its_row(text: str) -> None:
    check_rows(text)


@pytest.mark.torture
@settings(max_examples=10_000)
@given(TEXTS)
def test_any_text_stays_in_its_row_in_full(text: str) -> None:
    check_rows(text)


def test_a_files_texts_make_no_row_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / f"a\n{FORGED[:24]}.csv"
    path.write_text(f'text,"label\n{FORGED}"\n' + f'"a\n{FORGED}","b\n{FORGED}"\n' * 3, "utf-8")
    done = CliRunner().invoke(main, ["data", "check", str(path)])
    assert done.exit_code == 1, done.output
    assert [line for line in done.output.splitlines() if line.startswith(FORGED[:20])] == []


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
