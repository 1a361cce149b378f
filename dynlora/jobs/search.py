"""A search that is asked for from a page: a process of its own, which continues when the page is left.

It runs `dynlora sweep --search`; all of it lies in the folder `.studies` of the runs folder: the study, the
configuration it began with, what it said, and its process.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynlora.config_files import yaml_text
from dynlora.errors import ConfigError, storing
from dynlora.jobs.spawn import Folder, end_child, locked, own_folder, reap, runs_root, spawn_detached
from dynlora.jobs.sweep import SECTION
from dynlora.safe_files import tail, write_text
from dynlora.store.process import ProcessNote

STUDIES_DIR = ".studies"
"""Folder of a runs folder that holds studies."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
TRIAL = re.compile(r"^[\w.-]+: trial (\d+) of (\d+)", re.MULTILINE)
PROGRESS = re.compile(r"[\w.-]+: (trial \d+ of|seed \d+:|default:) ")
MOST_TRIALS, MOST_SEEDS = 1000, 50
"""Of one study: trials, and new seeds that confirm its best."""

SHOWN = 20
"""Newest searches that are listed."""


@dataclass(frozen=True)
class SearchState:
    """How a search stands.

    Attributes:
        name: of the study.
        state: running, ended or failed.
        done, of: trials; 0 of 0 before the first.
        said: what it printed last: a conclusion when it ended, the reason when it failed.
    """

    name: str
    state: str
    done: int
    of: int
    said: str


def start(config: Mapping[str, Any], lists: Mapping[str, str], options: Mapping[str, Any], runs_dir: Folder) -> str:
    """Start a search, or continue the study of that name, and return the name.

    Args:
        config: settings that all runs share, as plain values.
        lists: ranges and lists by dotted key, as text.
        options: of the command, by its name without dashes; `study` names it.
        runs_dir: folder of the runs; made when missing.

    Raises:
        ConfigError: when the name breaks a rule, or such a search runs already.
        StorageError: when the disk does not take the request.
        OSError: when no process can be started.
    """
    name = str(options["study"])
    if not NAME.fullmatch(name):
        raise ConfigError(f"study={name[:60]}: must be 1 to 40 letters, digits and _ . -, such as rates-1; change it")
    root = runs_root(runs_dir, make=True)
    folder = own_folder(root, STUDIES_DIR)
    with locked(folder / "ask.lock", 10.0):
        if _state(folder, name).state == "running":
            raise ConfigError(f"study={name}: this search runs already; wait for it, or name another one")
        request, log = folder / f"{name}.yaml", folder / f"{name}.log"
        with storing("the configuration of the search"):
            write_text(request, yaml_text({**config, SECTION: dict(lists)}))
        log.unlink(missing_ok=True)
        pid = spawn_detached(command(request, options, root), log)
        with storing("the number of the process that searches"):
            ProcessNote.of_pid(pid).write(folder / f"{name}.pid")
    return name


def command(request: Path, options: Mapping[str, Any], runs_dir: Path) -> list[str]:
    """Return the command of a search as an argument list."""
    found = [sys.executable, "-m", "dynlora", "sweep", "--search", "--config", str(request)]
    return [*found, *arguments(options), "--runs-dir", str(runs_dir)]


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Return options as arguments: a switch that is on by its name alone, what is empty not at all."""
    found: list[str] = []
    for name, value in options.items():
        if value is True:
            found.append(f"--{name}")
        elif value is not None and value is not False and value != "":
            found += [f"--{name}", str(value)]
    return found


def searches(runs_dir: Folder) -> list[SearchState]:
    """Return the newest searches that pages started, running ones first."""
    reap()
    folder = runs_root(runs_dir) / STUDIES_DIR
    if not folder.is_dir() or folder.is_symlink():
        return []
    files = sorted(folder.glob("*.pid"), key=lambda file: -file.lstat().st_mtime)[:SHOWN]
    found = [_state(folder, file.stem) for file in files if NAME.fullmatch(file.stem)]
    return sorted(found, key=lambda one: one.state != "running")


def cancel(runs_dir: Folder, name: str) -> None:
    """End the process of a search; a run that trains continues, and so does the study under the same name."""
    folder = runs_root(runs_dir) / STUDIES_DIR
    note = ProcessNote.at(folder / f"{name}.pid")
    if NAME.fullmatch(name) and note.pid is not None and _state(folder, name).state == "running":
        end_child(note.pid)


def _state(folder: Path, name: str) -> SearchState:
    """Return what the files of a search say."""
    note, said = ProcessNote.at(folder / f"{name}.pid"), tail(folder / f"{name}.log")
    trials = TRIAL.findall(said)
    done, of = map(int, trials[-1]) if trials else (0, 0)
    if note.is_alive:
        return SearchState(name, "running", done, of, _last(said))
    lines = said.splitlines()
    failed = next((line for line in reversed(lines) if line.startswith("Error: ")), None)
    if failed or not lines:
        return SearchState(
            name, "failed", done, of, (failed or "it exited without an error message").removeprefix("Error: ")
        )
    return SearchState(name, "ended", done, of, _conclusion(lines))


def _last(said: str) -> str:
    """Return the last line."""
    return said.splitlines()[-1] if said else ""


def _conclusion(lines: list[str]) -> str:
    """Return what follows the last line about a run: the words of the command."""
    progress = [i for i, line in enumerate(lines) if PROGRESS.match(line)]
    return "\n".join(lines[progress[-1] + 1 if progress else 0 :]).strip() or lines[-1]
