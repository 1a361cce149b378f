"""Run commands of dynlora in this process and read what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from dynlora.cli.main import main


def run(runs_dir: Path, *arguments: str) -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(main, [*arguments, "--runs-dir", str(runs_dir)])


def document(result: Result, code: int = 0) -> Any:
    """Return the one JSON document a command printed."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)
