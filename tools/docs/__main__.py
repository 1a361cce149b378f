"""`python -m tools.docs` builds the site into site/; a warning is an error, and nothing is fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build(arguments: list[str]) -> int:
    """Run MkDocs on this checkout; returns its exit code."""
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(build(sys.argv[1:]))
