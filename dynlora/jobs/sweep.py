"""A sweep as it is asked for: listed values counted here, the runs checked and queued by a child process.

The listed values travel in a file like everything else a user chose: a configuration with a section `sweep`, which
`dynlora sweep --config FILE` reads.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from dynlora.config_files import parse_value, split_override
from dynlora.errors import ConfigError, DynloraError, storing
from dynlora.jobs import helper_job
from dynlora.jobs.launch import made_once
from dynlora.jobs.queue import wake
from dynlora.jobs.spawn import Folder, runs_root
from dynlora.safe_files import write_text
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
    found: dict[str, list[Any]] = {}
    for key, value in cast(Mapping[Any, Any], section).items():
        if isinstance(value, str):
            found[str(key)] = choices_of(value)
        elif isinstance(value, list):
            items = cast(list[Any], value)
            found[str(key)] = [parse_value(item) if isinstance(item, str) else item for item in items]
        else:
            found[str(key)] = [value]
        if not found[str(key)]:
            raise ConfigError(f"{SECTION}.{key}: has no value; give one or more, or remove the key")
    return found


def count(choices: Mapping[str, list[Any]]) -> int:
    """Return how many runs a sweep makes.

    Raises:
        ConfigError: when these are more than `MAX_RUNS`.
    """
    n = math.prod(len(values) for values in choices.values())
    if n > MAX_RUNS:
        raise ConfigError(f"sweep: {n:,} combinations are more than {MAX_RUNS}; give fewer values")
    return n


def listed(lines: str) -> dict[str, str]:
    """Return the text after each key of lines such as `seed=0..4`.

    Raises:
        ConfigError: when a line is not of that form or a key stands there twice.
    """
    found: dict[str, str] = {}
    for line in filter(None, (line.strip() for line in lines.splitlines())):
        key, _ = split_override(line)
        if key in found:
            raise ConfigError(f"{key}: given twice; write all its values in one line, such as {key}=a,b")
        found[key] = line.partition("=")[2].strip()
    return found


def sweep_command(config: Path, runs_dir: Path) -> list[str]:
    """Return the command that checks a sweep and queues its runs."""
    return [sys.executable, "-m", "dynlora", "sweep", "--config", str(config), "--json", "--runs-dir", str(runs_dir)]


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


def _ids(found: Any) -> list[str]:
    try:
        return [check_run_id(str(item["id"])) for item in found]
    except (TypeError, KeyError):
        raise DynloraError("the sweep was not queued: the check returned no runs") from None
