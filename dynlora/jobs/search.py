"""A search that is asked for from a page: a job of its own, which continues when the page is left.

It runs `dynlora sweep --search`; all of it is in the folder `.studies` of the runs folder: the study, the configuration
it began with, its output, and its record.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.config_files import yaml_text
from dynlora.errors import ConfigError, storing
from dynlora.jobs import helper_job
from dynlora.jobs.helper_job import HelperJob
from dynlora.jobs.spawn import Folder, locked, own_folder, runs_root
from dynlora.jobs.sweep import SECTION
from dynlora.safe_files import tail, write_text
from dynlora.store.process import ProcessNote

STUDIES_DIR = ".studies"
"""Folder of a runs folder that holds studies."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
MOST_TRIALS, MOST_SEEDS = 1000, 50
"""Of one study: trials, and new seeds that confirm its best."""

MOST_LISTED = 20
"""Newest searches that are listed."""


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
        if (job := _job(folder, name)) is not None and job.status == "running":
            raise ConfigError(f"study={name}: this search runs already; wait for it, or name another one")
        request = folder / f"{name}.yaml"
        with storing("the configuration of the search"):
            write_text(request, yaml_text({**config, SECTION: dict(lists)}))
        (folder / f"{name}.pid").unlink(missing_ok=True)
        helper_job.start("search", command(request, options, root), folder / f"{name}{helper_job.ENDING}")
    return name


def command(request: Path, options: Mapping[str, Any], runs_dir: Path) -> list[str]:
    """Return the command of a search as an argument list."""
    beginning = [sys.executable, "-m", "dynlora", "sweep", "--search", "--config", str(request)]
    return [*beginning, *arguments(options), "--runs-dir", str(runs_dir)]


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Return options as arguments: a switch that is on by its name alone, what is empty not at all."""
    parts: list[str] = []
    for name, value in options.items():
        if value is True:
            parts.append(f"--{name}")
        elif value is not None and value is not False and value != "":
            parts += [f"--{name}", str(value)]
    return parts


def searches(runs_dir: Folder) -> dict[str, HelperJob]:
    """Return the newest searches that pages started by the name of their study, running ones first."""
    folder = runs_root(runs_dir) / STUDIES_DIR
    if not folder.is_dir() or folder.is_symlink():
        return {}
    files = [*folder.glob(f"*{helper_job.ENDING}"), *folder.glob("*.pid")]
    names = dict.fromkeys(file.stem for file in sorted(files, key=lambda file: -file.lstat().st_mtime))
    jobs = {name: _job(folder, name) for name in list(names)[:MOST_LISTED] if NAME.fullmatch(name)}
    known = {name: job for name, job in jobs.items() if job is not None}
    return dict(sorted(known.items(), key=lambda item: item[1].status != "running"))


def cancel(runs_dir: Folder, name: str) -> None:
    """End the process of a search; a run that trains continues, and so does the study under the same name."""
    if NAME.fullmatch(name):
        helper_job.cancel(runs_root(runs_dir) / STUDIES_DIR / f"{name}{helper_job.ENDING}")


def _job(folder: Path, name: str) -> HelperJob | None:
    """Return the job of a search; what an earlier version left of one is its process and its output."""
    job = helper_job.follow(folder / f"{name}{helper_job.ENDING}")
    if job is not None or not (folder / f"{name}.pid").exists():
        return job
    note, output = ProcessNote.at(folder / f"{name}.pid"), tail(folder / f"{name}.log")
    return HelperJob(kind="search", status="running" if note.is_alive else "done", message=output)
