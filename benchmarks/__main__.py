"""Run every benchmark, one after the other: `python -m benchmarks --glue GLUE`, or a small form of all: `--quick`.

GLUE is the folder of the GLUE tasks; what needs it is left out without it, and said. The small forms also check which
way each of them points, see `benchmarks.directions`. Ends with a table; 1 when one failed or points the wrong way.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.directions import wrong_ways

PLAIN = (
    "pages",
    "waits",
    "store",
    "overhead",
    "throughput",
    "step_time",
    "compress",
    "fact_memory",
    "memory",
    "rsd",
    "tuned",
    "planted",
    "recycle",
    "gpu",
)
"""Benchmarks that need nothing but this machine."""


def commands(glue: Path | None, *, quick: bool) -> Iterator[list[str]]:
    """Yield the module and arguments of each benchmark."""
    small = ["--quick"] if quick else []
    for name in PLAIN:
        yield [name, *small]
    if quick:
        yield ["quality", *small]
        yield ["methods", *small]
    elif glue is not None:
        yield ["quality", "tune", "--data", str(glue)]
        yield ["quality", "report", "--data", str(glue)]
        yield ["methods", "--data", str(glue)]


def carried_out(command: list[str], *, quick: bool) -> str:
    """Run a benchmark and return what is wrong with it, nothing where all is well."""
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{command[0]}", *command[1:]], check=False)
    if done.returncode:
        return f"ended with {done.returncode}"
    return "; ".join(wrong_ways(command[0])) if quick else ""


def main() -> int:
    """Run them one after the other; one that fails ends no other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, help="folder of the GLUE tasks, for quality and methods")
    parser.add_argument("--quick", action="store_true", help="a small form of each, in minutes")
    arguments = parser.parse_args()
    lines, failed = [], False
    for command in commands(arguments.glue, quick=arguments.quick):
        start = time.monotonic()
        wrong = carried_out(command, quick=arguments.quick)
        failed = failed or bool(wrong)
        lines.append(f"{' '.join(command):40} {time.monotonic() - start:6.0f} s  {wrong or 'as expected'}")
    if not arguments.quick and arguments.glue is None:
        lines.append("quality and methods were left out: give --glue, the folder of the GLUE tasks")
    print("\n" + "\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
