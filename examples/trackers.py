"""A run that TensorBoard shows while it trains, read back from its event files as a run to compare.

Run it: pip install 'dynlora[tensorboard]', python examples/trackers.py, then tensorboard --logdir runs/.trackers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dynlora
from dynlora.integrations.tracker_files.import_runs import import_run
from dynlora.integrations.tracker_files.tensorboard import tensorboard_runs


def main(runs_dir: str = "runs", **settings: Any) -> tuple[Path, Path]:
    """Train a run that is written to TensorBoard, import it, and return the folders of both runs."""
    train = {"steps": 20, "batch_size": 8}
    run = dynlora.train({"train": train, "log": {"to": ["tensorboard"]}, **settings}, runs_dir, progress=False)
    print("tensorboard --logdir", Path(runs_dir, ".trackers"))
    [source] = [
        candidate
        for candidate in tensorboard_runs(Path(runs_dir, ".trackers"))
        if candidate.params["dynlora.run"] == run.id
    ]
    imported = import_run(source, Path(runs_dir))
    print("compare:", run.id, imported.id)
    return run.folder, Path(runs_dir, imported.id)


if __name__ == "__main__":
    main(*sys.argv[1:2])
