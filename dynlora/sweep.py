"""A sweep: one queued run per combination of listed values."""

from __future__ import annotations

import itertools
import math
import re
import time
from pathlib import Path

from dynlora import launch
from dynlora.commands import Report, read_config
from dynlora.config_files import parse_value, split_override
from dynlora.errors import ConfigError
from dynlora.store.schema import run_folder
from dynlora.store.summary import run_summary

MAX_RUNS = 200
"""A sweep of more runs is refused."""


def sweep(*, config: Path | None, overrides: tuple[str, ...], name: str | None, runs_dir: Path, wait: bool) -> Report:
    """Queue one run per combination of the listed values."""
    choices = [(key, _values(raw)) for key, raw in (_raw_override(item) for item in overrides)]
    n = math.prod(len(values) for _, values in choices)
    if n > MAX_RUNS:
        raise ConfigError(f"sweep: {n:,} combinations are more than {MAX_RUNS}; give fewer values")
    from dynlora import training

    combinations = list(itertools.product(*(values for _, values in choices)))
    settings = []
    for combination in combinations:
        chosen = [f"{key}={value}" for (key, _), value in zip(choices, combination, strict=True)]
        varying = [text for text, (_, values) in zip(chosen, choices, strict=True) if len(values) > 1]
        title = " ".join(filter(None, [name, *varying])) or None
        settings.append(read_config(config, tuple(chosen), title))
    planned = [training.plan(item) for item in settings]  # all are checked before the first folder is made
    ids = [item.create(runs_dir, "queued").name for item in planned]
    launch.start_next(runs_dir)
    if wait:
        _wait(runs_dir, ids)
    return [
        {"id": run_id, "name": item.title, "status": "queued"} for run_id, item in zip(ids, settings, strict=True)
    ], "\n".join(ids)


def _raw_override(text: str) -> tuple[str, str]:
    """Return key and unparsed value of an override."""
    key, _ = split_override(text)
    return key, text.partition("=")[2]


def _values(raw: str) -> list[str]:
    """Return the values of `a,b,c` or `0..4`; a YAML list or mapping stays one value."""
    span = re.fullmatch(r"\s*(-?\d+)\.\.(-?\d+)\s*", raw)
    if span:
        first, last = int(span[1]), int(span[2])
        if last < first or last - first > 1000:
            raise ConfigError(f"sweep {raw}: must be a range first..last of at most 1,000 numbers, such as 0..4")
        return [str(value) for value in range(first, last + 1)]
    if isinstance(parse_value(raw), list | dict):
        return [raw]
    return [part.strip() for part in raw.split(",")]


def _wait(runs_dir: Path, ids: list[str]) -> None:
    """Wait until runs have ended, keeping the queue moving."""
    open_ids = set(ids)
    while open_ids:
        time.sleep(1)
        launch.wake(runs_dir)
        open_ids = {i for i in open_ids if run_summary(run_folder(runs_dir, i))["status"] in ("queued", "running")}
