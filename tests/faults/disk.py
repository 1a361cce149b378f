"""Disks that are full, read-only or gone, on a small file system of its own: `python -m tests.faults.disk`.

Every trial trains a real run on a tmpfs. Prints a JSON report; `skipped` says why where no file system can be mounted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.faults.forked import Child, import_all_of
from tests.faults.kill import Bench, only_run, what_is_wrong
from tests.tiny import save_data, save_tiny

SIZE = "24m"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a small file system at a folder for the block.

    Raises:
        OSError: when that is not allowed here.
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.decode().strip() or "mount failed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path, leave: int = 0) -> Path:
    """Fill a file system but for `leave` bytes, and return the file that does."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while (free := shutil.disk_usage(folder).free - leave) > 0:
            try:
                file.write(b"\0" * min(free, 1 << 16))
                file.flush()
            except OSError:
                break
    return ballast


def at_step(runs_dir: Path, step: int, child: Child) -> Path:
    """Return the run once its store shows a step."""
    from dynlora.store.reader import RunReader

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and child.poll() is None:
        folder = only_run(runs_dir)
        if folder is not None:
            with RunReader(folder) as reader:
                if reader.last_step() >= step:
                    return folder
        time.sleep(0.002)
    raise AssertionError(f"step {step} never came; the run ended with {child.code}")


def status_of(folder: Path) -> dict[str, Any]:
    """Return status and error of a run."""
    from dynlora.store.summary import run_summary

    summary = run_summary(folder)
    return {"status": summary.status, "error": summary.error}


def good_checkpoint(folder: Path) -> bool:
    """Say whether a whole checkpoint can be read, and nothing half written lies beside it."""
    from dynlora.engine.loop.checkpoint import read_checkpoint

    state = read_checkpoint(folder / "checkpoint")
    return state["step"] >= 0 and not list(folder.glob(".*.new"))


def full_then_room(bench: Bench, disk: Path, whole: Path) -> str:
    """Fill the disk in the middle; make room once the run has ended; resume: equal to a run that had room all along."""
    child = bench.run(bench.arguments("dynamic"), disk)
    folder = at_step(disk, 6, child)
    ballast = fill(disk)
    code = child.wait()
    if code not in (0, 1):
        return f"ended with {code}"
    ended = status_of(folder)
    if not good_checkpoint(folder):
        return "no good checkpoint is left"
    ballast.unlink()
    if ended["status"] == "finished":
        return "it finished though nothing could be written"
    again = bench.run(["resume", folder.name, "--json"], disk).wait()
    return what_is_wrong(folder, whole) if again == 0 else f"resume ended with {again}"


def full_for_a_while(bench: Bench, disk: Path, whole: Path) -> str:
    """Fill the disk and make room while the run goes on: it finishes, and all is recorded."""
    child = bench.run([*bench.arguments("lora"), "--set", "train.steps=400"], disk)
    folder = at_step(disk, 6, child)
    ballast = fill(disk)
    time.sleep(0.5)
    ballast.unlink()
    code = child.wait()
    if code != 0:
        return f"ended with {code}: {status_of(folder)}"
    from dynlora.store.reader import RunReader

    with RunReader(folder) as reader:
        steps, _ = reader.signal("rank")
    return "equal" if list(steps) == list(range(401)) else "steps are missing"


def read_only(bench: Bench, disk: Path, whole: Path) -> str:
    """Make the file system read-only in the middle: the run ends with a sentence and can go on afterwards."""
    child = bench.run([*bench.arguments("dynamic")], disk)
    folder = at_step(disk, 6, child)
    child.stop()
    done = subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True, check=False)
    if done.returncode:  # busy: files are open for writing, which a kernel may refuse to cut off
        child.go_on()
        child.wait()
        return "not tried: the kernel refused"
    child.go_on()
    code = child.wait()
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    if code not in (0, 1):
        return f"ended with {code}"
    again = bench.run(["resume", folder.name, "--json"], disk).wait()
    return what_is_wrong(folder, whole) if again == 0 else f"resume ended with {again}"


def removed(bench: Bench, disk: Path, whole: Path) -> str:
    """Remove the folder in the middle: the run ends with a sentence and does not bring it back."""
    log = bench.root / "log.txt"
    before = log.stat().st_size
    child = bench.run([*bench.arguments("dynamic"), "--set", "train.steps=200"], disk)
    folder = at_step(disk, 6, child)
    shutil.rmtree(folder)
    code = child.wait()
    if code not in (0, 1):
        return f"ended with {code}"
    if folder.exists():
        return "the folder came back"
    log_text = log.read_bytes()[before:].decode("utf-8", "replace")
    is_named = "its folder was moved or removed during training" in log_text
    return "equal" if is_named else f"it did not say why it ended: {log_text[-300:]}"


def no_room_to_begin(bench: Bench, disk: Path, whole: Path) -> str:
    """Start on a full disk: a sentence, and nothing half made is listed."""
    ballast = fill(disk)
    child = bench.run(bench.arguments("dynamic"), disk)
    code = child.wait()
    ballast.unlink()
    last_line = (bench.root / "log.txt").read_text().strip().splitlines()[-1]
    if code != 2 or "a new run in " not in last_line or "cannot be written" not in last_line:
        return f"ended with {code}: {last_line[:200]}"
    from dynlora.store.catalogue import run_rows

    listed = [row["status"] for row in run_rows(disk)]
    return "equal" if not listed else f"listed: {listed}"


def read_only_from_the_start(bench: Bench, disk: Path, whole: Path) -> str:
    """Look at a run on a file system that is only to be read, and try to change it: it is shown, and sentences."""
    folder = disk / whole.name
    shutil.copytree(whole, folder)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for command in (["runs", "--json"], ["show", whole.name, "--json"], ["signals", whole.name, "--signal", "rank"]):
        code, output = _said(bench, command, disk)
        if code != 0:
            return f"{command[0]} ended with {code}: {output}"
    changes = (
        ["tag", whole.name, "--add", "seen"],
        ["resume", whole.name],
        ["delete", whole.name],
        bench.arguments("lora"),
    )
    for command in changes:
        code, output = _said(bench, command, disk)
        if code not in (1, 2) or "Traceback" in output or not output.strip():
            return f"{command[0]} ended with {code}: {output}"
    return what_is_wrong(folder, whole)


def _said(bench: Bench, command: list[str], disk: Path) -> tuple[int | None, str]:
    """Run a command to its end and return its exit code and the last it said."""
    log = bench.root / "log.txt"
    before = log.stat().st_size
    code = bench.run(command, disk).wait()
    return code, log.read_bytes()[before:].decode("utf-8", "replace")[-300:]


TRIALS: dict[str, Callable[[Bench, Path, Path], str]] = {
    "full, then room": full_then_room,
    "full for a while": full_for_a_while,
    "read-only": read_only,
    "read-only from the start": read_only_from_the_start,
    "folder removed": removed,
    "no room to begin": no_room_to_begin,
}


def main() -> None:
    """Carry out every trial, or those that are named, and print the report."""
    import torch

    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="dynlora-disk-"))
    for name in ("model", "data"):
        (root / name).mkdir()
    bench = Bench(root, save_tiny("bert", root / "model"), save_data(root / "data"))
    import_all_of(bench.arguments("dynamic") + ["--runs-dir", str(root / "first")], root / "log.txt")
    whole = root / "whole"
    bench.run(bench.arguments("dynamic"), whole).wait()
    reference = only_run(whole)
    outcomes: dict[str, str] = {}
    names = sys.argv[1:] or list(TRIALS)
    for name, trial in ((name, TRIALS[name]) for name in names):
        try:
            with small_disk(root / name.replace(" ", "-")) as disk:
                outcomes[name] = trial(bench, disk, reference or whole)
        except OSError as error:
            outcomes[name] = f"not tried: {error}"
        except AssertionError as error:
            outcomes[name] = str(error)
    sys.stdout.write(json.dumps(outcomes, indent=1) + "\n")
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
