"""Four runs on a Ray cluster from Python: one of this machine, or one that runs already.

Run it: python examples/cluster.py [ADDRESS]. It needs `pip install 'dynlora[ray]'`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(address: str | None = None, runs_dir: str | Path = "runs", settings: Sequence[str] = ()) -> dict[str, Any]:
    """Train four seeds, print how each ended, and return it.

    Args:
        address: of a cluster, such as auto; None starts one here.
        runs_dir: folder of the runs, which all nodes see.
        settings: KEY=VALUE each; none takes a short run of the defaults.
    """
    chosen = settings or ("train.steps=60", "data.max_train=2000", "data.max_eval=500")
    command = [sys.executable, "-m", "dynlora", "sweep", "--on", "ray", "--json", "--runs-dir", str(runs_dir)]
    command += ["--address", address] if address else []
    command += [part for one in (*chosen, "seed=0..3") for part in ("--set", one)]
    sweep = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    print(sweep["sweep"], *(f"{run['id']}: {run['status']}" for run in sweep["runs"]), sep="\n")
    return sweep


if __name__ == "__main__":
    main(*sys.argv[1:2])
