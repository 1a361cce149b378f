"""A sweep as it is asked for: listed values counted here, the runs checked and queued by a child process.

The listed values travel in a file like everything else a user chose: a configuration with a section `sweep`, which
`dynlora sweep --config FILE` reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import AfterValidator, Field

from dynlora.config import Section
from dynlora.config_files import parse_value, split_override, yaml_text
from dynlora.errors import ConfigError, DynloraError, storing
from dynlora.jobs import helper_job
from dynlora.jobs.environment import python_command
from dynlora.jobs.helper_job import HelperJob
from dynlora.jobs.launch import made_once
from dynlora.jobs.queue import wake
from dynlora.jobs.spawn import Folder, locked, own_folder, runs_root
from dynlora.safe_files import tail, write_text
from dynlora.store.lifecycle import ProcessNote
from dynlora.store.schema import check_run_id

SECTION = "sweep"
"""Section of a configuration file that lists values: dotted key to a list, or to text as after `--set key=`."""

MAX_RUNS = 200
"""A sweep of more runs is refused."""


def choices_of(raw: str) -> list[Any]:
    """Return the values that `a,b,c` or `0..4` lists; a YAML list or mapping stays one value.

    Raises:
        ConfigError: when a range runs backwards or names more than 1,000 numbers.
    """
    span = re.fullmatch(r"\s*(-?\d{1,18})\.\.(-?\d{1,18})\s*", raw)
    if span:
        first, last = int(span[1]), int(span[2])
        if last < first or last - first > 1000:
            raise ConfigError(f"sweep {raw}: must be a range first..last of at most 1,000 numbers, such as 0..4")
        return list(range(first, last + 1))
    if isinstance(parse_value(raw), list | dict):
        return [parse_value(raw)]
    return [parse_value(part.strip()) for part in raw.split(",")]


def section_choices(section: Any) -> dict[str, list[Any]]:
    """Return the values by key that the section of a file lists.

    Raises:
        ConfigError: when it is no mapping of keys to values.
    """
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{SECTION}={section}: must be keys with lists of values, such as `seed: [0, 1]`")
    choices: dict[str, list[Any]] = {}
    for key, value in cast(Mapping[Any, Any], section).items():
        if isinstance(value, str):
            choices[str(key)] = choices_of(value)
        elif isinstance(value, list):
            items = cast(list[Any], value)
            choices[str(key)] = [parse_value(item) if isinstance(item, str) else item for item in items]
        else:
            choices[str(key)] = [value]
        if not choices[str(key)]:
            raise ConfigError(f"{SECTION}.{key}: has no value; give one or more, or remove the key")
    return choices


def check_once(key: str, values: Sequence[Any]) -> None:
    """Refuse a value that is listed twice: its runs would be equal.

    Raises:
        ConfigError: for the first one.
    """
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ConfigError(f"{key}: has {value!s:.60} twice; give each value once")


def count(choices: Mapping[str, list[Any]]) -> int:
    """Return how many runs a sweep makes.

    Raises:
        ConfigError: when these are more than `MAX_RUNS`, or two of them are equal.
    """
    for key, values in choices.items():
        check_once(key, values)
    n = math.prod(len(values) for values in choices.values())
    if n > MAX_RUNS:
        raise ConfigError(f"sweep: {n:,} combinations are more than {MAX_RUNS}; give fewer values")
    return n


def listed(lines: str) -> dict[str, str]:
    """Return the text after each key of lines such as `seed=0..4`.

    Raises:
        ConfigError: when a line is not of that form or a key stands there twice.
    """
    lists: dict[str, str] = {}
    for line in filter(None, (line.strip() for line in lines.splitlines())):
        key, _ = split_override(line)
        if key in lists:
            raise ConfigError(f"{key}: given twice; write all its values in one line, such as {key}=a,b")
        lists[key] = line.partition("=")[2].strip()
    return lists


def sweep_command(config: Path, runs_dir: Path) -> list[str]:
    """Return the command that checks a sweep and queues its runs."""
    return python_command("dynlora", "sweep", "--config", str(config), "--json", "--runs-dir", str(runs_dir))


def enqueue_sweep(
    config: Mapping[str, Any], lists: Mapping[str, Any], runs_dir: Folder, *, key: str, timeout_s: float = 300.0
) -> list[str]:
    """Check every run of a sweep in a child process, queue them all or none, and return their ids.

    Args:
        config: the configuration that all runs share, as plain values.
        lists: a list of values for each key, or text as `listed` returns it.
        runs_dir: folder of the runs; made when missing.
        key: idempotency key; a second call with the same key returns the runs of the first.
        timeout_s: seconds to wait for the check, which may fetch a model.

    Raises:
        ConfigError: when the key or the sweep cannot be used; the text is the child's sentence.
        DynloraError: when the child fails or takes too long.
    """
    count(section_choices(dict(lists)))
    root = runs_root(runs_dir, make=True)

    def ask(request: Path) -> list[str]:
        document = {**config, SECTION: dict(lists)}
        with storing("the configuration of the sweep"):
            write_text(request, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        return _ids(helper_job.run("check", sweep_command(request, root), timeout_s, "the sweep was not queued"))

    ids = made_once(root, key, "ids", ask, timeout_s)
    wake(root)
    return list(ids)


def _ids(document: Any) -> list[str]:
    try:
        return [check_run_id(str(item["id"])) for item in document]
    except (TypeError, KeyError):
        raise DynloraError("the sweep was not queued: the check returned no runs") from None


STUDIES_DIR = ".studies"
"""Folder of a runs folder that holds studies."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


def _study(name: str) -> str:
    """Return the name of a study.

    Raises:
        ConfigError: when it is too long, or has other signs.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"--study {name[:60]}: must be 1 to 40 letters, digits and _ . -, such as rates-1")
    return name


class Request(Section):
    """What a search is asked for; the options of `dynlora sweep --search` are made of it."""

    study: Annotated[str, AfterValidator(_study)] = Field(
        "search", description="Search: name of the study; one that exists continues."
    )
    trials: int = Field(20, ge=1, le=1000, description="Search: trials of each study, earlier ones included.")
    objective: str = Field("loss", description="Search: metric that is made best.")
    sampler: Literal["tpe", "random"] = Field("tpe", description="Search: Parzen estimator, or random (the control).")
    pruner: Literal["median", "none"] = Field("median", description="Search: what stops trials early.")
    each: str = Field("", description="Search: a study for each value of KEY=A,B, with as many trials each.")
    rates: bool = Field(False, description="Search: learning rates over a wide range; with --each, tuned fairly.")
    confirm: int = Field(3, ge=0, le=50, description="Search: new seeds for the best and the default.")


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
    beginning = python_command("dynlora", "sweep", "--search", "--config", str(request))
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
