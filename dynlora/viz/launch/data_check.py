"""The check of a data file as the Launch page shows it: which repairs were chosen, and what the check needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.config import parse_config
from dynlora.data_files import binary_file, reader, repair_list, scan
from dynlora.text import listed, one_line, plural
from dynlora.viz.kit import strong_language

MAX_CHECKED_BYTES = 100 * 2**20
"""A larger file of this machine is checked by the command line only: a page would wait too long."""


def _files_of(path: Path) -> list[Path]:
    """Return the files that are read for a file or folder."""
    if not path.is_dir():
        return [path]
    if binary_file.is_saved(path):
        folders = [path, *(path / split for split in binary_file.saved_splits(path))]
        return sorted(each for folder in folders for each in folder.iterdir() if each.is_file())
    return [each for files in reader.files_of(path).values() for each in files]


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the tables of a folder."""
    return sum(each.stat().st_size for each in _files_of(path))


def version_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return names, times and sizes of what is read: when one changes, the check is made again."""
    return tuple((str(each), each.stat().st_mtime_ns, each.stat().st_size) for each in _files_of(path))


def chosen(text: str, key: str, start: Sequence[Any]) -> list[Any]:
    """Return the repairs that the address holds for a file, as a configuration holds them.

    Args:
        text: the value in the address, `<key>:<JSON>`; what is not of this file, or no repair, counts for nothing.
        key: of the file.
        start: those that the form starts with, where the address says nothing of this file.
    """
    owner, _, listed = text.partition(":")
    try:
        wanted = json.loads(listed) if owner == key else list(start)
        repairs = parse_config({"data": {"repair": wanted}}).data.repair
    except (ValueError, RecursionError):
        return []
    return [repair_list.plain(repair) for repair in repairs or ()]


def address(key: str, repairs: Sequence[Any]) -> str:
    """Return what the address holds for the repairs of a file."""
    return f"{key}:{json.dumps(list(repairs), ensure_ascii=False, separators=(',', ':'))}"


def added(repairs: Sequence[Any], more: Sequence[Any]) -> list[Any]:
    """Return repairs with more of them behind, each once."""
    every = [*repairs, *more]
    return [repair for place, repair in enumerate(every) if repair not in every[:place]]


def checked(config: Mapping[str, Any], path: Path) -> scan.CheckResult:
    """Return what the check of the data of a configuration found.

    Raises:
        ConfigError, DataError: when the configuration or the file cannot be used.
    """
    parsed = parse_config(config)
    return scan.look(path, scan.wanted_of(parsed.data, parsed.seed))


def asked(config: Mapping[str, Any]) -> str:
    """Return the part of a configuration that the check depends on, as text: another text is another check."""
    return json.dumps({"data": config.get("data", {}), "seed": config.get("seed", 0)}, sort_keys=True, default=str)


BLOCKS, WARNS = ":red-badge[:material/block: Blocks the start]", ":orange-badge[:material/warning: Warning]"
"""What is before a fault that training refuses, and before one that it takes."""

_SETTING = re.compile(r" with data\.repair=\[.*\]")


def on_page(sentence: str) -> str:
    """Return the sentence of a fault for a page, where a button is beside it in place of the setting."""
    return _SETTING.sub(" with the button", sentence)


def blocking(found: Mapping[str, Any]) -> str:
    """Return why training refuses a file, in a sentence; empty when it takes it."""
    names = [one_line(fault["title"], 60) for fault in found["faults"] if fault["refuses"]]
    if not names:
        return ""
    them = "it" if len(names) == 1 else "them"
    return (
        f"Start waits for the data: {plural(len(names), 'fault')} ({listed(names)}). Repair {them} in the data check."
    )


def sizes(found: Mapping[str, Any], seed: int) -> str:
    """Return the sizes of both parts in a sentence; which rows are held out depends on the seed of the run."""
    rows = found["rows"]
    drawn = f", drawn with seed {seed}" if found["is_drawn"] else ""
    return f"{rows['training']:,} training and {rows['held-out']:,} held-out examples{drawn}."


def examples_frame(fault: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of a fault: where, text, and label or completion."""
    return pd.DataFrame(fault["examples"])


def examples_line(fault: Mapping[str, Any], n: int = 3) -> str:
    """Return the first rows of a fault in one line."""
    return ", ".join(_example(row) for row in fault["examples"][:n])


def _example(row: Mapping[str, str]) -> str:
    """Return a row in words."""
    text = f"“{strong_language.shown(row['text'])[:60]}”" if row["text"] else "empty text"
    if "completion" in row:
        return f"{text} → {row['completion'][:30] or 'empty completion'}"
    return f"{text} ({row['label'][:30] or 'no label'})" if "label" in row else text
