"""Kill runs at many places and see whether anything is lost: `python -m tests.faults.kill --count 200`.

Every trial starts a real run of a strategy on a tiny model, ends it at a drawn place (SIGKILL, SIGTERM, or a copy of
the folder made while it is written), resumes what is left, sometimes kills that too, and holds the result against a
run that nobody disturbed: the adapter's bytes are equal, and the store has the same steps, numbers, events, groups and
examples, each once. Prints a JSON report.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from tests.faults.forked import PAUSE_S, Child, Place, import_all_of
from tests.tiny import save_data, save_tiny, tiny_arguments

STEPS = 24
WAYS = ("kill", "terminate", "copy")
PLACES = tuple(Place)
VISITS = {
    Place.STARTING: 0,
    Place.STEP: STEPS,
    Place.REALLOCATION: STEPS,
    Place.CHECKPOINT: 7,
    Place.EVALUATION: 5,
    Place.TRANSACTION: 6,
    Place.ENDING: 1,
}
"""How often a run is at a place, about."""


@dataclass
class Trial:
    """One run that was disturbed.

    Attributes:
        strategy: its method.
        way: how it was ended.
        place: where it was when it was.
        again: whether its resume was killed too.
        kills: SIGKILLs that met it.
        outcome: `equal`, `nothing begun` (ended before a run folder existed, and left none), `ended before` (it was
            never there so often), `refused` (a copy that says it cannot be read), or what went wrong.
    """

    strategy: str
    way: str
    place: str
    again: bool
    outcome: str
    kills: int = 0


@dataclass
class Bench:
    """Where trials take place.

    Attributes:
        root: a folder of its own.
        model, data: of every run.
    """

    root: Path
    model: Path
    data: Path

    def arguments(self, strategy: str) -> list[str]:
        """Return the command of a run."""
        sets = [
            f"strategy.name={strategy}",
            f"train.steps={STEPS}",
            "adapter.dropout=0.1",
            "log.checkpoint_every=4",
            "adapter.rank=4",
        ]
        return ["train", *tiny_arguments(self.model, self.data, *sets), "--json"]

    def run(self, command: Sequence[str], runs_dir: Path) -> Child:
        """Start a command on a runs folder."""
        return Child([*command, "--runs-dir", str(runs_dir)], self.root / "log.txt")


def only_run(runs_dir: Path) -> Path | None:
    """Return the run of a folder, None when there is none."""
    folders = [path for path in runs_dir.glob("2*") if path.is_dir()]
    return folders[0] if folders else None


def adapter(folder: Path) -> bytes:
    """Return the learned tensors as they lie on the disk."""
    return (folder / "adapter" / "tensors.safetensors").read_bytes()


def what_is_wrong(folder: Path, whole: Path) -> str:
    """Return `equal`, or how a run differs from the one that nobody disturbed."""
    from dynlora.store.reader import RunReader

    if adapter(folder) != adapter(whole):
        return "the adapter differs"
    with RunReader(folder) as reader, RunReader(whole) as expected:
        if reader.signals().keys() != expected.signals().keys():
            return "other signals"
        for name in expected.signals():
            if not _same_signal(reader, expected, name):
                return f"{name}: its steps, values or roll-ups differ"
        for what, read in (("scalars", _numbers), ("events", _decisions), ("groups or examples", _held_out)):
            if read(reader) != read(expected):
                return f"the {what} differ"
    return "equal"


def _same_signal(values: Any, expected: Any, name: str) -> bool:
    """Say whether a signal has the same steps, values and roll-ups in two runs."""
    pairs = [*zip(values.signal(name), expected.signal(name), strict=True)]
    pairs += zip(asdict(values.bins(name, 8)).values(), asdict(expected.bins(name, 8)).values(), strict=True)
    return all(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True) for one, other in pairs)


def _held_out(reader: Any) -> tuple[Any, Any]:
    """Return the input groups and the examples of the probe set."""
    return reader.groups(), reader.examples()


def _numbers(reader: Any) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Return every recorded number but what a clock said, by name and split; a step twice is there twice."""
    return {
        (series.name, series.split): list(zip(map(int, series.steps), map(float, series.values), strict=True))
        for series in reader.scalars()
        if not series.name.endswith("_ms")
    }


def _decisions(reader: Any) -> list[tuple[int, str, str]]:
    """Return the events of training in order: step, kind and payload; how a run was ended is not one of them."""
    return [
        (event.step, event.kind, json.dumps([event.modules, event.payload], sort_keys=True))
        for event in reader.events()
        if event.kind in ("evaluate", "reallocate")
    ]


def tried(bench: Bench, strategy: str, way: str, place: Place, whole: Path, draw: np.random.Generator) -> Trial:
    """Carry out one trial."""
    runs_dir = Path(tempfile.mkdtemp(dir=bench.root))
    again = bool(draw.random() < 0.3)
    child = bench.run(bench.arguments(strategy), runs_dir)
    trial = Trial(strategy, way, place.name.lower(), again, "")
    try:
        trial.outcome = _disturbed(bench, child, runs_dir, trial, place, whole, draw)
    except Exception as error:  # a trial that fails is a finding, not the end of the others
        trial.outcome = f"{type(error).__name__}: {error}"
    finally:
        child.end()
    if trial.outcome in ("equal", "nothing begun", "ended before", "refused"):
        shutil.rmtree(runs_dir)
    return trial


def _disturbed(
    bench: Bench, child: Child, runs_dir: Path, trial: Trial, place: Place, whole: Path, draw: np.random.Generator
) -> str:
    """End a run at a place and say what became of it."""
    visit = int(draw.integers(1, VISITS[place] + 1)) if VISITS[place] else 0
    delay = float(draw.uniform(0, 0.4 if place is Place.STARTING else 0.004))
    if trial.way == "copy":
        return _copied(bench, child, runs_dir, trial, place, visit, whole, draw)
    number = signal.SIGKILL if trial.way == "kill" else signal.SIGTERM
    where = child.strike(place, visit, delay, number)
    if where is None:
        return "ended before"
    trial.place = where.name.lower()
    trial.kills += number == signal.SIGKILL
    code = child.wait()
    if code not in (-number, 0, 143 if trial.way == "terminate" else 0):
        return f"exit code {code} after {trial.way}"
    folder = only_run(runs_dir)
    if folder is None:
        return "nothing begun" if not _listed(runs_dir) else "a run is listed that has no folder"
    return _resumed(bench, folder, trial, whole, draw)


def _copied(
    bench: Bench,
    child: Child,
    runs_dir: Path,
    trial: Trial,
    place: Place,
    visit: int,
    whole: Path,
    draw: np.random.Generator,
) -> str:
    """Copy the folder while it is written, and resume the copy."""
    other = Path(tempfile.mkdtemp(dir=bench.root))
    board = child.board
    while (board.visits(place) < visit or only_run(runs_dir) is None) and child.poll() is None:
        time.sleep(PAUSE_S)
    folder = only_run(runs_dir)
    if folder is None:
        return "ended before"
    copy = other / folder.name
    for _ in range(2):  # what goes away while the folder is copied is left out, as any tool would
        with suppress(shutil.Error):
            shutil.copytree(folder, copy, dirs_exist_ok=True)
    child.end()
    problem = _readable(copy)
    if problem is not None:
        return problem
    log = bench.root / "log.txt"
    before = log.stat().st_size
    outcome = _resumed(bench, copy, trial, whole, draw, "--force")
    if outcome != "equal" and b"its two files are from different times" in log.read_bytes()[before:]:
        outcome = "refused"
    if outcome in ("equal", "refused"):
        shutil.rmtree(other)
    return outcome


def _readable(folder: Path) -> str | None:
    """Return None when a copy can be read, `refused` when it says in a sentence that it cannot."""
    from dynlora.errors import DynloraError
    from dynlora.store.summary import run_summary

    try:
        run_summary(folder)
    except DynloraError:
        return "refused"
    return None


def _resumed(bench: Bench, folder: Path, trial: Trial, whole: Path, draw: np.random.Generator, *more: str) -> str:
    """Resume a run to its end, killing the first attempt where asked for, and compare it."""
    from dynlora.store.summary import run_summary

    status = run_summary(folder).status
    if status == "finished":
        return what_is_wrong(folder, whole)
    command = ["resume", folder.name, "--json", *more]
    if trial.again:
        second = bench.run(command, folder.parent)
        struck = second.strike(Place.STEP, int(draw.integers(1, STEPS)), float(draw.uniform(0, 0.003)))
        trial.kills += struck is not None
        second.wait()
        if run_summary(folder).status == "finished":
            return what_is_wrong(folder, whole)
    code = bench.run(command, folder.parent).wait()
    if code != 0:
        return f"resume ended with {code} (status was {status})"
    return what_is_wrong(folder, whole)


def _listed(runs_dir: Path) -> bool:
    """Say whether a folder of runs lists any."""
    from dynlora.store.catalogue import run_rows

    return bool(run_rows(runs_dir))


def campaign(bench: Bench, strategies: Sequence[str], count: int, kills: int, seed: int) -> list[Trial]:
    """Carry out `count` trials or more, until `kills` SIGKILLs have met: all strategies, ways and places in turn."""
    draw = np.random.default_rng(seed)
    whole: dict[str, Path] = {}
    trials = []
    plan = [(way, place) for place in PLACES for way in WAYS if way != "copy" or place is not Place.STARTING]
    number = -1
    while sum(trial.kills for trial in trials) < kills or number + 1 < count:
        number += 1
        turn = number + number // len(strategies)  # else the same strategy would always meet the same place
        strategy, (way, place) = strategies[number % len(strategies)], plan[turn % len(plan)]
        if strategy not in whole:
            whole[strategy] = _undisturbed(bench, strategy)
        trials.append(tried(bench, strategy, way, place, whole[strategy], draw))
        sys.stderr.write(f"{number + 1} {trials[-1]}\n")
    return trials


def _undisturbed(bench: Bench, strategy: str) -> Path:
    """Return a run that nobody disturbed."""
    runs_dir = bench.root / f"whole-{strategy}"
    code = bench.run(bench.arguments(strategy), runs_dir).wait()
    folder = only_run(runs_dir)
    if code != 0 or folder is None:
        raise RuntimeError(f"{strategy}: an undisturbed run ended with {code}; see {bench.root / 'log.txt'}")
    return folder


def report(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return counts by way and place, and every trial that lost something."""
    good = ("equal", "nothing begun", "ended before", "refused")
    table = Counter((trial.way, trial.place, trial.outcome) for trial in trials)
    return {
        "tried": sum(trial.outcome not in ("ended before", "refused") for trial in trials),
        "kills": sum(trial.kills for trial in trials),
        "refused": sum(trial.outcome == "refused" for trial in trials),
        "counts": [{"way": w, "place": p, "outcome": o, "count": n} for (w, p, o), n in sorted(table.items())],
        "strategies": dict(Counter(trial.strategy for trial in trials)),
        "lost": [asdict(trial) for trial in trials if trial.outcome not in good],
    }


def main() -> None:
    """Run a campaign and print its report."""
    from dynlora.strategies import registry

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--kills", type=int, default=0, help="go on until so many SIGKILLs have met a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategies", default="", help="names, separated by commas; all that are registered")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="dynlora-faults-"))
    for name in ("model", "data"):
        (root / name).mkdir()
    bench = Bench(root, save_tiny("bert", root / "model"), save_data(root / "data"))
    import_all_of(bench.arguments("dynamic") + ["--runs-dir", str(root / "first")], root / "log.txt")
    names = arguments.strategies.split(",") if arguments.strategies else sorted(registry())
    failures = report(campaign(bench, names, arguments.count, arguments.kills, arguments.seed))
    sys.stdout.write(json.dumps(failures, indent=1) + "\n")
    if not failures["lost"]:
        shutil.rmtree(root)
    sys.exit(1 if failures["lost"] else 0)


if __name__ == "__main__":
    main()
