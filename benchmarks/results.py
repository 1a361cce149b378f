"""What every benchmark writes beside its figures: command, machine, versions."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
QUICK = RESULTS.parent / "out"
"""Where quick runs leave what nobody keeps."""

PACKAGES = ("dynlora", "torch", "transformers", "peft", "accelerate", "numpy")


def processor() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(name: str, figures: Any, module: str) -> Path:
    """Write figures as `results/<name>.json` and return the file."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": versions(),
        "figures": figures,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return path
