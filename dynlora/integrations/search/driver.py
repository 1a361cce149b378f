"""The loop of a search: a trial is asked for, becomes a queued run, is watched, and its result goes into the study.

All that matters lies in the runs folder: the study's file, and the runs. A search that ended anywhere, by Ctrl-C or by
a power cut, continues from there: a run that went on meanwhile is watched to its end, one that was interrupted resumes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dynlora.config_files import parse_value, set_key
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RunNotFoundError, TrainingDiverged
from dynlora.jobs import helper_job, launch, quick_launch
from dynlora.jobs.queue import OPEN, read_status, wake
from dynlora.jobs.sweep import Request, check_once
from dynlora.safe_files import read_plain
from dynlora.store.notes import annotate_notes
from dynlora.store.queries import scalars_frame
from dynlora.store.schema import run_folder
from dynlora.store.summary import failed_with, run_summary

RANDOM_TRIALS = 5
"""Trials with random values before the sampler models, and unpruned trials before the pruner stops any."""

MAX_BYTES = 64_000_000
"""Largest file of a study that is read."""


def optuna() -> ModuleType:
    """Return Optuna, quiet.

    Raises:
        ConfigError: when it is not installed.
    """
    try:
        import optuna as module
    except ImportError:
        raise ConfigError("--search: needs Optuna, which is not installed; pip install 'dynlora[search]'") from None
    module.logging.set_verbosity(module.logging.WARNING)
    return module


def opened(path: Path, *, sampler: str, pruner: str, direction: str, seed: int) -> Any:
    """Return the study in a file, made now where there is none.

    Args:
        path: its file.
        sampler: tpe (Parzen estimator) or random (the control).
        pruner: median (stops what is below that of earlier trials at the same step) or none.
        direction: minimize or maximize.
        seed: of the sampler; the number of trials is added to it, so that a continued study draws other values.

    Raises:
        ConfigError: when Optuna is missing, or the study goes the other way.
        CorruptRunError: when the file holds no study.
    """
    package = optuna()
    check_file(path)
    path.with_name(path.name + ".lock").unlink(
        missing_ok=True
    )  # of a process that was killed: dynlora's own lock is held
    storage = package.storages.JournalStorage(
        package.storages.journal.JournalFileBackend(
            str(path), lock_obj=package.storages.journal.JournalFileOpenLock(str(path))
        )
    )
    study = package.create_study(storage=storage, study_name=path.stem, direction=direction, load_if_exists=True)
    if study.direction.name.lower() != direction:
        raise ConfigError(
            f"--objective: study {path.stem} is to {study.direction.name.lower()}; keep its objective, or name another "
            "study with --study"
        )
    study.sampler = _sampler(package, sampler, seed + 1000 * len(study.trials))
    study.pruner = package.pruners.NopPruner() if pruner == "none" else package.pruners.MedianPruner(RANDOM_TRIALS, 0)
    return study


def _sampler(package: ModuleType, name: str, seed: int) -> Any:
    """Return a sampler by name."""
    if name == "random":
        return package.samplers.RandomSampler(seed=seed)
    return package.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS, multivariate=False)


def check_file(path: Path) -> None:
    """Refuse a file that Optuna did not write as a journal, and mend a last line that was cut off.

    Raises:
        CorruptRunError: when the file is a link, a folder, too large or no journal.
    """
    if not path.exists() and not path.is_symlink():
        return
    text = read_plain(path, MAX_BYTES)
    if text is None:
        raise CorruptRunError(f"study {path.stem}: its file is not a plain file or too large; remove {path.name}")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # killed while it was appended: what it says did not happen
        with path.open("r+b") as file:
            file.truncate(len("".join(lines[:-1]).encode()))
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not _is_entry(line):
            raise CorruptRunError(f"study {path.stem}: line {number} of its file is not an entry; remove {path.name}")


def _is_entry(line: str) -> bool:
    """Say whether a line is an entry of a journal."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and isinstance(entry.get("op_code"), int)


RANGE = re.compile(r"\s*([^\s,:]+?)\s*\.\.\s*([^\s,:]+?)\s*(:log)?\s*")
_BEGINS_AS_RANGE = re.compile(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\.\.", re.IGNORECASE)
"""A number and two points: a path of a list may have the points, and no number before them."""

EXAMPLES = "a range 1e-4..1e-2:log, 0.0..0.3 or 1..16, or a list a,b,c"

MOST_VALUES = 100
"""Most values of a list."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: least value.
        high: greatest value.
        whole: whether they are whole numbers.
        logarithmic: whether their logarithm is drawn evenly, so that each decade gets as many trials.
    """

    low: float
    high: float
    whole: bool
    logarithmic: bool

    def holds(self, value: Any) -> bool:
        """Say whether a value lies in the range."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and (not self.whole or float(value).is_integer())

    def suggest(self, trial: Any, key: str) -> Any:
        """Return the value that a trial of Optuna is given."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.logarithmic)
        return trial.suggest_float(key, self.low, self.high, log=self.logarithmic)

    def text(self) -> str:
        """Return the range as it is written."""
        ends = [f"{int(end)}" if self.whole else f"{end:g}" for end in (self.low, self.high)]
        return "..".join(ends) + (":log" if self.logarithmic else "")


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        values: texts, numbers, booleans or None.
    """

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Say whether a value is one of them."""
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.values)

    def suggest(self, trial: Any, key: str) -> Any:
        """Return the value that a trial of Optuna is given."""
        return trial.suggest_categorical(key, list(self.values))

    def text(self) -> str:
        """Return the list as it is written."""
        return ",".join(map(str, self.values))


Space = Mapping[str, Range | Choice]
"""What is searched, by dotted key of a setting."""


def space_of(listed: Mapping[str, str]) -> dict[str, Range | Choice]:
    """Return what is searched.

    Args:
        listed: dotted key to text, such as `1e-4..1e-2:log`.

    Raises:
        ConfigError: where nothing is searched, or a text is neither a range nor a list.
    """
    space = {key: _one(key, text) for key, text in listed.items()}
    if not any(isinstance(one, Range) or len(one.values) > 1 for one in space.values()):
        raise ConfigError(f"--search: no setting varies; give one or more as --set KEY=VALUES, {EXAMPLES}")
    return space


def _one(key: str, text: str) -> Range | Choice:
    """Return what one text stands for."""
    if match := RANGE.fullmatch(text):
        return _range(key, text, parse_value(match[1]), parse_value(match[2]), logarithmic=match[3] is not None)
    if _BEGINS_AS_RANGE.match(text):
        raise ConfigError(f"{key}={text[:60]}: is not a range that can be read; give {EXAMPLES}")
    whole = parse_value(text)
    if isinstance(whole, list | dict):
        return Choice((whole,))  # such as adapter.targets=[query, value]: one value, the same in all trials
    values = tuple(parse_value(part.strip()) for part in text.split(","))
    if len(values) > MOST_VALUES:
        raise ConfigError(f"{key}={text[:60]}: must be {EXAMPLES}, of at most {MOST_VALUES} values")
    check_once(key, values)
    return Choice(values)


def _range(key: str, text: str, low: Any, high: Any, *, logarithmic: bool) -> Range:
    """Return a range after a look at its ends."""
    ends = (low, high)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in ends):
        raise ConfigError(f"{key}={text}: the ends of a range must be numbers, such as 1e-4..1e-2:log")
    if low == high:
        raise ConfigError(f"{key}={text}: a range must have two ends; give one value, {key}={low}, or widen it")
    if not low < high:
        raise ConfigError(f"{key}={text}: a range must begin with its lesser end; write {high}..{low}")
    if logarithmic and low <= 0:
        raise ConfigError(f"{key}={text}: a logarithmic range must begin above 0; raise its lesser end, or drop :log")
    return Range(float(low), float(high), all(isinstance(end, int) for end in ends), logarithmic)


RESUMES = 2
"""How often a run whose process was killed is resumed before its trial counts as failed."""

ATTEMPTS = 20
"""How often a run that was deleted is made again in a study."""

LOOK_S = 0.3
"""Seconds between two looks at a run."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Attributes:
        name: of the study; its runs have it as a tag and in their names.
        base: configuration of every run, as plain values.
        space: what varies.
        direction: minimize or maximize.
        request: what is asked for: trials, objective, sampler and pruner.
    """

    name: str
    base: Mapping[str, Any]
    space: Space
    direction: str
    request: Request

    def config(self, values: Mapping[str, Any], title: str, seed: int | None = None) -> dict[str, Any]:
        """Return the configuration of a run with these values.

        Args:
            values: by dotted key.
            title: the run's name, after that of the study.
            seed: of the run; None keeps that of the base.
        """
        config = copy.deepcopy(dict(self.base))
        for key, value in {**values, **({} if seed is None else {"seed": seed})}.items():
            set_key(config, key, value)
        return {**config, "name": f"{self.name} {title}"[:500]}


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        run: its id.
        status: of the run.
        value: of the objective at its last evaluation; None without one.
        pruned: whether the pruner stopped it.
        why: it failed, in a sentence; empty otherwise.
        metrics: names of what its last evaluation measured.
        has_diverged: it failed because its loss was no number any more.
    """

    run: str
    status: str
    value: float | None
    pruned: bool = False
    why: str = ""
    metrics: tuple[str, ...] = ()
    has_diverged: bool = False


class Driver:
    """Runs the trials of a search, one after the other."""

    def __init__(self, search: Search, runs_dir: Path, file: Path, say: Say) -> None:
        """Open the study.

        Args:
            search: what is searched.
            runs_dir: folder of the runs.
            file: of the study.
            say: told a line for each trial.

        Raises:
            ConfigError: when Optuna is missing, or the study has another objective or other settings.
            CorruptRunError: when the file holds no study.
        """
        self.search, self.runs_dir, self.say = search, runs_dir, say
        how = {"sampler": search.request.sampler, "pruner": search.request.pruner, "direction": search.direction}
        self.study = opened(file, **how, seed=int(search.base.get("seed") or 0))
        self._same("objective", search.request.objective)
        self._same("settings", plain_text(search.base))
        self._same("ranges", plain_text({key: one.text() for key, one in search.space.items()}))
        if "id" not in self.study.user_attrs:
            self.study.set_user_attr("id", secrets.token_hex(8))

    def _same(self, what: str, value: str) -> None:
        """Refuse to continue a study with something else than it began with; a new one keeps it.

        Raises:
            ConfigError: when it differs.
        """
        known = self.study.user_attrs.get(what, value)
        if known != value:
            raise ConfigError(
                f"--study {self.search.name}: this study has other {what} ({known[:200]}); keep them, or name another "
                "study with --study"
            )
        self.study.set_user_attr(what, value)

    def run(self) -> None:
        """Run trials until there are as many as asked for.

        Raises:
            DynloraError: when the first trial of all cannot be queued: what was asked for breaks a rule.
        """
        states = optuna().trial.TrialState
        for frozen in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            self._finish(optuna().trial.Trial(self.study, frozen._trial_id))
        while len(self.study.trials) < self.search.request.trials:
            self._finish(self.study.ask())

    def other(self, values: Mapping[str, Any], title: str, seed: int | None = None) -> Ended:
        """Run these values outside of the study, once in the life of the study, and return how that ended."""
        run_id = self._queued(self.search.config(values, title, seed), title)
        return self._watched(run_id, lambda _step, _value: False)

    def _finish(self, trial: Any) -> None:
        """Run a trial to its end and tell the study."""
        states, number = optuna().trial.TrialState, trial.number
        values = {key: one.suggest(trial, key) for key, one in self.search.space.items()}
        try:
            run_id = self._queued(self.search.config(values, f"trial {number}"), f"trial {number}")
        except DynloraError as error:
            self.study.tell(trial, state=states.FAIL)
            if number == 0:
                raise
            self.tell(f"trial {number + 1} of {self.search.request.trials} failed: {error}")
            return
        trial.set_user_attr("run", run_id)
        reported = set(self.study.trials[number].intermediate_values)

        def is_poor(step: int, value: float) -> bool:
            """Report an evaluation; say whether the pruner has seen enough."""
            if step not in reported:
                trial.report(value, step)
            return trial.should_prune()

        ended = self._watched(run_id, is_poor)
        trial.set_user_attr("status", "stopped early" if ended.pruned else ended.status)
        if ended.status == "finished" and ended.value is not None:
            self.study.tell(trial, ended.value)
        else:  # one that diverged is as bad as can be: the sampler learns more from that than from nothing
            is_poor_one = ended.status == "stopped" or ended.has_diverged
            self.study.tell(trial, state=states.PRUNED if is_poor_one else states.FAIL)
        self.tell(self._line(number, ended))

    def _queued(self, config: Mapping[str, Any], title: str) -> str:
        """Put a run into the queue, once for a study and a configuration, and return its id; a deleted one again."""
        identity = f"{self.study.user_attrs['id']} {title} {plain_text(config)}"
        run_id = ""
        for attempt in range(ATTEMPTS):
            key = hashlib.sha256(f"{identity} {attempt}".encode()).hexdigest()[:40]
            run_id = quick_launch.start(config, self.runs_dir, key=key, checked=True).id
            if run_folder(self.runs_dir, run_id, must_exist=False).is_dir():
                break
        annotate_notes(run_folder(self.runs_dir, run_id), add=[self.search.name])
        return run_id

    def _watched(self, run_id: str, is_poor: Callable[[int, float], bool]) -> Ended:
        """Wait for a run to end; stop it when it is poor at an evaluation.

        Args:
            run_id: of the run.
            is_poor: given step and value of each new evaluation before the last.
        """
        try:
            return self._watched_there(run_id, is_poor)
        except RunNotFoundError:
            return Ended(run_id, "removed", None)

    def _watched_there(self, run_id: str, is_poor: Callable[[int, float], bool]) -> Ended:
        folder = run_folder(self.runs_dir, run_id)
        seen, is_pruned, resumes = 0, False, 0
        while True:
            wake(self.runs_dir)
            status = read_status(folder).status
            values = scalars_frame(folder, self.search.request.objective, "validation")
            poor = [is_poor(int(step), float(value)) for step, value in values[["step", "value"]].to_numpy()[seen:]]
            seen += len(poor)
            if any(poor) and status == "running" and not is_pruned:
                is_pruned = True
                with suppress(ConfigError):  # it ended in this moment
                    launch.stop(self.runs_dir, run_id)
            elif status == "interrupted" and resumes < RESUMES:
                resumes += 1
                launch.resume(self.runs_dir, run_id)
            elif status not in OPEN:
                summary = run_summary(folder)
                metrics, why = summary.metrics, str(summary.error or "")
                pruned = is_pruned and status == "stopped"
                has_diverged = status == "failed" and failed_with(folder) == TrainingDiverged.__name__
                value = metrics.get(self.search.request.objective)
                return Ended(run_id, status, value, pruned, why, tuple(metrics), has_diverged)
            time.sleep(LOOK_S)

    def tell(self, line: str) -> None:
        """Say how far the search is, and what the last run came to."""
        trials = self.study.get_trials(deepcopy=False)
        done = sum(trial.state.is_finished() for trial in trials)
        self.say(f"{self.search.name}: {line}")
        helper_job.tell(min(done, self.search.request.trials), self.search.request.trials, line)

    def _line(self, number: int, ended: Ended) -> str:
        """Return the line about a trial."""
        value = "no value" if ended.value is None else f"{self.search.request.objective} {ended.value:.4f}"
        how = " (stopped early)" if ended.pruned else "" if ended.status == "finished" else f" ({ended.status})"
        best = best_trial(self.study)
        leader = "" if best is None else f"; best {best.value:.4f}, trial {best.number + 1}"
        return f"trial {number + 1} of {self.search.request.trials}: {value}{how}{leader}"


def plain_text(values: Mapping[str, Any]) -> str:
    """Return settings as one line of JSON, the same for the same settings."""
    return json.dumps(values, sort_keys=True, default=str)


def best_trial(study: Any) -> Any | None:
    """Return the best trial that finished, None where none did."""
    done = study.get_trials(deepcopy=False, states=(optuna().trial.TrialState.COMPLETE,))
    return study.best_trial if done else None
