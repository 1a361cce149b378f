"""On Windows nothing fails for a name that only POSIX has; what is missing there is told."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import dynlora
from dynlora.jobs import launch
from dynlora.jobs.queue import read_status
from dynlora.server import serve
from dynlora.store.lifecycle import stop_requested
from dynlora.store.writer import RunWriter
from tests.store.builder import new_run

POSIX = re.compile(
    r"\bimport (?:fcntl|grp|pwd|resource|syslog|termios|tty|pty)\b"
    r"|\bos\.(?:fork|forkpty|getpgid|getuid|geteuid|killpg|nice|setpriority|setsid|uname|set_blocking|O_NO\w+|WIF\w+)\b"
    r"|\bsignal\.SIG(?:KILL|CONT|STOP|HUP|USR\d|ALRM|CHLD)\b|\.prctl\("
)
"""What Windows lacks."""

GUARD = re.compile(r"hasattr\(os|hasattr\(signal|sys\.platform|except ImportError|suppress\(ImportError")

PACKAGE = Path(dynlora.__file__).parent
LINUX_ONLY = {"integrations/die_with_parent.py"}
"""Files that another one asks for on Linux alone."""


def test_what_only_posix_has_is_used_where_the_system_was_looked_at() -> None:
    unguarded, uses = [], 0
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        if not POSIX.search(text) or path.relative_to(PACKAGE).as_posix() in LINUX_ONLY:
            continue
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        bodies = [ast.get_source_segment(text, function) or "" for function in functions]
        guarded = [body for body in bodies if GUARD.search(body)]
        for match in POSIX.finditer(text):
            line = text[text.rfind("\n", 0, match.start()) + 1 : text.find("\n", match.end())]
            uses += 1
            if not any(line in body for body in guarded):
                unguarded.append(f"{path.relative_to(PACKAGE)}: {line.strip()}")
    assert unguarded == []
    assert uses > 5


def test_a_stop_on_windows_is_a_request_that_the_run_finds(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal there ends a process at once, and what was trained since the last checkpoint is lost."""
    monkeypatch.setattr(launch.sys, "platform", "win32")
    monkeypatch.setattr(launch, "_signal", lambda *_: pytest.fail("it was signalled"))
    with RunWriter.open(new_run(runs_dir, "one", "queued"), resume_from=None):
        assert launch.stop(runs_dir, "one") == "stopping"
        status = read_status(runs_dir / "one")
        assert stop_requested(runs_dir / "one", status.pid, status.process_start)


def test_the_demo_says_what_is_missing_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve.sys, "platform", "win32")
    monkeypatch.setattr(serve, "_start_demo", lambda *_: None)
    monkeypatch.setattr(serve, "ui", lambda **_: 0)
    assert serve.demo(runs_dir=tmp_path, port=0) == 0
    assert "on Windows these are missing" in capsys.readouterr().err
