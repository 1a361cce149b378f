"""Run every benchmark: `python -m benchmarks [--quick]`."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    "benchmarks.pages",
    "benchmarks.store",
    "benchmarks.overhead",
    "benchmarks.throughput",
    "benchmarks.step_time",
    "benchmarks.quality",
    "benchmarks.domains",
    "benchmarks.methods",
    "benchmarks.knockouts",
)


def main() -> int:
    """Run them one after the other; the first that fails ends it."""
    for module in BENCHMARKS:
        done = subprocess.run([sys.executable, "-m", module, *sys.argv[1:]], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
