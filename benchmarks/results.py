"""What every benchmark writes beside its figures: command, machine, versions."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.analysis.stats import paired_difference

RESULTS = Path(__file__).resolve().parent / "results"
QUICK = RESULTS.parent / "out"
"""Where quick runs leave what nobody keeps."""

PACKAGES = ("dynlora", "torch", "transformers", "peft", "trl", "accelerate", "numpy")


def emptied(name: str) -> Path:
    """Return an empty folder for a quick run."""
    shutil.rmtree(QUICK / name, ignore_errors=True)
    return QUICK / name


def processor() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter."""
    version_of = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            version_of[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return version_of


def without_places(argument: str) -> str:
    """Return an argument of the command line without the place on this machine: `--data=/a/b/glue/sst2` ends alike."""
    if "," in argument:
        return ",".join(map(without_places, argument.split(",")))
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if not path.is_absolute() and path.parts[:1] not in (("..",), ("~",)):
        return argument
    return option + equals + "/".join(part for part in path.parts[-2:] if part not in (path.anchor, "..", "~"))


def mean_and_ends(differences: np.ndarray) -> list[float]:
    """Return mean and 95 % interval of paired differences, (seeds, examples); both are drawn again."""
    difference = paired_difference(list(differences))
    return [difference.mean, difference.low, difference.high]


def command(module: str, arguments: Sequence[str], places: Sequence[str] = ()) -> str:
    """Return the command of a benchmark as it is written: without the places on this machine.

    Args:
        module: of the benchmark.
        arguments: that it was given.
        places: options that say nothing but where its runs are kept; left out with their values.
    """
    words, given = ["python", "-m", module], iter(arguments)
    for argument in given:
        option, equals, _ = argument.partition("=")
        if option not in places:
            words.append(without_places(argument))
        elif not equals:
            next(given, None)
    return " ".join(words)


def write(name: str, figures: Any, module: str, places: Sequence[str] = ()) -> Path:
    """Write figures as `results/<name>.json` and return the file; see `command` for `places`."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "command": command(module, sys.argv[1:], places),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": versions(),
        "figures": figures,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return path
