"""A run is sent to a place, opened there without a copy, and fetched again.

Run it: python examples/remote.py, or with the id of a run and an address: python examples/remote.py ID s3://bucket/runs
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import dynlora
from dynlora.remote.place import Place
from dynlora.remote.sync import pull, push
from dynlora.server.serve import sample_runs_dir


def main(folder: Path, url: str, here: Path) -> Path:
    """Send a run, look at it where it is, and return the folder of a copy."""
    place = Place(url)
    sent = push(folder, place)
    print(f"{sent.status}: {sent.moved_bytes / 1e6:.1f} MB")
    print(f"again: {push(folder, place).status}")
    run = dynlora.open_run(f"{url}/{folder.name}" if "://" in url else f"file://{Path(url).resolve()}/{folder.name}")
    print(run, "accuracy", run.summary["metrics"].get("accuracy"))
    print(run.signal("rank").tail(1).T.head())
    return here / pull(place, folder.name, here).id


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as spare:
        if len(sys.argv) > 2:
            print("fetched:", main(Path("runs") / sys.argv[1], sys.argv[2], Path(spare) / "here"))
        else:
            sample = next(path for path in sorted(sample_runs_dir().iterdir()) if path.is_dir())
            print("fetched:", main(sample, f"{spare}/there", Path(spare) / "here"))
