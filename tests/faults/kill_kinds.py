"""Kill decodes and recycles at chosen calls and see whether anything is lost: `python -m tests.faults.kill_kinds`.

A trial carries out a real command in a forked process that ends itself with SIGKILL at the n-th call of a function.
What is left is resumed, and killed again where that is asked for; at last it must equal, bit for bit, what nobody
disturbed. Prints a JSON object: what became of each trial, `equal` or what differs.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from dynlora.contracts.tiny_runs import recorded
from tests.faults.forked import Board, Child, import_all_of

ROOT = Path(__file__).resolve().parents[2]


def campaign(folder: Path, trials: Sequence[str], command: Sequence[str]) -> dict[str, str]:
    """Carry out trials in a process of its own and return what became of each.

    Args:
        folder: an empty one.
        trials: each a call, such as `dynlora.kinds.decode.work.run:_solved@3`, or several with commas between: the
            first ends the command, each other one a resume.
        command: of dynlora.
    """
    trial_command = [sys.executable, "-m", "tests.faults.kill_kinds", "--folder", str(folder), *trials, "--", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(trial_command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)


def dying(call: str) -> Callable[[Board], None]:
    """Return what lets a process end at a call: `module:name@n`, or `module:Class.name@n`, at its n-th time."""
    place, _, number = call.rpartition("@")
    module, _, path = place.partition(":")

    def watch(_: Board) -> None:
        *owners, name = path.split(".")
        owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
        function, times = getattr(owner, name), itertools.count(1)

        @functools.wraps(function)
        def dies(*arguments: Any, **keywords: Any) -> Any:
            if next(times) == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        setattr(owner, name, dies)

    return watch


def tried(trial: str, runs_dir: Path, command: Sequence[str], log: Path, whole: dict[str, Any]) -> str:
    """Carry out one trial and return `equal`, or what is wrong."""
    arguments = [*command, "--runs-dir", str(runs_dir)]
    for call in trial.split(","):
        code = Child(arguments, log, dying(call)).wait()
        if code != -signal.SIGKILL:
            return f"{call}: ended with {code} before that"
        arguments = ["resume", only_run(runs_dir).name, "--runs-dir", str(runs_dir)]
    if recorded(only_run(runs_dir))["status"][0] != "finished":
        code = Child(arguments, log, lambda _: None).wait()
        if code != 0:
            return f"the resume ended with {code}"
    record = recorded(only_run(runs_dir))
    return next((f"{key} differs" for key in whole if record[key] != whole[key]), "equal")


def only_run(runs_dir: Path) -> Path:
    """Return the run of a folder."""
    (folder,) = (path for path in runs_dir.glob("2*") if path.is_dir())
    return folder


def main() -> None:
    """Carry out the trials and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("trials", nargs="+")
    end = sys.argv.index("--")
    arguments, command = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    import torch

    torch.set_num_threads(1)
    for trial in arguments.trials:
        for call in trial.split(","):
            importlib.import_module(call.partition(":")[0])
    log, first = arguments.folder / "log.txt", arguments.folder / "whole"
    import_all_of([*command, "--runs-dir", str(first)], log)
    whole = recorded(only_run(first))
    if whole["status"][0] != "finished":
        sys.exit(log.read_text("utf-8"))
    records = {
        trial: tried(trial, arguments.folder / str(number), command, log, whole)
        for number, trial in enumerate(arguments.trials)
    }
    sys.stdout.write(json.dumps(records) + "\n")
    if set(records.values()) != {"equal"}:
        sys.stderr.write(log.read_text("utf-8")[-3000:])


if __name__ == "__main__":
    main()
