"""The dashboard's server, and the demo that starts a run beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from dynlora import launch
from dynlora.app_files import app_root
from dynlora.errors import DynloraError

DEMO = {
    "train.steps": 150,
    "adapter.rank": 4,
    "data.max_eval": 600,
    "log.eval_every": 25,
}
"""The demo's settings: short enough to be watched to its end on two cores."""


def ui(*, runs_dir: Path, port: int, host: str) -> int:
    """Serve the dashboard until it is stopped; returns its exit code."""
    root = app_root()
    environment = {**os.environ, "DYNLORA_RUNS_DIR": str(runs_dir.resolve()), "DYNLORA_STARTED_IN": os.getcwd()}
    command = [sys.executable, "-m", "streamlit", "run", str(root / "app.py"), f"--server.port={port}"]
    command += [f"--server.address={host}", "--server.headless=true", "--browser.gatherUsageStats=false"]
    if host not in ("127.0.0.1", "localhost", "::1"):
        command.append(f"--server.allowedHosts={host}")
        environment["DYNLORA_READ_ONLY"] = "1"
        click.echo(f"bound to {host}: the dashboard is read-only there", err=True)
    server = subprocess.Popen(command, cwd=root, env=environment)
    threading.Thread(target=_warm, daemon=True).start()
    try:
        return server.wait()
    except KeyboardInterrupt:
        return server.wait()


def _warm() -> None:
    """Have the list of strategies ready before a page asks for it; a page that needs it says what went wrong."""
    with suppress(DynloraError):
        launch.catalog()


def demo(*, runs_dir: Path, port: int) -> int:
    """Start the demo run through the queue and serve the dashboard."""
    handle = launch.enqueue(
        _nested({"name": "demo: dynamic on sentiment4", **DEMO}), runs_dir, key=f"demo-{int(time.time())}"
    )
    click.echo(f"training {handle.id}; open http://127.0.0.1:{port}/run?run={handle.id}", err=True)
    return ui(runs_dir=runs_dir, port=port, host="127.0.0.1")


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return dotted keys as sections."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        section, _, last = key.rpartition(".")
        (found.setdefault(section, {}) if section else found)[last] = value
    return found
